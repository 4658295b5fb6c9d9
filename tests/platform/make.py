"""Run the Makefile as a user does, in a state directory and on ports of the test's own."""

import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from scripts.options import ROOT
from scripts.processes import Processes

PORTS = ("APP_PORT", "AGENT_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "TUNER_PORT", "GRAFANA_PORT")
PATIENCE = 120  # seconds until a command that hangs fails its test


def free_ports(count: int) -> list[int]:
    """Find ports that nothing listens on; held together, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


class Make:
    """The Makefile with its settings.

    Args:
        run_dir: where native state goes.
        settings: more variables, over the defaults of a quick native start.
    """

    def __init__(self, run_dir: Path, **settings: object) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        # The session's own state directory is for what this process records, not for the app.
        inherited = {name: value for name, value in os.environ.items() if name != "OBSERVABILITY_DIR"}
        ours = {"MODE": "native", "RUN_DIR": run_dir, "TRAFFIC_SECONDS": 0, "WEB_CONCURRENCY": 2, "FOLLOW": 0}
        self.environ = inherited | {k: str(v) for k, v in (ours | self.ports | settings).items()}
        self.processes = Processes(run_dir)
        self.run_dir = run_dir

    def __call__(self, target: str, **settings: object) -> "subprocess.CompletedProcess[str]":
        """Run a target to its end."""
        given = [f"{name}={value}" for name, value in settings.items()]
        return subprocess.run(
            ["make", "--no-print-directory", target, *given],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, target: str) -> "subprocess.Popen[str]":
        """Start a target as a terminal does: in a process group of its own."""
        return subprocess.Popen(
            ["make", "--no-print-directory", target],
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def url(self, variable: str, path: str = "/") -> str:
        """Return an address of what listens on a port."""
        return f"http://127.0.0.1:{self.ports[variable]}{path}"

    def pids(self) -> dict[str, int]:
        """Return what runs, by name."""
        found = {name: self.processes.pid(name) for name in self.processes.names()}
        return {name: pid for name, pid in found.items() if pid is not None}

    def left(self) -> list[str]:
        """Return the command lines of all live processes that were started with this state directory."""
        mark = f"RUN_DIR={self.run_dir}".encode()
        return [text for pid in _all_pids() if (text := _command_if(pid, mark))]

    def end(self) -> None:
        """End what a failed test has left."""
        self("down")
        for name in self.pids():
            os.kill(json.loads((self.processes.records / f"{name}.json").read_text())["pid"], signal.SIGKILL)


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if int(path.name) != os.getpid()]


def _command_if(pid: int, mark: bytes) -> str:
    try:
        if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return ""
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""  # gone meanwhile, or a kernel thread
