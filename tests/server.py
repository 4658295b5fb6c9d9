"""A real gunicorn for a test: started in the repository's root with its gunicorn.conf.py, ended by its pid."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

ROOT = Path(__file__).resolve().parent.parent
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


_given: set[int] = set()
_choosing = threading.Lock()
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_port() -> int:
    """Return a port that is free, below those that outgoing connections take (ip(7), ip_local_port_range).

    Nobody gets it again, nor does anybody look whether it is free, since whom it was given to may not listen yet.
    """
    while True:
        port = random.randrange(20_000 + _PROCESS, 32_768, _PROCESSES)
        with _choosing:
            if port in _given:
                continue
            _given.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Return the condition's first true value; the time is what a patient user would wait."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(requests.RequestException, psutil.Error):
            if value := condition():
                return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what or condition}"
        time.sleep(0.05)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that a test has started; one that does not end when asked is killed."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def json_lines(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; of one that is being written, a reader may see a part, which is left out."""
    text = log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


class Server:
    """One gunicorn master with its workers and its agent.

    Args:
        directory: where its log, its state, and the app's data go.
        app: what gunicorn serves; the default is tests/probe_app.py.
        env: settings, over the defaults below.
        path: an entry that comes first on PYTHONPATH, such as another gunicorn version.
        prefix: what its command begins with, such as taskset and a core.
        stdout: a descriptor for its output, instead of its log.
    """

    def __init__(
        self,
        directory: Path,
        app: str = "tests.probe_app:create_app()",
        path: Path | None = None,
        prefix: Sequence[str] = (),
        stdout: int | None = None,
        **env: object,
    ) -> None:
        self.directory = directory
        self.app = app
        self.prefix = prefix
        self.stdout = stdout
        self.port, self.agent_port = free_port(), free_port()
        self.url, self.agent_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.agent_port}"
        self.state_directory = directory / "state"
        self.log_path = directory / "server.log"
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.env = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(path) if path else "", str(ROOT)])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GUNICORN_BIND": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": "2",
            "GUNICORN_GRACEFUL_TIMEOUT": "5",
            "OBSERVABILITY_DIR": str(self.state_directory),
            "OBSERVABILITY_AGENT_PORT": str(self.agent_port),
            "DATA_DIR": str(directory / "data"),
            **{key: str(value) for key, value in env.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()  # __exit__ is not called then, and the server would outlive the tests
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, str(Path(sys.executable).with_name("gunicorn")), *([self.app] if self.app else [])],
                cwd=ROOT,
                env=self.env,
                stdout=log if self.stdout is None else self.stdout,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def wait_ready(self, workers: int | None = None) -> None:
        wanted = workers or int(self.env["WEB_CONCURRENCY"])

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"gunicorn ended: {self.log_path.read_text()[-3000:]}"
            return sum(worker["booted"] for worker in self.state()["workers"]) >= wanted

        wait_until(ready, 30, "booted workers")

    def stop(self, seconds: float = 20.0) -> int:
        """End the server as an operator would; what does not end is killed, by its pid."""
        assert self.process is not None
        pids = [self.pid, *[child.pid for child in self.children()], *self.upgraded()]
        for pid in {self.pid, *self.upgraded()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            for pid in pids:
                with contextlib.suppress(psutil.Error):
                    if psutil.Process(pid).environ().get("OBSERVABILITY_DIR") == str(self.state_directory):
                        psutil.wait_procs([psutil.Process(pid)], 2)
                        psutil.Process(pid).kill()

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        os.kill(pid or self.pid, number)

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def upgraded(self) -> list[int]:
        """Return the pids of masters that a binary upgrade started."""
        with contextlib.suppress(requests.RequestException):
            return [master["pid"] for master in self.state()["masters"] if master["pid"] != self.pid]
        return []

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=options.pop("timeout", 20), **options)

    def agent(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.agent_url + path, timeout=5, **options)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.agent("/state").json()
        return found

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.state()["workers"]]

    def metrics(self, *, openmetrics: bool = False) -> "Samples":
        answer = self.agent("/metrics", headers={"Accept": OPENMETRICS} if openmetrics else {})
        answer.raise_for_status()
        families = (parse_openmetrics if openmetrics else parse_text)(answer.text)
        return Samples([sample for family in families for sample in family.samples])

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines; every one must be a JSON object."""
        return json_lines(self.log_path)

    def requests_logged(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("event.name") == "http.server.request"]


class Samples(list[Any]):
    """Samples of one scrape."""

    def select(self, name: str, **labels: str) -> Iterator[Any]:
        return (
            sample
            for sample in self
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )

    def sum(self, name: str, **labels: str) -> float:
        return float(sum(sample.value for sample in self.select(name, **labels)))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        return {sample.labels[label]: sample.value for sample in self.select(name, **labels)}
