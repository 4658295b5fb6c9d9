"""Whether a worker could boot from what is on disk: `gunicorn --check-config`, run in a process of its own.

A worker that cannot boot takes the whole server down, unless the master has loaded the app. So what the master was
started as is run again, with its directory and its environment, up to the point where the configuration is read and the
app is loaded: no socket is opened, no server hook runs, and a state directory of its own keeps it off the server's.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from observability import redact

SECONDS = 30.0  # gunicorn's own default for a worker's boot: its timeout
_MOST_BYTES = 16 * 1024  # of its output that are kept: the end
_LONGEST = 500
_LOOK_SECONDS = 0.1
# Run before the command itself: it dies with the agent, and before any worker where memory is short (proc(5)).
_PRELUDE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
except OSError:
    pass
os.execvp(sys.argv[2], sys.argv[2:])
"""
# What is the agent's own, or would make the check part of an upgrade or of systemd's start.
_LEFT_OUT = ("PYTHONPATH", "GUNICORN_PID", "GUNICORN_FD", "LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET")


class UncheckedError(RuntimeError):
    """A server that cannot be checked; the message says why."""


def check(master: int, seconds: float = SECONDS) -> str:
    """Return why no worker could boot from what is on disk, in one line; empty where one could. It takes a while.

    Args:
        master: the pid of the gunicorn master.
        seconds: after which it is given up, and ended for good.

    Raises:
        UncheckedError: the master's command is not gunicorn's, or nothing can be run.
    """
    try:
        command = checking(command_of(master))
        with tempfile.TemporaryDirectory(prefix="sightline-check-") as directory:
            env = _environment(master) | {"OBSERVABILITY_DIR": directory, "OBSERVABILITY_AGENT": "0"}
            code, output = run(command, env, f"/proc/{master}/cwd", seconds)
    except OSError as error:
        raise UncheckedError(f"it cannot be run: {error.strerror or error}") from None
    if code is None:
        return f"it took longer than {seconds:g} s"
    return "" if code == 0 else _last_line(output) or f"it ended with {code}"


def command_of(pid: int) -> list[str]:
    """Return a process's command line.

    Raises:
        OSError: it is gone, or somebody else's.
    """
    return _words(Path(f"/proc/{pid}/cmdline"))


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with.

    Raises:
        OSError: it is gone, or somebody else's.
    """
    pairs = (word.partition("=") for word in _words(Path(f"/proc/{pid}/environ")))
    return {name: value for name, _, value in pairs}


def _words(path: Path) -> list[str]:
    return [os.fsdecode(word) for word in path.read_bytes().removesuffix(b"\0").split(b"\0")]


def checking(command: Sequence[str]) -> list[str]:
    """Turn the command that started a server into one that only checks what it would run.

    Raises:
        UncheckedError: the command is not gunicorn's: who knows what it would do.
    """
    for index, word in enumerate(command):
        if Path(word).name == "gunicorn":
            return [*command[: index + 1], "--check-config", *command[index + 1 :]]
    raise UncheckedError(f"the master's command line is not gunicorn's: {' '.join(command)[:100]!r}")


def _environment(master: int) -> dict[str, str]:
    """Return what a new worker would find: the master's environment, and what the master had added to it by then."""
    started_with = environment_of(master)
    inherited = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    return {name: value for name, value in started_with.items() if name not in _LEFT_OUT[1:]} | inherited


def run(command: Sequence[str], env: dict[str, str], cwd: str, seconds: float) -> tuple[int | None, str]:
    """Run a command in a process group of its own, of which nothing is left afterwards.

    Returns its exit status, None where it took too long, and the end of what it said on stderr.
    """
    prelude = [sys.executable, "-I", "-S", "-c", _PRELUDE, str(os.getpid())]
    with subprocess.Popen(
        [*prelude, *command],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            ended, output = _watch(process, time.monotonic() + seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it is not reaped yet, so the number is still its own
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode if ended else None, output.decode(errors="backslashreplace")


def _watch(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bool, bytes]:
    """Read what it says until it ends, or until the deadline; a child that it leaves behind is not waited for."""
    assert process.stderr is not None  # noqa: S101 - for the types
    fd, tail = process.stderr.fileno(), b""
    poll = select.poll()  # select(2) cannot take the descriptors of an agent with many clients
    poll.register(fd, select.POLLIN)
    while time.monotonic() < deadline:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        data = os.read(fd, 64 * 1024) if poll.poll(0 if ended else _LOOK_SECONDS * 1000) else None
        tail = (tail + (data or b""))[-_MOST_BYTES:]
        if ended and not data:
            return True, tail
        if data == b"":  # it closed its stderr, and goes on
            time.sleep(_LOOK_SECONDS)
    return False, tail


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return redact.text(lines[-1], _LONGEST) if lines else ""
