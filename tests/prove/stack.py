"""All that a scenario runs: gunicorn, Prometheus with the rules, Alertmanager with the routes, and who is told."""

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from tests.alertmanager import Alertmanager
from tests.prometheus import Prometheus
from tests.prove import scaling
from tests.prove.load import Traffic
from tests.prove.webhook import Notice, Webhook
from tests.server import ROOT, Server, free_port, wait_until

MONITORING: Final = ROOT / "monitoring"
RULES: Final = MONITORING / "prometheus/rules"
DEMO: Final = MONITORING / "prometheus/demo/slo.yml"
WATCHDOG: Final = "Watchdog"
USUAL: Final = (("GET", "/todos/1"), ("GET", "/todos"), ("GET", "/todos/1"), ("POST", "/todos"), ("GET", "/todos/1"))
STOPPED: Final = threading.Event()


class Stopped(Exception):
    """Whoever gave the command has had enough: every trial ends, and takes its processes along."""


def rest(seconds: float) -> None:
    """Wait.

    Raises:
        Stopped: it was interrupted meanwhile.
    """
    if STOPPED.wait(max(0.0, seconds)):
        raise Stopped


@dataclass
class Setup:
    """What runs before the fault.

    Args:
        app: what gunicorn serves.
        env: the server's settings, over two gthread workers.
        servers: how many there are; the background goes to the first.
        alertmanagers: how many there are.
        sample: methods and paths of the background.
        rate: requests a second of the background.
        prefix: what gunicorn's command begins with.
        stdout: a descriptor for gunicorn's output.
        exporter: HOST:PORT of the exporter that probes from outside, if there is one.
        probed: what it asks for; a path is the first server's.
    """

    app: str = "app:create_app()"
    env: dict[str, object] = field(default_factory=dict)
    servers: int = 1
    alertmanagers: int = 1
    sample: Sequence[tuple[str, str]] = USUAL
    rate: float = 5.0
    prefix: Sequence[str] = ()
    stdout: int | None = None
    exporter: str = ""
    probed: str = "/healthz"


@dataclass(frozen=True)
class Firing:
    """One alert that fired, with one set of labels.

    Args:
        pending: Unix time from which its expression held.
        first: Unix time from which it fired.
        last: Unix time until which it fired.
    """

    labels: dict[str, str]
    pending: float
    first: float
    last: float

    @property
    def alert(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]


class Stack:
    """The parts, while its block runs.

    Args:
        setup: what to run.
        compressed: with the scaled rules and a scrape a second; else all as shipped.
    """

    def __init__(self, setup: Setup, *, compressed: bool) -> None:
        self.setup = setup
        self.compressed = compressed
        self.extra: Any = None
        self.people, self.tuner = Webhook(), Webhook()
        self._running = ExitStack()

    def __enter__(self) -> "Stack":
        with ExitStack() as starting:
            self.directory = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="sightline-prove-")))
            starting.enter_context(self.people)
            starting.enter_context(self.tuner)
            self.servers = [starting.enter_context(self._server(number)) for number in range(self.setup.servers)]
            config = routed(self.people.url, self.tuner.url, compressed=self.compressed)
            self.alertmanagers = [
                starting.enter_context(Alertmanager(self._made(f"alertmanager-{number}"), config))
                for number in range(self.setup.alertmanagers)
            ]
            self.started = time.time()
            self.prometheus = starting.enter_context(self._prometheus())
            self.traffic = starting.enter_context(Traffic(self.server.url, self.setup.sample, self.setup.rate))
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def server(self) -> Server:
        """The first server, which gets the background."""
        return self.servers[0]

    def _made(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir()
        return path

    def _server(self, number: int) -> Server:
        usual: dict[str, object] = {
            "GUNICORN_WORKER_CLASS": "gthread",
            "FAULTS_ENABLED": 1,
            "GUNICORN_GRACEFUL_TIMEOUT": 2,
        }
        env: Any = {**usual, **self.setup.env}
        directory = self._made(f"server-{number}")
        return Server(directory, self.setup.app, prefix=self.setup.prefix, stdout=self.setup.stdout, **env)

    def _prometheus(self) -> Prometheus:
        directory, port = self._made("prometheus"), free_port()
        found = RULES
        if self.compressed:
            found = directory / "rules"
            scaling.rules(RULES, found, DEMO)
        targets = {
            "sightline": [f"127.0.0.1:{server.agent_port}" for server in self.servers],
            "prometheus": [f"127.0.0.1:{port}"],
            "alertmanager": [f"127.0.0.1:{each.port}" for each in self.alertmanagers],
        }
        if self.setup.exporter:
            probed = self.setup.probed
            targets["blackbox"] = [self.server.url + probed if probed.startswith("/") else probed]
        config = scraping(targets, found, exporter=self.setup.exporter, compressed=self.compressed)
        return Prometheus(directory, port=port, config=config)

    def settle(self, seconds: float) -> None:
        """Wait until all see each other, then let the windows fill."""
        up = f'count(up{{job="sightline"}} == 1) == {len(self.servers)}'
        wait_until(lambda: self.prometheus.query(up), 30, "the agents in Prometheus")
        wait_until(self._alertmanagers_found, 30, "Alertmanager in Prometheus")
        rest(seconds)

    def _alertmanagers_found(self) -> bool:
        found = self.prometheus.api("alertmanagers")["activeAlertmanagers"]
        return len(found) == len(self.alertmanagers)

    def notices(self, alert: str, status: str = "firing", since: float = 0.0) -> list[Notice]:
        """Return what anybody was told of an alert, the oldest first."""
        found = [notice for each in (self.people, self.tuner) for notice in each.notices(alert, status, since)]
        return sorted(found, key=lambda notice: notice.at)

    def fired(self) -> list[Firing]:
        """Return what has fired since the start, the watchdog apart."""
        selector = f'ALERTS{{alertname!="{WATCHDOG}"}}[{round(time.time() - self.started) + 1}s]'
        found: dict[str, dict[frozenset[tuple[str, str]], list[float]]] = {"pending": {}, "firing": {}}
        for series in self.prometheus.api("query", query=selector)["result"]:
            labels = {key: value for key, value in series["metric"].items() if key not in ("__name__", "alertstate")}
            found[series["metric"]["alertstate"]][frozenset(labels.items())] = [at for at, _ in series["values"]]
        return [
            Firing(dict(labels), min(_episode(found["pending"].get(labels, []), times[0])), times[0], times[-1])
            for labels, times in found["firing"].items()
        ]

    def agents(self, server: Server) -> list[psutil.Process]:
        """Return the agent beside a server: its child that is no worker."""
        workers = set(server.worker_pids())
        return [child for child in psutil.Process(server.pid).children() if child.pid not in workers]


def _episode(pending: list[float], firing: float) -> list[float]:
    """Return the moments before `firing` in which it was pending without a gap of more than 16 s."""
    found = [firing]
    for at in sorted((each for each in pending if each <= firing), reverse=True):
        if found[-1] - at > 16:  # more than an evaluation of any group
            break
        found.append(at)
    return found


def scraping(targets: dict[str, list[str]], rules: Path, *, exporter: str, compressed: bool) -> dict[str, Any]:
    """Return the shipped configuration of Prometheus with these rules, and with the jobs that have targets here."""
    text = (MONITORING / "prometheus/prometheus.yml").read_text().replace("blackbox:9115", exporter)
    config: dict[str, Any] = yaml.safe_load(text)
    jobs = [job for job in config["scrape_configs"] if job["job_name"] in targets]
    for job in jobs:
        for key in [key for key in job if key.endswith("_sd_configs")]:
            del job[key]
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
        if compressed:
            job["scrape_interval"] = job["scrape_timeout"] = scaling.EVERY
    if compressed:
        config["global"] |= {"scrape_interval": scaling.EVERY, "evaluation_interval": scaling.EVERY}
        config["global"].pop("scrape_timeout", None)
    config["scrape_configs"] = jobs
    config["rule_files"] = [f"{rules}/*.yml"]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": targets["alertmanager"]}]}]
    return config


def routed(people: str, tuner: str, *, compressed: bool) -> dict[str, Any]:
    """Return the shipped routes, with a webhook for each receiver: the tuner's is one, all others are people."""
    config: dict[str, Any] = yaml.safe_load((MONITORING / "alertmanager/alertmanager.yml").read_text())
    if compressed:
        config["route"] = scaling.route(config["route"])
    config["receivers"] = [
        {
            "name": each["name"],
            "webhook_configs": [{"url": tuner if each["name"] == "tuner" else people, "send_resolved": True}],
        }
        for each in config["receivers"]
    ]
    return config
