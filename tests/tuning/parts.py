"""What a test of the tuner runs: gunicorn, Prometheus with the shipped rules, Alertmanager with the routes, the tuner.

Durations of rules and routes may be scaled as in tests/prove/scaling.py, and the tuner's with them: a minute is 20 s.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.alertmanager import Alertmanager
from tests.prometheus import Prometheus
from tests.prove import scaling
from tests.prove.stack import DEMO, RULES, routed, scraping
from tests.server import ROOT, Samples, Server, end, free_port, json_lines, wait_until

WINDOW = 20
WEBHOOK_TOKEN, CONTROL_TOKEN = "the-secret-of-the-webhook", "the-secret-of-the-control"
PATIENT = 150.0  # an alert, a worker, and a window twice, on a busy machine
SCALED: dict[str, object] = {
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
        given = {"PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1", **defaults, **env}
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
        found = json_lines(self.log_path)
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
    """All parts but the tuner, which each test starts as it needs it.

    Args:
        directory: for whatever the parts write.
        alertmanager: whether there is one; without, nobody sends notifications.
        app: what gunicorn serves.
        env: the server's settings, over two sync workers.
        prefix: what gunicorn's command begins with.
        scaled: whether rules, routes and the tuner's durations are; else all as shipped.
        people: the webhook of every receiver but the tuner, if somebody listens.
    """

    def __init__(
        self,
        directory: Path,
        *,
        alertmanager: bool = True,
        app: str = "tests.probe_app:create_app()",
        env: Mapping[str, object] | None = None,
        prefix: Sequence[str] = (),
        scaled: bool = True,
        people: str = "",
    ) -> None:
        self.directory, self.app, self.prefix = directory, app, prefix
        self.scaled, self.people_url = scaled, people
        self.env = dict(env or {})
        self.tuner_port = free_port()
        self.with_alertmanager = alertmanager
        self.tokens = {}
        for name, text in {"webhook": WEBHOOK_TOKEN, "control": CONTROL_TOKEN}.items():
            self.tokens[name] = directory / f"{name}_token"
            self.tokens[name].write_text(text)
            self.tokens[name].chmod(0o600)

    def __enter__(self) -> "Stack":
        with ExitStack() as starting:
            usual = {"OBSERVABILITY_CONTROL_TOKEN_FILE": self.tokens["control"], "GUNICORN_WORKER_CLASS": "sync"}
            env: dict[str, Any] = {**usual, **self.env}
            server = Server(self._made("server"), self.app, prefix=self.prefix, **env)
            self.server = starting.enter_context(server)
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
        config = routed(self.people_url or "http://127.0.0.1:9", tuner, compressed=self.scaled)
        for receiver in config["receivers"]:
            if receiver["name"] == "tuner":
                authorization = {"authorization": {"credentials_file": str(self.tokens["webhook"])}}
                receiver["webhook_configs"] = [{"url": tuner, "send_resolved": True, "http_config": authorization}]
            elif not self.people_url:
                del receiver["webhook_configs"]
        return config

    def _prometheus(self) -> Prometheus:
        directory, rules = self._made("prometheus"), RULES
        if self.scaled:
            rules = directory / "rules"
            scaling.rules(RULES, rules, DEMO)
        targets = {"sightline": [f"127.0.0.1:{self.server.agent_port}"], "tuner": [f"127.0.0.1:{self.tuner_port}"]}
        targets["alertmanager"] = [f"127.0.0.1:{self.alertmanager.port}"]
        return Prometheus(directory, config=scraping(targets, rules, exporter="", compressed=self.scaled))

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
        return Tuner(directory, self.tuner_port, **(SCALED if self.scaled else {}) | usual | env)

    def target(self) -> int:
        """Return how many workers the master wants."""
        found: int = self.server.state()["server"]["workers_target"]
        return found

    def changes(self) -> list[tuple[int, int]]:
        """Return every change of the workers that the agent has made."""
        found = [line for line in self.server.lines() if line["body"] == "workers changed"]
        return [(line["workers_before"], line["workers_after"]) for line in found]

    def agent(self) -> psutil.Process:
        """Return the agent beside the server: its child that is no worker."""
        workers = set(self.server.worker_pids())
        (found,) = [child for child in psutil.Process(self.server.pid).children() if child.pid not in workers]
        return found
