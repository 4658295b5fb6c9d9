"""The agent as the gunicorn master sees it: a child process that is started, restarted, and taken along.

The master holds the agent's listening socket and the agent inherits it. So a scrape that comes while the agent restarts
waits in the backlog, and after a binary upgrade (USR2) both masters' agents serve the same socket until the old leaves.
No thread runs in the master, and nothing here waits but `stop`, for a bounded time.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from observability import catalogue, logs, store
from observability.settings import Settings

STEADY_SECONDS = 10.0  # an agent that lived so long is restarted at once
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_STOP_SECONDS = 2.0


class AgentProcess:
    """One agent process beside one master.

    Args:
        settings: where it listens.
        directory: the state directory that it reads.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.socket: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._delay = 0.0

    @property
    def fd(self) -> int:
        """The listening socket's descriptor; -1 where there is none."""
        return self.socket.fileno() if self.socket is not None else -1

    def listen(self, inherited: int = -1) -> None:
        """Open the listening socket, or take the old master's; a port in use is left to the agent to try again."""
        host, port = self.settings.agent_host, self.settings.agent_port
        if inherited >= 0 and self._inherit(inherited):
            return
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            logs.get_logger("observability").error(
                "the agent cannot listen yet: metrics and health are not served until it can",
                reason=f"OBSERVABILITY_AGENT_PORT is {port} on {host}: {error.strerror or error}",
            )

    def _inherit(self, fd: int) -> bool:
        try:
            inherited = socket.socket(fileno=fd)
        except OSError:
            return False
        if inherited.getsockname()[1:2] != (self.settings.agent_port,):
            inherited.detach()  # some other descriptor under that number: not ours to close
            return False
        inherited.set_inheritable(False)
        self.socket = inherited
        return True

    def start(self) -> None:
        """Start the agent."""
        command = [sys.executable, "-m", "observability", "agent", "--master", str(os.getpid())]
        command += ["--delay", str(self._delay)] if self._delay else []
        command += ["--fd", str(self.fd)] if self.socket is not None else []
        package = Path(__file__).resolve().parent.parent
        search = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
        self.process = _popen()(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(self.fd,) if self.socket is not None else (),
            env={**os.environ, "PYTHONPATH": search, "OBSERVABILITY_DIR": str(self.settings.directory)},
        )
        self._started = time.monotonic()
        store.child(catalogue.AGENT_STARTS).inc()

    def reaped(self, pid: int, status: int) -> None:
        """Start the agent again if it is what the master has reaped; one that keeps dying waits ever longer."""
        if self.process is None or pid != self.process.pid:
            return
        self.process.returncode = os.waitstatus_to_exitcode(status)  # reaped already: Popen shall not wait for it
        steady = time.monotonic() - self._started >= STEADY_SECONDS
        self._delay = 0.0 if steady else min(_LONGEST_DELAY, max(_FIRST_DELAY, self._delay * 2))
        logs.get_logger("observability").error(
            "the agent died, and is started again", status=self.process.returncode, delay_seconds=self._delay
        )
        self.start()

    def forget(self) -> None:
        """Let go of the socket in a forked worker."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self.process = None

    def hand_over(self) -> None:
        """Let the socket pass through the exec of a binary upgrade."""
        if self.socket is not None:
            self.socket.set_inheritable(True)

    def stop(self) -> None:
        """End the agent, and wait for it briefly, so that the port is free when the master is gone."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.terminate()
                process.wait(_STOP_SECONDS)
        self.forget()


def _popen() -> Any:
    """Return the subprocess.Popen that was there before gevent's: that one's SIGCHLD handler would be the arbiter's."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("subprocess", "Popen") if monkey is not None else subprocess.Popen
