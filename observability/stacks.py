"""Where a worker's threads, greenlets and tasks stand: written by the worker itself, also while it hangs.

A worker enables faulthandler, which costs nothing until a signal arrives: SIGABRT, which gunicorn sends to a worker
whose heartbeat has stopped, a second before it kills it; SIGSEGV and its like; and one that asks on demand. The dump is
written in C, so it comes also where the GIL is held. What only Python can see, greenlets and asyncio tasks that wait,
is added where Python still runs.
"""

import contextlib
import faulthandler
import gc
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from observability import flight, slots
from observability.store import STORE

# A real-time signal, which neither gunicorn nor the usual libraries use; it is sent to a worker only after the worker
# has said in its slot's note that it takes it, since it would end any other process.
ASK = int(signal.SIGRTMIN) + 7
_MOST_FRAMES = 100  # as faulthandler's own
_MOST_BYTES = 256 * 1024
_ANSWER_SECONDS, _SETTLED_SECONDS = 1.0, 0.05
_HEAD = re.compile(
    r"^(?:Current thread|Thread|Greenlet|Task) 0x([0-9a-f]+)(?: \[.*\])? \(most recent call first\):$", re.MULTILINE
)
_HANDLERS = (__name__, "observability.hooks", "gunicorn.workers.base")
_FLIGHTS = "Requests in flight: "

_file: Any = None


def path_of(directory: Path, slot: int) -> Path:
    """Return where the worker of a slot writes its stacks."""
    return directory / f"worker-{slot}.stack"


def open_file(directory: Path, slot: int) -> None:
    """Make the file that this worker writes its stacks to, while it still may: before it drops privileges."""
    global _file
    path = path_of(directory, slot)
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
    _file = os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8")


def begin() -> None:
    """Make this worker write its stacks when it is asked, when it crashes, and before it is killed for a timeout.

    Call it when the worker class has set its signal handlers: those still run, after the dump.
    """
    if _file is None:
        return
    signal.signal(ASK, _add_waiting)
    faulthandler.register(ASK, _file, all_threads=True, chain=True)
    handler = signal.getsignal(signal.SIGABRT)
    faulthandler.disable()  # PYTHONFAULTHANDLER, or the app, may have enabled it before gunicorn set its handler
    signal.signal(signal.SIGABRT, handler)
    faulthandler.enable(_file, all_threads=True)
    STORE.slot.write_note(answers_stacks=True)


def note_requests(requests: Iterable[Mapping[str, Any]]) -> None:
    """Write down the requests in flight of a worker that is about to be killed, since ending it ends them."""
    if _file is not None:
        os.write(_file.fileno(), f"\n{_FLIGHTS}{orjson.dumps(list(requests)).decode()}\n".encode())
        _add_waiting()


def _add_waiting(*_: object) -> None:
    """Add what waits in Python: greenlets, or tasks; a signal handler, and no failure leaves it."""
    with contextlib.suppress(Exception):
        text = "".join(
            f"\n{kind} 0x{ident:016x} (most recent call first):\n{''.join(lines)}" for kind, ident, lines in _waiting()
        )
        os.write(_file.fileno(), text.encode("utf-8", "replace"))


def _waiting() -> Iterator[tuple[str, int, list[str]]]:
    """Yield what serves a request and is no thread: its kind, its identity, its lines from the innermost call."""
    idents = {each["ident"] for each in flight.read(flight.copy(STORE.slot.memory))}
    if "greenlet" in sys.modules:
        greenlet: Any = sys.modules["greenlet"]

        current = greenlet.getcurrent()
        for each in gc.get_objects():  # slow, but there is no other list of them, and it is rarely asked
            if isinstance(each, greenlet.greenlet) and id(each) in idents:
                frame = _interrupted(sys._getframe()) if each is current else each.gr_frame
                yield "Greenlet", id(each), list(_frames(frame))
    if "asyncio" in sys.modules:
        import asyncio

        with contextlib.suppress(RuntimeError):  # no loop runs in this thread
            for task in asyncio.all_tasks(asyncio.get_running_loop()):
                if id(task) in idents:
                    yield "Task", id(task), list(_awaited(task.get_coro()))


def _awaited(coroutine: Any) -> list[str]:
    """Return where a task waits: the coroutines that await one another, the innermost first."""
    lines: list[str] = []
    while coroutine is not None and len(lines) < _MOST_FRAMES:
        frame = next(filter(None, (getattr(coroutine, f"{kind}_frame", None) for kind in ("cr", "gi", "ag"))), None)
        if frame is None:
            break
        lines.append(_line(frame))
        coroutine = next(
            filter(None, (getattr(coroutine, name, None) for name in ("cr_await", "gi_yieldfrom", "ag_await"))), None
        )
    return lines[::-1]


def _frames(frame: FrameType | None) -> Iterator[str]:
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return
        yield _line(frame)
        frame = frame.f_back


def _interrupted(frame: FrameType | None) -> FrameType | None:
    """Return the frame that the signal has interrupted: below the handlers, ours and gunicorn's."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_HANDLERS):
        frame = frame.f_back
    return frame


def _line(frame: FrameType) -> str:
    return f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n'


def read(directory: Path, slot: int) -> str:
    """Return what the worker of a slot has written; empty where there is nothing."""
    try:
        with path_of(directory, slot).open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def by_ident(text: str) -> dict[int, str]:
    """Return the stacks of a dump by thread, greenlet or task; under 0 that of the thread that ran."""
    found: dict[int, str] = {}
    for head in _HEAD.finditer(text):  # of several dumps, the last one stands
        lines = text[head.end() :].lstrip("\n").splitlines()
        stack = "\n".join(itertools.takewhile(lambda line: line.startswith("  "), lines))
        found[int(head[1], 16)] = stack
        if head[0].startswith("Current"):
            found[0] = stack
    return found


def requests_of(text: str) -> list[dict[str, Any]] | None:
    """Return the requests in flight that a dying worker has written down; None where it could not."""
    for line in text.splitlines():
        if line.startswith(_FLIGHTS):
            with contextlib.suppress(ValueError):
                noted: list[dict[str, Any]] = orjson.loads(line.removeprefix(_FLIGHTS))
                return noted
    return None


def ask(directory: Path, slot: int) -> str | None:
    """Ask the worker of a slot for its stacks; None where no live worker answers.

    It takes well under a tenth of a second, and at most a second.
    """
    path = slots.path_of(directory, "worker", slot)
    try:
        note = slots.live_note(path)
        if not note.get("answers_stacks"):
            return None
        with contextlib.closing(_Pidfd(note["pid"])) as process:
            if slots.live_note(path).get("pid") != note["pid"]:  # else the number could be another process's by now
                return None
            os.truncate(path_of(directory, slot), 0)
            signal.pidfd_send_signal(process.fd, ASK)
        return _settled(directory, slot)
    except (OSError, KeyError):
        return None


class _Pidfd:
    """A process held by descriptor: its number cannot come to mean another."""

    def __init__(self, pid: int) -> None:
        self.fd = os.pidfd_open(pid)

    def close(self) -> None:
        os.close(self.fd)


def _settled(directory: Path, slot: int) -> str | None:
    """Return the dump when it no longer grows."""
    deadline, before = time.monotonic() + _ANSWER_SECONDS, ""
    while time.monotonic() < deadline:
        time.sleep(_SETTLED_SECONDS)
        text = read(directory, slot)
        if text and text == before:
            return text
        before = text
    return before or None
