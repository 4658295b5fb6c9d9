"""The agent as the gunicorn master sees it: a child process that is started, restarted, and taken along.

The master holds the agent's listening socket and the agent inherits it. So a scrape that comes while the agent restarts
waits in the backlog, and after a binary upgrade (USR2) both masters' agents serve the same socket until the old leaves.
No thread runs in the master, and nothing here waits but `stop`, for a bounded time.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from observability import catalogue, logs, store
from observability.settings import Settings

STEADY_SECONDS = 10.0  # an agent that lived so long is restarted at once
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_STOP_SECONDS = 2.0
_AGENT_FD = 3


class AgentProcess:
    """One agent process beside one master.

    Args:
        settings: where it listens, and the state directory that it reads.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.socket: socket.socket | None = None
        self.pid = 0
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
        """Start the agent.

        By posix_spawn and not subprocess: an app that is preloaded may have let gevent patch what that stands on, and
        gevent's versions of them wait for an event loop that does not run in the master.
        """
        command = [sys.executable, "-m", "observability", "agent", "--master", str(os.getpid())]
        command += ["--delay", str(self._delay)] if self._delay else []
        command += ["--fd", str(_AGENT_FD)] if self.socket is not None else []
        package = str(Path(__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        env = {**os.environ, "PYTHONPATH": search, "OBSERVABILITY_DIR": str(self.settings.directory)}
        self.pid = 0
        self.pid = os.posix_spawn(sys.executable, command, env, file_actions=self._file_actions())
        self._started = time.monotonic()
        store.child(catalogue.AGENT_STARTS).inc()

    def ensure(self) -> None:
        """Start the agent if the last start failed, for want of memory or of process ids."""
        if not self.pid:
            self.start()

    def _file_actions(self) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
        """Give the agent its socket, and nothing else of the master's: a listener would hold the app's port."""
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        for entry in list(Path("/proc/self/fd").iterdir()):
            fd = int(entry.name)
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                if fd > 2 and os.get_inheritable(fd):
                    actions.append((os.POSIX_SPAWN_CLOSE, fd))
        if self.socket is not None:
            actions.append((os.POSIX_SPAWN_DUP2, self.fd, _AGENT_FD))
        return actions

    def reaped(self, pid: int, status: int) -> None:
        """Start the agent again if it is what the master has reaped; one that keeps dying waits ever longer."""
        if pid != self.pid:
            return
        steady = time.monotonic() - self._started >= STEADY_SECONDS
        self._delay = 0.0 if steady else min(_LONGEST_DELAY, max(_FIRST_DELAY, self._delay * 2))
        logs.get_logger("observability").error(
            "the agent died, and is started again", status=os.waitstatus_to_exitcode(status), delay_seconds=self._delay
        )
        self.start()

    def forget(self) -> None:
        """Let go of the socket in a forked worker."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self.pid = 0

    def hand_over(self) -> None:
        """Let the socket pass through the exec of a binary upgrade."""
        if self.socket is not None:
            self.socket.set_inheritable(True)

    def stop(self) -> None:
        """End the agent, and wait for it briefly, so that the port is free when the master is gone."""
        pid, deadline = self.pid, time.monotonic() + _STOP_SECONDS
        self.forget()
        with contextlib.suppress(OSError):  # gone, or reaped, already
            if pid:
                os.kill(pid, signal.SIGTERM)
            while pid and time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
