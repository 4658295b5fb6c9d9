"""Where a worker's threads, greenlets and tasks stand: written by the worker itself, also while it hangs.

A worker enables faulthandler, which costs nothing until a signal arrives: SIGABRT, which gunicorn sends to a worker
whose heartbeat has stopped, a second before it kills it; SIGSEGV and its like; and one that asks on demand. The dump is
written in C, so it comes also where the GIL is held. What only Python can see, greenlets and asyncio tasks that wait,
is added where Python still runs.
"""

import contextlib
import faulthandler
import fcntl
import gc
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from observability import flight, slots
from observability.store import STORE

# A real-time signal, which neither gunicorn nor the usual libraries use; it is sent to a worker only after the worker
# has said in its slot's note that it takes it, since it would end any other process.
ASK = int(signal.SIGRTMIN) + 7
_MOST_FRAMES = 100  # as faulthandler's own
_MOST_BYTES = 256 * 1024
_MOST_WAITING = 100  # greenlets or tasks in an answer, the oldest requests first
_ANSWER_SECONDS, _LOOK_SECONDS, _SHARED_SECONDS = 1.0, 0.01, 1.0
_HEAD = re.compile(
    r"^(?:Current thread|Thread|Greenlet|Task) 0x([0-9a-f]+)(?: \[.*\])? \(most recent call first\):$", re.MULTILINE
)
_HANDLERS = (__name__, "observability.hooks", "gunicorn.workers.base")
_END = "End of stacks."

# Where the greenlets that serve requests are found; without one, all objects are looked through, which takes long.
greenlets: list[Callable[[], Iterable[Any]]] = []
_last_words: Any = None
_answer: Any = None


def path_of(directory: Path, slot: int) -> Path:
    """Return where the worker of a slot writes its stacks as it dies."""
    return directory / f"worker-{slot}.stack"


def answer_of(directory: Path, slot: int) -> Path:
    """Return where it writes them when it is asked."""
    return directory / f"worker-{slot}.answer"


def open_files(directory: Path, slot: int) -> None:
    """Make the files that this worker writes its stacks to, while it still may: before it drops privileges."""
    global _last_words, _answer
    _last_words, _answer = _open(path_of(directory, slot)), _open(answer_of(directory, slot))


def _open(path: Path) -> Any:
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
    return os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8")


def begin() -> None:
    """Make this worker write its stacks when it is asked, when it crashes, and before it is killed for a timeout.

    Call it when the worker class has set its signal handlers: those still run, after the dump.
    """
    if _answer is None:
        return
    handler = signal.getsignal(signal.SIGABRT)
    faulthandler.disable()  # PYTHONFAULTHANDLER, or the app, may have enabled it before gunicorn set its handler
    signal.signal(signal.SIGABRT, handler)
    faulthandler.enable(_last_words, all_threads=True)
    signal.signal(ASK, _add_to_answer)
    faulthandler.register(ASK, _answer, all_threads=True, chain=True)
    STORE.slot.write_note(answers_stacks=True)


def end() -> None:
    """Answer no more: as Python ends, it gives every signal its default action back, and the next one would kill."""
    if _answer is not None:
        STORE.slot.write_note(answers_stacks=False)
        faulthandler.unregister(ASK)
        signal.signal(ASK, signal.SIG_IGN)  # stays to the end, where a handler would not


def _forget() -> None:
    """Leave the files to the worker, in a child that it forks."""
    global _last_words, _answer
    if _answer is not None:
        _last_words = _answer = None
        greenlets.clear()
        faulthandler.unregister(ASK)
        faulthandler.disable()


os.register_at_fork(after_in_child=_forget)


def add_last_words(requests: Iterable[Mapping[str, Any]]) -> None:
    """Add to the last words what only Python sees of these requests: where each greenlet or task waits."""
    if _last_words is not None:
        os.write(_last_words.fileno(), _waiting_text({each["ident"] for each in requests}))


def _add_to_answer(*_: object) -> None:
    """Complete an answer; a signal handler, and no failure leaves it."""
    with contextlib.suppress(Exception):
        oldest = itertools.islice(flight.read(flight.copy(STORE.slot.memory)), _MOST_WAITING)
        os.write(_answer.fileno(), _waiting_text({each["ident"] for each in oldest}))
    with contextlib.suppress(Exception):
        os.write(_answer.fileno(), f"\n{_END}\n".encode())


def _waiting_text(idents: set[int]) -> bytes:
    found = (
        f"\n{kind} 0x{ident:016x} (most recent call first):\n{''.join(lines)}"
        for kind, ident, lines in _waiting(idents)
    )
    return "".join(found).encode("utf-8", "replace")


def _waiting(idents: set[int]) -> Iterator[tuple[str, int, list[str]]]:
    """Yield what serves a request and is no thread: its kind, its identity, its lines from the innermost call."""
    if "greenlet" in sys.modules:
        greenlet: Any = sys.modules["greenlet"]

        current = greenlet.getcurrent()
        for each in itertools.chain.from_iterable(source() for source in greenlets or [gc.get_objects]):
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


def read(path: Path) -> str:
    """Return the end of what a worker has written; empty where there is nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_BYTES))
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def by_ident(text: str) -> dict[int, str]:
    """Return the stacks of a dump by thread, greenlet or task; under 0 that of the thread that ran."""
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    found: dict[int, str] = {}
    for head, end in zip(heads, ends, strict=False):
        lines = text[head.end() : end].lstrip("\n").split("\n")
        stack = "\n".join(itertools.takewhile(lambda line: line.startswith("  "), lines))
        found[int(head[1], 16)] = stack
        if head[0].startswith("Current"):
            found[0] = stack
    return found


def ask(directory: Path, slot: int) -> str | None:
    """Ask the worker of a slot for its stacks; None where no live worker answers.

    It takes some milliseconds, and up to a second of a worker whose Python does not run. Those who ask at the same
    time, or within a second, share one answer.
    """
    path = answer_of(directory, slot)
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if 0 <= time.time() - os.fstat(file.fileno()).st_mtime < _SHARED_SECONDS and _END in (text := read(path)):
                return text
            return _answer_to(directory, slot, file.fileno())
    except (OSError, KeyError, StopIteration, ValueError):
        return None


def _answer_to(directory: Path, slot: int, fd: int) -> str | None:
    where = slots.path_of(directory, "worker", slot)
    note = slots.live_note(where)
    if not note.get("answers_stacks"):
        return None
    with contextlib.closing(_Pidfd(note["pid"])) as process:
        if slots.live_note(where).get("pid") != note["pid"] or not _takes(note["pid"]):
            return None  # the number is another process's: by now, or in this process's namespace
        os.ftruncate(fd, 0)
        signal.pidfd_send_signal(process.fd, ASK)
        return _awaited_answer(answer_of(directory, slot))


def _takes(pid: int) -> bool:
    """Tell whether a process has a handler for the signal, which would end any other; proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (ASK - 1) & 1)


def _awaited_answer(path: Path) -> str | None:
    """Return the answer once it is complete; of a worker whose Python does not run, what came in time."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    text = read(path)
    while _END not in text and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        text = read(path)
    return text or None


class _Pidfd:
    """A process held by descriptor: its number cannot come to mean another."""

    def __init__(self, pid: int) -> None:
        self.fd = os.pidfd_open(pid)

    def close(self) -> None:
        os.close(self.fd)
