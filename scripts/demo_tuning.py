"""The tuner at work on what `make up` runs: a load that waits, and what appears where, in words; it ends by itself."""

import json
import math
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

from scripts import containers, interrupts, packages, running
from scripts.options import Options, load
from scripts.ports import LOOPBACK
from scripts.problem import Problem, report

WAITING = "/faults/sleep?seconds=0.5"
MOST_CLIENTS = 96
MOST_SLOTS = 64
ALERT_SECONDS, DECISION_SECONDS, OUTCOME_SECONDS, OVER_SECONDS = 150.0, 150.0, 240.0, 150.0
LOOK_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
PATIENT_SECONDS = 60.0  # of a client
Say = Callable[[str], None]


class Demo:
    """One showing.

    Args:
        options: where everything is.
        say: takes a line.
    """

    def __init__(self, options: Options, say: Say) -> None:
        self.options, self.say = options, say
        self.started = time.monotonic()
        self.app, self.agent, self.tuner, self.prometheus, self.alertmanager = (
            f"http://{LOOPBACK}:{port}"
            for port in (
                options.app_port,
                options.agent_port,
                options.tuner_port,
                options.prometheus_port,
                options.alertmanager_port,
            )
        )

    def tell(self, text: str) -> None:
        """Say something, with the time since the beginning."""
        self.say(f"{time.monotonic() - self.started:5.0f} s  {text}")

    def run(self) -> None:
        """Send the load, and follow what becomes of it.

        Raises:
            Problem: it cannot be shown here.
        """
        clients, slots = self._clients(), self._slots()
        before = max([each["id"] for each in self._decisions()], default=0)
        self.tell(f"{slots} requests can be served at a time; {clients} clients now ask for what waits 0.5 s.")
        with waiting(self.app + WAITING, clients) as counts:
            self._follow_alert()
            mode = self._follow_decision(before)
            if mode == "apply":
                self._follow_outcome(before)
        self.tell(f"The load ends: {counts['answered']} requests answered, {counts['failed']} not.")
        self._follow_end()
        self.say("\n" + "\n".join(f"  {line}" for line in self._where()))

    def _slots(self) -> int:
        """Return how many requests all workers take at a time."""
        state = ask(f"{self.agent}/metrics", "the agent").decode()
        found = [line for line in state.splitlines() if line.startswith("gunicorn_worker_capacity_requests")]
        slots = round(sum(float(line.rsplit(" ", 1)[1]) for line in found))
        if not 0 < slots <= MOST_SLOTS:
            raise Problem(
                f"The workers take {slots} requests at a time, and this fills {MOST_SLOTS} at most: "
                "give `make down`, then GUNICORN_WORKER_CLASS=sync WEB_CONCURRENCY=2 FAULTS_ENABLED=1 make up"
            )
        return slots

    def _clients(self) -> int:
        try:
            ask(f"{self.app}/faults", "the app")
        except Problem:
            raise Problem(
                "The app serves no route that waits: give `make down`, then FAULTS_ENABLED=1 make up; in containers "
                "COMPOSE_FILE=docker-compose.yml:compose.local.yml:compose.faults.yml make up"
            ) from None
        return min(MOST_CLIENTS, max(self._slots() + 4, math.ceil(1.5 * self._slots())))

    def _decisions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(ask(f"{self.tuner}/decisions", "the tuner"))["decisions"]
        return found

    def _alerts(self) -> set[str]:
        """Return the alerts that fire and go to the tuner."""
        data = json.loads(ask(f"{self.prometheus}/api/v1/alerts", "Prometheus"))["data"]
        firing = [each["labels"] for each in data["alerts"] if each["state"] == "firing"]
        return {labels["alertname"] for labels in firing if labels.get("tuner") == "true"}

    def _follow_alert(self) -> None:
        if not _has_prometheus(self.options):
            self.tell("There is no Prometheus here, so no alert: the tuner looks at the agent, once a minute.")
            return
        if found := wait(self._alerts, ALERT_SECONDS):
            self.tell(f"{', '.join(sorted(found))} fires: {self.prometheus}/alerts")
            self.tell(f"Alertmanager passes it on, to the tuner too: {self.alertmanager}/#/alerts")
        else:
            self.tell(f"No alert within {ALERT_SECONDS:.0f} s; {self.prometheus}/alerts has what is pending.")

    def _follow_decision(self, before: int) -> str:
        """Tell the tuner's decision, and return its mode."""

        def decided() -> dict[str, Any] | None:
            found = [each for each in self._decisions() if each["id"] > before and each["kind"] == "decision"]
            return next((each for each in found if each["advice"] or each["action"] != "hold"), None)

        found = wait(decided, DECISION_SECONDS)
        if not found:
            self.tell(f"The tuner has said nothing new; {self.tuner}/decisions has what it said before.")
            return ""
        self.tell(f"The tuner decides ({found['rule']}): {found['diagnosis']}")
        self.tell(f"... since {found['reason']}")
        for each in found["advice"]:
            self.tell(f"... it advises {each['variable']}={each['value']}: {each['expect']}")
        done = {"applied": "it does so", "recommended": "it recommends that, and changes nothing"}
        if found["action"] != "hold":
            deed = done.get(found["outcome"], found["outcome"])
            self.tell(f"... {found['before']} workers should be {found['workers']}: {deed}.")
        self.tell(f"All of it: {self.tuner}/decisions")
        if found["mode"] == "recommend":
            self.tell("It acts with TUNER_MODE=apply, given to `make up`.")
        return str(found["mode"])

    def _follow_outcome(self, before: int) -> None:
        def judged() -> dict[str, Any] | None:
            found = [each for each in self._decisions() if each["id"] > before and each["kind"] == "outcome"]
            return found[-1] if found else None

        self.tell(f"It now measures what that brings; the workers: {self.agent}/state")
        if found := wait(judged, OUTCOME_SECONDS):
            self.tell(f"It judges: {found['outcome']}. {found['reason']}")
        else:
            self.tell(f"No judgement within {OUTCOME_SECONDS:.0f} s.")

    def _follow_end(self) -> None:
        if _has_prometheus(self.options):
            over = wait(lambda: not self._alerts(), OVER_SECONDS)
            self.tell("The alerts are over." if over else f"An alert still fires: {self.prometheus}/alerts")

    def _where(self) -> Iterator[str]:
        yield f"What it decided, and why    {self.tuner}/decisions"
        yield "The same as lines           make logs"
        yield f"Its metrics                 {self.tuner}/metrics"
        if _has_prometheus(self.options):
            yield f"Workers and queue           {self.prometheus}/graph?g0.expr={_WORKERS}&g0.tab=0&g0.range_input=15m"
        if self.options.mode == "containers":
            yield f"The dashboard, with marks   http://{LOOPBACK}:{self.options.grafana_port}/d/sightline-saturation"


_WORKERS = "gunicorn_workers%7Bstate%3D%22target%22%7D"


def _has_prometheus(options: Options) -> bool:
    return options.mode == "containers" or packages.PROMETHEUS.path() is not None


def ask(url: str, whom: str) -> bytes:
    """Return an answer.

    Raises:
        Problem: there is none.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, HTTPException) as error:
        raise Problem(f"{url}: {whom} does not answer as it should ({error})") from None


def wait(condition: Callable[[], Any], seconds: float) -> Any:
    """Return a condition's first true value, or None when the time is over; what does not answer is asked again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except Problem:
            pass
        time.sleep(LOOK_SECONDS)
    return None


@contextmanager
def waiting(url: str, clients: int) -> Iterator[dict[str, int]]:
    """Have clients ask again and again while the block runs, and count their answers."""
    over, lock = threading.Event(), threading.Lock()
    counts = {"answered": 0, "failed": 0}

    def send() -> None:
        while not over.is_set():
            request = urllib.request.Request(url, headers={"X-Request-Start": f"t={time.time():.3f}"})
            try:
                with urllib.request.urlopen(request, timeout=PATIENT_SECONDS) as answer:
                    answer.read()
                kind = "answered"
            except (OSError, HTTPException):
                kind = "failed"
                over.wait(1)
            with lock:
                counts[kind] += 1

    threads = [threading.Thread(target=send, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENT_SECONDS)


def main() -> None:
    """Show it."""
    interrupts.install()
    options = running.recall(load())
    if options is None:
        raise Problem("Nothing is running: FAULTS_ENABLED=1 make up")
    if options.mode == "containers" and not containers.publishes_all():
        raise Problem("The tuner's port is not published: it is with compose.local.yml, which `make up` takes")
    Demo(options, lambda line: print(line, flush=True)).run()


if __name__ == "__main__":
    sys.exit(report(main))
