"""All that the dashboards look at, running: servers of several classes behind nginx, what they need, and who watches.

Real are gunicorn with the example app, nginx, PostgreSQL, Redis, their exporters, the blackbox exporter, Prometheus,
Alertmanager and the tuner, all with the shipped configuration and this host's addresses. What is recorded over a minute
is over 20 s, and the tuner's durations are scaled with it. Loki, Tempo, Alloy and Grafana are not to be had here, and
are pages of metrics with the names that they document (tests/dashboards/foreign.py).
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis
import requests
import yaml

from scripts import packages
from tests.alertmanager import Alertmanager
from tests.dashboards.foreign import PROGRAMS, Program
from tests.dashboards.proxy import Proxy
from tests.otlp import Receiver
from tests.prometheus import Prometheus
from tests.prove import scaling
from tests.prove.load import Traffic
from tests.prove.stack import MONITORING, RULES, routed
from tests.prove.webhook import Webhook
from tests.server import Server, end, free_port, wait_until
from tests.services import Postgres, Redis
from tests.tuning.parts import CONTROL_TOKEN, SCALED, WEBHOOK_TOKEN, Tuner

SCRAPE_SECONDS: Final = 1
PROBE_EVERY: Final = "5s"
# Name, class, and what else it is started with; the first is alone until `rest`.
CLASSES: Final[dict[str, dict[str, object]]] = {
    "sync": {"GUNICORN_WORKER_CLASS": "sync", "GUNICORN_TIMEOUT": 8},
    "gthread": {
        "GUNICORN_WORKER_CLASS": "gthread",
        "GUNICORN_THREADS": 4,
        "DATABASE_POOL_SIZE": 1,
        "DATABASE_POOL_OVERFLOW": 0,
        "DATABASE_POOL_TIMEOUT": 1,
    },
    "gevent": {"GUNICORN_WORKER_CLASS": "gevent", "APP_ENV": "canary"},
    "asgi": {"GUNICORN_WORKER_CLASS": "asgi"},
}
# Whose workers the tuner may change; of the others it is told no, and can only say what it would do.
CONTROLLED: Final = "sync"
TOKENS: Final = {"webhook": WEBHOOK_TOKEN, "control": CONTROL_TOKEN}
RECORDED: Final = "recording.yml"
TUNING: Final = SCALED | {
    "TUNER_MODE": "apply",
    "TUNER_POLL_SECONDS": 2,
    "TUNER_MAX_WORKERS": 3,  # so that workers stay full, and what fires goes on firing
}
APPS: Final = {"asgi": "tests.dashboards.asgi_app:create_app()"}
USUAL: Final = (
    *(("GET", "/todos"), ("POST", "/todos"), ("GET", "/todos/1"), ("GET", "/todos/1"), ("PUT", "/todos/1")),
    *(("GET", "/"), ("GET", "/todos/1"), ("GET", "/todos/999999"), ("GET", "/nothing-here"), ("GET", "/healthz")),
)


class Stack:
    """The parts, and where they are; `running` makes one."""

    def __init__(self, directory: Path, around: ExitStack) -> None:
        self.directory = directory
        self.around = around
        self.servers: dict[str, Server] = {}
        self.targets = self.made("targets")

    def start(self) -> None:
        """Start who watches, what servers need, and the first server, whom nobody asks for anything yet."""
        enter = self.around.enter_context
        self.postgres, self.redis, self.receiver = enter(Postgres()), enter(Redis()), enter(Receiver())
        self.bound_redis()
        self.people, self.tuner_port = enter(Webhook()), free_port()
        self.tokens = {name: self._token(name, text) for name, text in TOKENS.items()}
        self.alertmanager = enter(Alertmanager(self.made("alertmanager"), self._routes()))
        self.prometheus = self._prometheus()
        self.serve("sync", **CLASSES["sync"])
        self.scrape("prometheus", [f"127.0.0.1:{self.prometheus.port}"])
        self.scrape("alertmanager", [f"127.0.0.1:{self.alertmanager.port}"])

    def rest(self) -> None:
        """Start the other servers and all that stands around them, and send the usual requests through nginx."""
        enter = self.around.enter_context
        for name, env in CLASSES.items():
            if name not in self.servers:
                self.serve(name, **env)
        addresses = [f"127.0.0.1:{server.port}" for server in self.servers.values()]
        self.proxy = enter(Proxy(self.made("nginx"), addresses))
        self._exporters()
        self.tuner = enter(self._tuner())
        self.scrape("tuner", [f"127.0.0.1:{self.tuner_port}"])
        self.programs = {job: Program(counters) for job, counters in PROGRAMS.items()}
        for job, program in self.programs.items():
            self.scrape(job, [enter(program).address])
        self.traffic = enter(Traffic(self.proxy.url, USUAL, rate=20))

    def bound_redis(self, size: int = 96 * 2**20) -> None:
        """Bound its memory, as the compose file does."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.config_set("maxmemory", size)
            client.config_set("maxmemory-policy", "allkeys-lru")

    def serve(self, name: str, app: str = "", stdout: int | None = None, **env: object) -> Server:
        """Start one more server, and have Prometheus scrape its agent."""
        usual: dict[str, object] = {
            "FAULTS_ENABLED": 1,
            "GUNICORN_GRACEFUL_TIMEOUT": 2,
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.endpoint,
            "OTEL_TRACES_SAMPLER_ARG": 1,
            "SERVICE_VERSION": "1.0.0",
            "APP_ENV": "test",
        }
        found = app or APPS.get(name, "app:create_app()")
        prefix: Any = env.pop("prefix", ())
        if name == CONTROLLED:
            usual["OBSERVABILITY_CONTROL_TOKEN_FILE"] = self.tokens["control"]
        directory = self.made(f"server-{name}")
        taken = {each.agent_port % 10 for each in self.servers.values()}
        made = [Server(directory, found, prefix=prefix, stdout=stdout, **(usual | env)) for _ in range(30)]  # type: ignore[arg-type]
        # dashboards colour a server by the last digit of that port: as long as there is one left, by one of its own
        server = min(made, key=lambda each: each.agent_port % 10 in taken)
        self.servers[name] = self.around.enter_context(server)
        self.scrape("sightline", self.instances())
        return server

    def instances(self) -> list[str]:
        """Return what Prometheus calls the servers."""
        return [f"127.0.0.1:{server.agent_port}" for server in self.servers.values()]

    def scraped(self) -> int:
        """Return how many targets Prometheus is to have."""
        files = [json.loads(path.read_text()) for path in self.targets.glob("*.json")]
        return sum(len(group["targets"]) for groups in files for group in groups)

    def scrape(self, job: str, targets: Sequence[str]) -> None:
        """Have Prometheus scrape these for a job, instead of those before."""
        path = self.targets / f"{job}.json"
        made = path.with_suffix(".made")
        made.write_text(json.dumps([{"targets": list(targets)}]))
        made.rename(path)  # never half written

    def made(self, name: str) -> Path:
        """Make a directory that nginx' and PostgreSQL's users may enter."""
        path = self.directory / name
        path.mkdir()
        path.chmod(0o755)
        return path

    def _token(self, name: str, text: str) -> Path:
        path = self.directory / f"{name}_token"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def _routes(self) -> dict[str, Any]:
        """Return the shipped routes; the tuner's webhook has its secret, as shipped."""
        config = routed(self.people.url, f"http://127.0.0.1:{self.tuner_port}/alerts", compressed=True)
        (receiver,) = [each for each in config["receivers"] if each["name"] == "tuner"]
        authorization = {"authorization": {"credentials_file": str(self.tokens["webhook"])}}
        receiver["webhook_configs"][0]["http_config"] = authorization
        return config

    def _tuner(self) -> Tuner:
        env = TUNING | {
            "TUNER_PROMETHEUS_URL": self.prometheus.url,
            "TUNER_WEBHOOK_TOKEN_FILE": self.tokens["webhook"],
            "TUNER_CONTROL_TOKEN_FILE": self.tokens["control"],
        }
        return Tuner(self.made("tuner"), self.tuner_port, **env)

    def _prometheus(self) -> Prometheus:
        directory = self.made("prometheus")
        self.rules = self.made("rules")
        for path in RULES.glob("*.yml"):
            found = yaml.safe_load(path.read_text())
            for group in found["groups"]:
                group["interval"] = f"{SCRAPE_SECONDS}s"
                if path.name == RECORDED:
                    group["rules"] = [rule | {"expr": scaling.promql(rule["expr"])} for rule in group["rules"]]
            (self.rules / path.name).write_text(yaml.safe_dump(found, sort_keys=False))
        self.blackbox = f"127.0.0.1:{free_port()}"
        return self.around.enter_context(Prometheus(directory, config=self._config()))

    def _config(self) -> dict[str, Any]:
        """Return the shipped configuration: each job with the targets that `scrape` names, each second."""
        text = (MONITORING / "prometheus/prometheus.yml").read_text().replace("blackbox:9115", self.blackbox)
        config: dict[str, Any] = yaml.safe_load(text)
        every = f"{SCRAPE_SECONDS}s"
        config["global"] |= {"scrape_interval": every, "evaluation_interval": every}
        for job in config["scrape_configs"]:
            for key in [key for key in job if key.endswith("_configs") and key != "relabel_configs"]:
                del job[key]
            files = [str(self.targets / f"{job['job_name']}.json")]
            # A probe has as long as it is shipped with, which follows from the scrape's time.
            often = PROBE_EVERY if job["job_name"] == "blackbox" else every
            job |= {"scrape_interval": often, "scrape_timeout": often}
            job["file_sd_configs"] = [{"files": files, "refresh_interval": every}]
        config["rule_files"] = [f"{self.rules}/*.yml"]
        managers = [{"static_configs": [{"targets": [f"127.0.0.1:{self.alertmanager.port}"]}]}]
        config["alerting"]["alertmanagers"] = managers
        return config

    def _exporters(self) -> None:
        run = self._exporter
        self.scrape(
            "nginx", [run(packages.NGINX_EXPORTER, "-web.listen-address", "-nginx.scrape-uri", self.proxy.status_url)]
        )
        self.scrape("redis", [run(packages.REDIS_EXPORTER, "-web.listen-address", "-redis.addr", self.redis.url)])
        database = {"DATA_SOURCE_NAME": self.postgres.url + "?sslmode=disable"}
        self.scrape("postgres", [run(packages.POSTGRES_EXPORTER, "--web.listen-address", env=database)])
        config = f"--config.file={MONITORING / 'blackbox/blackbox.yml'}"
        run(packages.BLACKBOX_EXPORTER, "--web.listen-address", config, address=self.blackbox)
        self.scrape("blackbox", [f"{self.proxy.url}/healthz"])

    def _exporter(
        self, tool: packages.Tool, listen: str, *options: str, env: dict[str, str] | None = None, address: str = ""
    ) -> str:
        """Run an exporter, and return its address."""
        program = tool.path()
        assert program, f"{tool.package} is not installed: apt-get install {tool.package}"
        address = address or f"127.0.0.1:{free_port()}"
        log = self.around.enter_context((self.directory / f"{tool.package}.log").open("wb"))
        command = [program, f"{listen}={address}", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env or {}, cwd=self.directory)
        self.around.callback(end, process)
        wait_until(lambda: requests.get(f"http://{address}/metrics", timeout=5).ok, 30, tool.package)
        return address


@contextmanager
def running() -> Iterator[Stack]:
    """Run all of it, under the usual load."""
    with bare() as stack:
        stack.rest()
        yield stack


@contextmanager
def bare() -> Iterator[Stack]:
    """Run what `rest` adds to."""
    with ExitStack() as around:
        directory = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="sightline-dashboards-")))
        directory.chmod(0o755)
        stack = Stack(directory, around)
        stack.start()
        yield stack
