"""The tuner as it runs: gunicorn, Prometheus with the shipped rules, Alertmanager with the shipped routes, the tuner.

Durations of rules and routes are scaled as in tests/prove/scaling.py, and the tuner's with them: a minute is 20 s.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.alertmanager import Alertmanager
from tests.prometheus import Prometheus
from tests.prove import scaling
from tests.prove.stack import DEMO, RULES, routed, scraping
from tests.server import ROOT, Samples, Server, end, free_port, wait_until

WINDOW = 20
WEBHOOK_TOKEN, CONTROL_TOKEN = "the-secret-of-the-webhook", "the-secret-of-the-control"
PATIENT = 150.0  # an alert, a worker, and a window twice, on a busy machine
SCALED = {
    "TUNER_WINDOW_SECONDS": WINDOW,
    "TUNER_GROW_SECONDS": WINDOW,
    "TUNER_SHRINK_SECONDS": 3 * WINDOW,
    "TUNER_IDLE_SECONDS": 3 * WINDOW,
    "TUNER_SETTLE_SECONDS": 30,
    "TUNER_WATCH_SECONDS": 1,
    "TUNER_POLL_SECONDS": 3600,  # what comes of an alert cannot be the poll's
    "TUNER_ACTIONS_PER_HOUR": 60,
}


class Load:
    """Clients who each ask again as soon as they are answered, while the block runs."""

    def __init__(self, url: str, clients: int = 24) -> None:
        self.url, self.clients = url, clients
        self.failed: list[str] = []
        self.answered = 0
        self._over = threading.Event()

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                answer = requests.get(self.url, timeout=30)
                self.answered += 1
                if answer.status_code != 200:
                    self.failed.append(str(answer.status_code))
            except requests.RequestException as error:
                self.failed.append(repr(error))


class Tuner:
    """`tuner serve` in a process of its own.

    Args:
        directory: for its log, and what it remembers.
        port: where it listens.
        env: its settings.
    """

    def __init__(self, directory: Path, port: int, name: str = "tuner", **env: object) -> None:
        self.directory, self.port = directory, port
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = directory / f"{name}.log"
        self.stop_file = directory / "stop"
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        defaults = {"TUNER_PORT": port, "TUNER_DIR": directory / "memory", "TUNER_STOP_FILE": self.stop_file}
        given = {"PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1", **SCALED, **defaults, **env}
        self.env = inherited | {key: str(value) for key, value in given.items()}

    def __enter__(self) -> "Tuner":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "observability", "tuner", "serve"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log)
        wait_until(self._alive, 30, "the tuner")

    def _alive(self) -> bool:
        assert self.process.poll() is None, self.log_path.read_text()[-2000:]
        return self.get("/livez").ok

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def wait_fresh(self) -> None:
        wait_until(lambda: self.get("/readyz").text.startswith("1 servers"), PATIENT, "fresh signals")

    def post(self, body: bytes | dict[str, Any], token: str = WEBHOOK_TOKEN) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.post(f"{self.url}/alerts", data, headers=headers, timeout=10).status_code

    def decisions(self, kind: str = "", outcome: str = "") -> list[dict[str, Any]]:
        found = self.get("/decisions?limit=300").json()["decisions"]
        return [each for each in found if kind in ("", each["kind"]) and outcome in ("", each["outcome"])]

    def lines(self, body: str = "", event: str = "") -> list[dict[str, Any]]:
        """Return the log's lines; every one must be a JSON object."""
        found = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        return [line for line in found if body in line["body"] and event in ("", line.get("event.name"))]

    def metrics(self) -> Samples:
        families = text_string_to_metric_families(self.get("/metrics").text)
        return Samples([sample for family in families for sample in family.samples])

    def webhooks(self, result: str) -> float:
        return self.metrics().sum("tuner_webhooks_total", result=result)


def notification(group: str, started: str = "2026-01-02T03:04:05Z") -> dict[str, Any]:
    """Return what Alertmanager would send of an alert."""
    labels = {"alertname": "WorkersSaturated", "instance": "127.0.0.1:1", "job": "sightline"}
    alert = {
        "status": "firing",
        "labels": labels,
        "annotations": {},
        "startsAt": started,
        "endsAt": "0001-01-01T00:00:00Z",
    }
    told = {"version": "4", "groupKey": group, "truncatedAlerts": 0, "status": "firing", "receiver": "tuner"}
    return told | {"groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": [alert]}


class Stack:
    """All parts but the tuner, which each test starts as it needs it."""

    def __init__(
        self, directory: Path, *, alertmanager: bool = True, app: str = "tests.probe_app:create_app()"
    ) -> None:
        self.directory, self.app = directory, app
        self.tuner_port = free_port()
        self.with_alertmanager = alertmanager
        self.tokens = {}
        for name, text in {"webhook": WEBHOOK_TOKEN, "control": CONTROL_TOKEN}.items():
            self.tokens[name] = directory / f"{name}_token"
            self.tokens[name].write_text(text)
            self.tokens[name].chmod(0o600)

    def __enter__(self) -> "Stack":
        with ExitStack() as starting:
            env = {"OBSERVABILITY_CONTROL_TOKEN_FILE": self.tokens["control"], "GUNICORN_WORKER_CLASS": "sync"}
            self.server = starting.enter_context(Server(self._made("server"), self.app, **env))
            self.alertmanager = Alertmanager(self._made("alertmanager"), self._routes())
            if self.with_alertmanager:
                starting.enter_context(self.alertmanager)
            self.prometheus = starting.enter_context(self._prometheus())
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _made(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir()
        return path

    def _routes(self) -> dict[str, Any]:
        """Return the shipped routes and the shipped webhook, with the addresses and the secret of this machine."""
        tuner = f"http://127.0.0.1:{self.tuner_port}/alerts"
        config = routed(f"http://127.0.0.1:{free_port()}", tuner, compressed=True)
        for receiver in config["receivers"]:
            del receiver["webhook_configs"]
            if receiver["name"] == "tuner":
                authorization = {"authorization": {"credentials_file": str(self.tokens["webhook"])}}
                receiver["webhook_configs"] = [{"url": tuner, "send_resolved": True, "http_config": authorization}]
        return config

    def _prometheus(self) -> Prometheus:
        directory = self._made("prometheus")
        scaling.rules(RULES, directory / "rules", DEMO)
        targets = {"sightline": [f"127.0.0.1:{self.server.agent_port}"], "tuner": [f"127.0.0.1:{self.tuner_port}"]}
        targets["alertmanager"] = [f"127.0.0.1:{self.alertmanager.port}"]
        return Prometheus(directory, config=scraping(targets, directory / "rules", exporter="", compressed=True))

    def tuner(self, name: str, **env: object) -> Tuner:
        """Return a tuner in apply mode that has all the addresses, with a memory of its own."""
        usual: dict[str, object] = {
            "TUNER_MODE": "apply",
            "TUNER_PROMETHEUS_URL": self.prometheus.url,
            "TUNER_WEBHOOK_TOKEN_FILE": self.tokens["webhook"],
            "TUNER_CONTROL_TOKEN_FILE": self.tokens["control"],
        }
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return Tuner(directory, self.tuner_port, **usual | env)

    def target(self) -> int:
        found: int = self.server.state()["server"]["workers_target"]
        return found

    def changes(self) -> list[tuple[int, int]]:
        """Return every change of the workers that the agent has made."""
        found = [line for line in self.server.lines() if line["body"] == "workers changed"]
        return [(line["workers_before"], line["workers_after"]) for line in found]

    def agent(self) -> psutil.Process:
        workers = set(self.server.worker_pids())
        (found,) = [child for child in psutil.Process(self.server.pid).children() if child.pid not in workers]
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    with ExitStack() as running:
        yield lambda **options: running.enter_context(Stack(tmp_path, **options))


def test_an_alert_adds_a_worker_and_the_step_is_judged_also_over_a_restart(start):
    stack = start()
    with stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        assert tuner.decisions() == []
        with Load(f"{stack.server.url}/sleep/0.1") as load:
            (decided,) = wait_until(lambda: tuner.decisions("decision", "applied"), PATIENT, "a worker more")
            tuner.kill()  # in the middle of a step
            assert stack.changes() == [(2, 3)]
            tuner.start()
            (judged,) = wait_until(lambda: tuner.decisions("outcome"), PATIENT, "its judgement")
            tuner.stop_file.touch()
        assert load.failed == []
        assert load.answered > 100
    assert tuner.lines("woken by alerts"), "the poll would have taken an hour"
    assert (decided["action"], decided["before"], decided["workers"]) == ("add_worker", 2, 3)
    assert decided["rule"] == judged["rule"]
    assert any(advice["variable"] == "GUNICORN_WORKER_CLASS" for advice in decided["advice"]), decided
    assert judged["outcome"] == "kept", judged
    assert judged["id"] > decided["id"]
    assert len(tuner.lines(event="tuner.outcome")) == 1
    (line,) = [each for each in tuner.lines(event="tuner.decision") if each["outcome"] == "applied"]
    assert line["signals.workers_target"] == 2
    assert line["signals.queue_p95"] > 0.05
    history = subprocess.run(
        [sys.executable, "-m", "observability", "tuner", "history", "--directory", tuner.env["TUNER_DIR"]],
        cwd=ROOT, env=tuner.env, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "2 -> 3  kept" in history
    assert f"127.0.0.1:{stack.server.agent_port}" in history


def test_what_gains_nothing_is_undone_and_not_tried_again(start):
    stack = start(app="tests.tuning.one_lock_app:create_app()")
    with stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        with Load(stack.server.url) as load:
            (judged,) = wait_until(lambda: tuner.decisions("outcome"), PATIENT, "a judgement")
            assert (judged["outcome"], judged["workers"]) == ("undone", 2), judged
            assert stack.changes() == [(2, 3), (3, 2)]
            wait_until(lambda: tuner.metrics().sum("tuner_ceiling_workers") == 2, 60, "what was learned")
            assert stack.target() == 2
            assert tuner.post(notification("once more")) == 202
            time.sleep(2 * WINDOW)  # nothing is to happen in it
        assert stack.changes() == [(2, 3), (3, 2)]
        assert load.failed == []
    assert [line["outcome"] for line in tuner.lines(event="tuner.outcome")] == ["undone"]


def test_hostile_notifications_do_nothing(start):
    stack = start(alertmanager=False)
    with stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        assert tuner.post(notification("a"), token="") == 401
        assert tuner.post(notification("a"), token="guessed") == 401
        assert tuner.post(b"{") == 400
        assert tuner.post({**notification("a"), "version": 4}) == 400
        assert tuner.post(b"x" * 2_000_000) == 413
        before = tuner.webhooks("accepted")
        assert [tuner.post(notification("doubled")) for _ in range(3)] == [202] * 3
        assert (tuner.webhooks("accepted"), tuner.webhooks("repeated")) == (before + 1, 2)
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda number: tuner.post(notification(str(number))), range(400)))
        assert set(statuses) <= {202, 503}
        assert tuner.webhooks("accepted") + tuner.webhooks("dropped") == before + 401
        assert tuner.get("/livez").ok
        assert stack.changes() == []
        for refused in ("the token is wrong, or missing", "Input data was truncated"):
            assert len([line for line in tuner.lines("a notification is refused") if line["reason"] == refused]) <= 1
    assert tuner.process.returncode == 0


def test_the_stop_file_holds_at_once_and_nothing_is_taken_back(start):
    stack = start()
    with stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        with Load(f"{stack.server.url}/sleep/0.1"):
            wait_until(lambda: tuner.decisions("decision", "applied"), PATIENT, "a worker more")
            tuner.stop_file.touch()
            wait_until(lambda: tuner.metrics().sum("tuner_mode", mode="off") == 1, 5, "the kill switch")
            (judged,) = wait_until(lambda: tuner.decisions("outcome"), 5, "word of the step")
            assert judged["outcome"] == "inconclusive"
            assert "switched off before it could be judged" in judged["reason"]
            time.sleep(2 * WINDOW)  # nothing is to happen in it
            assert stack.changes() == [(2, 3)]
            assert stack.target() == 3
            tuner.stop_file.unlink()
            wait_until(lambda: tuner.metrics().sum("tuner_mode", mode="apply") == 1, 5, "the end of it")


def test_without_prometheus_or_agent_nothing_is_done_and_one_line_says_so(start):
    stack = start()
    with stack.tuner("tuner", TUNER_POLL_SECONDS=1) as tuner, Load(f"{stack.server.url}/sleep/0.1"):
        tuner.wait_fresh()
        stack.agent().send_signal(signal.SIGSTOP)
        wait_until(lambda: tuner.metrics().sum("tuner_frozen", reason="stale") == 1, 60, "stale signals")
        made = tuner.metrics().sum("tuner_decisions_total")
        time.sleep(5)  # nothing is to happen in it
        assert tuner.metrics().sum("tuner_decisions_total") == made
        _agent_again(stack)
        wait_until(lambda: tuner.metrics().sum("tuner_frozen", reason="stale") == 0, 60, "fresh signals")
        stack.prometheus.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: tuner.metrics().sum("tuner_failures_total", part="prometheus") > 1, 60, "failures")
        made = tuner.metrics().sum("tuner_decisions_total")
        assert len(tuner.lines("the tuner's prometheus fails")) == 1
        assert tuner.get("/livez").ok
        assert tuner.metrics().sum("tuner_decisions_total") == made
        stack.prometheus.process.send_signal(signal.SIGCONT)
        wait_until(lambda: tuner.lines("the tuner's prometheus is well again"), 60, "Prometheus")
    assert len(tuner.lines("no decision without fresh signals")) <= 2


def _agent_again(stack: Stack) -> None:
    for child in psutil.Process(stack.server.pid).children():
        if child.status() == psutil.STATUS_STOPPED:
            child.send_signal(signal.SIGCONT)


def test_of_two_tuners_in_one_directory_one_stands_by_and_takes_over(start):
    stack = start(alertmanager=False)
    first = stack.tuner("tuner")
    second = Tuner(first.directory, free_port(), "second", **{**first.env, "TUNER_PORT": ""})
    second.env["TUNER_PORT"] = str(second.port)
    with first, second:
        wait_until(lambda: second.lines("another tuner is active"), 20, "the second to stand by")
        assert second.get("/livez").ok
        assert second.get("/readyz").status_code == 503
        assert second.post(notification("a")) == 503, "Alertmanager sends it again"
        first.kill()
        wait_until(lambda: second.get("/readyz").ok, 20, "the second to take over")
        assert len(second.lines("another tuner is active")) == 1
        assert second.post(notification("a")) == 202


def test_a_lost_webhook_costs_a_poll_and_no_prometheus_is_needed(start):
    """The agent is watched instead, and the tuner only recommends."""
    stack = start(alertmanager=False)
    env = {"TUNER_PROMETHEUS_URL": "", "TUNER_AGENT_URL": stack.server.agent_url, "TUNER_WEBHOOK_TOKEN_FILE": ""}
    env |= {"TUNER_MODE": "recommend", "TUNER_POLL_SECONDS": "2"}
    with stack.tuner("tuner", **env) as tuner, Load(f"{stack.server.url}/sleep/0.1"):
        assert tuner.post(notification("a")) == 404
        found = wait_until(lambda: tuner.decisions("decision", "recommended"), PATIENT, "a recommendation")
        wait_until(lambda: _threads(tuner), PATIENT, "advice")
        assert found[-1]["mode"] == "recommend"
    assert stack.changes() == []


def _threads(tuner: Tuner) -> bool:
    advice = [each["variable"] for entry in tuner.decisions("decision") for each in entry["advice"]]
    return "GUNICORN_THREADS" in advice


def test_beside_kubernetes_it_only_advises(start):
    stack = start(alertmanager=False)
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "TUNER_POLL_SECONDS": 1}
    with stack.tuner("tuner", **env) as tuner, Load(f"{stack.server.url}/sleep/0.1"):
        wait_until(lambda: tuner.decisions("decision", "recommended"), PATIENT, "a recommendation")
        assert len(tuner.lines("beside Kubernetes the tuner advises on settings within a replica")) == 1
        assert tuner.metrics().sum("tuner_mode", mode="recommend") == 1
        assert all(each["variable"] != "REPLICAS" for entry in tuner.decisions() for each in entry["advice"])
    assert stack.changes() == []


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TUNER_MODE": "apply"}, "TUNER_MODE is 'apply', but TUNER_CONTROL_TOKEN_FILE is unset"),
        ({"TUNER_PORT": "0"}, "TUNER_PORT is '0', but takes a whole number from 1 to 65535"),
        ({"OBSERVABILITY_LOG_LEVEL": "loud"}, "OBSERVABILITY_LOG_LEVEL is 'loud', but takes one of"),
    ],
)
def test_a_senseless_setting_is_one_line(tmp_path, env, said):
    tuner = Tuner(tmp_path, free_port(), **env)
    command = [sys.executable, "-m", "observability", "tuner", "serve"]
    done = subprocess.run(command, cwd=ROOT, env=tuner.env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with Tuner(tmp_path, free_port()) as tuner:
        command = [sys.executable, "-m", "observability", "tuner", "serve"]
        done = subprocess.run(command, cwd=ROOT, env=tuner.env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"TUNER_PORT is {tuner.port} on 127.0.0.1, which cannot be listened on: Address already in use\n"
    )
