"""Real PostgreSQL and Redis for tests: on free ports, in temporary directories, ended by their own pids."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server import free_port, wait_until


def program(name: str) -> str:
    """Find a server's program; a machine without it fails the test in one line."""
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(packaged[-1]) if packaged else None)
    if found is None:
        pytest.fail(f"{name} is not installed: apt-get install postgresql redis-server", pytrace=False)
    return found


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Service:
    """A server in a temporary directory; `start` and `stop` may be called again and again."""

    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sightline-test-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "_Service":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        return _answers(self.port)

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)
        wait_until(self._started, 30, self.command()[0])

    def _started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        return self.ready()

    def stop(self) -> None:
        self._end(self.stop_signal)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def pause(self) -> None:
        """Make it hang: connections are taken by the kernel, and nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Redis(_Service):
    """A Redis that keeps nothing on disk."""

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self.directory}
        return [program("redis-server"), *[part for key, value in options.items() for part in (f"--{key}", str(value))]]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class Postgres(_Service):
    """A PostgreSQL with one database; it refuses to run as root, so root lends it another user."""

    stop_signal = signal.SIGQUIT  # at once, and the next start recovers

    def __init__(self) -> None:
        super().__init__()
        self.data = self.directory / "data"
        self._as: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            self._as = [program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(
            [*self._as, program("initdb"), "-D", self.data, "-U", "todo", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self.directory,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )

    def command(self) -> list[str]:
        options = {"fsync": "off", "unix_socket_directories": self.directory, "listen_addresses": "127.0.0.1"}
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return [*self._as, program("postgres"), "-D", str(self.data), "-p", str(self.port), *settings]

    def ready(self) -> bool:
        try:
            self.query("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    @property
    def url(self) -> str:
        return f"postgresql://todo@127.0.0.1:{self.port}/postgres"

    def query(self, statement: Any) -> list[tuple[Any, ...]]:
        """Run a statement beside the service."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []
