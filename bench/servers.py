"""Real gunicorns to be measured: started on free ports, read through /proc, and ended by their ids."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import peers
from bench.load import Cores
from observability.probes import process

ROOT = peers.ROOT
_START_SECONDS, _STOP_SECONDS = 60.0, 20.0
_DROPPED = re.compile(r'^observability_spans_total\{outcome="dropped"\} (\S+)$', re.MULTILINE)
_KEPT = ("PATH", "HOME", "LANG")


@dataclass(frozen=True)
class Variant:
    """One way to serve the app.

    Args:
        name: as the results have it.
        app: what gunicorn loads.
        config: gunicorn's configuration file.
        environment: the peer's environment; ours where it is empty.
        environ: variables of its own.
        worker_classes: the worker classes that the variant has for gunicorn's own.
    """

    name: str
    app: str
    config: str = "bench/confs/plain.py"
    environment: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    worker_classes: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether Sightline's own configuration runs, which takes its settings from the environment."""
        return self.app.startswith("bench.apps.observed")


class ServerError(RuntimeError):
    """A server did not start; the message has the end of its log."""


def free_port() -> int:
    """Return a port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One gunicorn that lives while its block runs.

    Args:
        variant: what is served, and how.
        directory: where its log and its state go; made if need be.
        where: the workers' cores, and those of its master and agent.
        worker_class: gunicorn's own name of it.
        workers: how many.
        environ: more variables.
    """

    def __init__(
        self,
        variant: Variant,
        directory: Path,
        where: Cores,
        worker_class: str = "gevent",
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.variant, self.where, self.count = variant, where, workers
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.port, self.agent_port = free_port(), free_port()
        self.url, self.agent_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.agent_port}"
        self.log = self.directory / "log"
        self._class = variant.worker_classes.get(worker_class, worker_class)
        self._environ = self._variables() | dict(environ or {}) | dict(variant.environ)

    def _variables(self) -> dict[str, str]:
        state = self.directory / "state"
        values = self.directory / "values"
        values.mkdir()
        return {
            **{key: os.environ[key] for key in _KEPT if key in os.environ},
            "PYTHONPATH": str(ROOT),
            "GUNICORN_BIND": f"127.0.0.1:{self.port}",
            "GUNICORN_WORKER_CLASS": self._class,
            "WEB_CONCURRENCY": str(self.count),
            "OBSERVABILITY_DIR": str(state),
            "OBSERVABILITY_AGENT_PORT": str(self.agent_port),
            "PROMETHEUS_MULTIPROC_DIR": str(values),
            "BENCH_METRICS_PORT": str(self.agent_port),
            "PROMETHEUS_METRICS_PORT": str(self.agent_port),
            "PROMETHEUS_BIND_ADDRESS": "127.0.0.1",
            "GUNICORN_WORKERS": str(self.count),
        }

    def _command(self) -> list[str]:
        python = peers.python(self.variant.environment) if self.variant.environment else Path(sys.executable)
        flags = []
        if not self.variant.ours:
            flags = ["--bind", f"127.0.0.1:{self.port}", "--workers", str(self.count), "--worker-class", self._class]
            flags += ["--threads", "8"] if "thread" in self._class.lower() else []
        command = [str(python), "-m", "gunicorn", "--config", self.variant.config, *flags, self.variant.app]
        return [*self.where.prefix, *command]

    def __enter__(self) -> "Server":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=ROOT, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_until_it_serves()
            for pid in self.workers():
                pin(pid, self.where.workers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        left = [*self.workers(), *self.agents()]
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._process.pid

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not (len(self.workers()) >= self.count and self._answers()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{self.variant.name}: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/todos", timeout=5) as answer:
                return bool(answer.status == 200 and answer.read())
        except (OSError, urllib.error.URLError):
            return False

    def workers(self) -> list[int]:
        """Return the workers' process ids: the master's children that run what it runs, since they are forks of it."""
        command = _command_of(self.pid)
        return [pid for pid in _children(self.pid) if _command_of(pid) == command]

    def agents(self) -> list[int]:
        """Return the process ids of what the master has started besides its workers."""
        command = _command_of(self.pid)
        return [pid for pid in _children(self.pid) if _command_of(pid) not in (command, b"")]

    def signal(self, pid: int, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to one of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def dropped_spans(self) -> int:
        """Return how many spans were dropped, by the agent's metrics, which ours alone has."""
        with urllib.request.urlopen(f"{self.agent_url}/metrics", timeout=10) as answer:
            found = _DROPPED.search(answer.read().decode())
        return int(float(found[1])) if found else 0

    def cpu_seconds(self) -> float:
        """Return the workers' CPU time so far, user and system."""
        return sum(cpu_seconds(pid) for pid in self.workers())


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, process.content(f"/proc/{pid}/task/{pid}/children").split()))
    except OSError:
        return []


def _command_of(pid: int) -> bytes:
    try:
        return process.content(f"/proc/{pid}/cmdline")
    except OSError:
        return b""


def cpu_seconds(pid: int) -> float:
    """Return a process's CPU time so far, user and system, over its living threads; 0 where there is none.

    /proc/PID/stat has the same sum in ticks of 10 ms; the scheduler's own account has nanoseconds.
    """
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int(process.content(f"{task}/schedstat").split()[0])
    return total / 1e9


def pin(pid: int, cores: tuple[int, ...]) -> None:
    """Move a process with all its threads to some cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task.name), cores)
