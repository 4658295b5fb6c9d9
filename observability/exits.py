"""Why a worker ended.

gunicorn tells nobody: `child_exit` gets no status, a timeout can end with code 0, and what it prints of a SIGKILL
("Perhaps out of memory?") is a guess. Three witnesses together know. The worker leaves marks in a shared page that was
made before its fork. The master's log names the signal or the code just before `child_exit`. And the cgroup counts
what the kernel killed for want of memory.
"""

import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from observability import catalogue, limits, logs, remains, stacks, store
from observability.context import RequestContext
from observability.remains import Remains

MOST_REQUESTS = 20  # of one worker that are named in the log
RECENT = 10  # ends that the master's slot remembers

# The signals that a process brings upon itself; signal(7), "core" by default, and two more that its limits bring.
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP", "SIGXCPU", "SIGXFSZ"})
_HALTING = frozenset({3, 4})  # exit codes for which gunicorn halts: WORKER_BOOT_ERROR, APP_LOAD_ERROR
_EXPECTED = frozenset({"recycled", "reloaded", "scaled_down", "shutdown"})


@dataclass(frozen=True)
class End:
    """What is known of one worker's end.

    Args:
        signal: the name of the signal that ended it; empty for none.
        code: its exit code.
        aborted: whether the master gave it up for a stopped heartbeat.
        booted: whether it had loaded the app.
        boot_failed: whether it said so itself.
        recycled: whether it had served as many requests as it may.
        exited: whether it left in the orderly way.
        oom: whether the kernel killed something of this cgroup for want of memory since the last such end.
        stopping: whether the server is on its way down.
        reloaded: whether a reload had replaced it.
        surplus: whether as many workers as wanted lived without it.
    """

    signal: str = ""
    code: int = 0
    aborted: bool = False
    booted: bool = True
    boot_failed: bool = False
    recycled: bool = False
    exited: bool = False
    oom: bool = False
    stopping: bool = False
    reloaded: bool = False
    surplus: bool = False


# The first rule that fits says the cause. What the worker suffered comes before what was wanted of it, since a worker
# may crash during a reload; an orderly end that nobody here asked for was asked for from outside.
_RULES: tuple[tuple[str, Callable[[End], bool]], ...] = (
    ("timeout", lambda end: end.aborted),
    ("boot_failed", lambda end: end.boot_failed or (end.code != 0 and not end.booted)),
    ("recycled", lambda end: end.recycled),
    ("oom_killed", lambda end: end.signal == "SIGKILL" and end.oom),
    ("killed", lambda end: end.signal == "SIGKILL"),
    ("crashed", lambda end: end.signal in _FAULTS or end.code != 0),
    ("killed", lambda end: end.signal not in ("", "SIGTERM")),
    ("shutdown", lambda end: end.stopping),
    ("reloaded", lambda end: end.reloaded),
    ("scaled_down", lambda end: end.surplus),
    ("crashed", lambda end: not end.exited and not end.signal),  # os._exit(0)
    ("killed", lambda _: True),
)


def cause_of(end: End) -> str:
    """Return the cause, one of `catalogue.EXIT_CAUSES`."""
    return next(cause for cause, fits in _RULES if fits(end))


class Marks:
    """What a worker writes for its master, in a page that both share.

    Args:
        worker: gunicorn's worker object, before its fork.
    """

    BOOTED, BOOT_FAILED, EXITED, RECYCLED = range(4)
    _IDENTITY = struct.Struct("=QQ")  # pid, slot
    _IDENTITY_AT = 8

    def __init__(self, worker: Any) -> None:
        self.age: int = worker.age
        self.max_requests: int = worker.max_requests
        self.started = time.monotonic()
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def set(self, mark: int) -> None:
        """Leave a mark."""
        self._page[mark] = 1

    def has(self, mark: int) -> bool:
        """Tell whether a mark was left."""
        return self._page[mark] == 1

    def identify(self, slot: int) -> None:
        """Say which process this is, and in which slot."""
        self._IDENTITY.pack_into(self._page, self._IDENTITY_AT, os.getpid(), slot)

    @property
    def pid(self) -> int:
        """The worker's pid; 0 before it is known."""
        return int(self._IDENTITY.unpack_from(self._page, self._IDENTITY_AT)[0])

    @property
    def slot(self) -> int:
        """The worker's slot; 0 where it has none."""
        return int(self._IDENTITY.unpack_from(self._page, self._IDENTITY_AT)[1])


class Exits:
    """One master's account of its workers' ends.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._marks: dict[int, Marks] = {}
        self._said: dict[int, tuple[str, int]] = {}
        self._stopping = False
        self._newest_before_reload = 0
        self._oom_kills = limits.oom_kills()
        self._recent: deque[list[Any]] = deque(maxlen=RECENT)
        for cause in catalogue.EXIT_CAUSES:  # each shows 0 from the start: a first end is an increase then
            store.child(catalogue.EXITS, cause).inc(0)
        store.child(catalogue.REQUESTS_LOST).inc(0)

    def expect(self, server: Any, worker: Any) -> Marks:
        """Make the page of a worker that is about to be forked."""
        alive = {each.age for each in server.WORKERS.values()}
        self._marks = {age: marks for age, marks in self._marks.items() if age in alive}
        self._marks[worker.age] = Marks(worker)
        return self._marks[worker.age]

    def marks_of(self, worker: Any) -> Marks | None:
        """Return a worker's page, in the worker too."""
        return self._marks.get(worker.age)

    def reload(self, server: Any) -> None:
        """Note that all present workers are being replaced."""
        self._newest_before_reload = server.worker_age

    def said(self, pid: int, signal_name: str, code: int) -> None:
        """Take what the master's log says of an end; `child_exit` follows, unless the code makes gunicorn halt."""
        self._said[pid] = (signal_name, code)
        if code in _HALTING:
            self._stopping = True
            for marks in [each for each in self._marks.values() if each.pid == pid]:
                self._marks.pop(marks.age)
                if not marks.has(Marks.BOOT_FAILED):  # else it has counted itself
                    self._note(End(code=code, booted=marks.has(Marks.BOOTED)), pid, marks)

    def stop(self) -> None:
        """Note that the server is on its way down."""
        self._stopping = True

    def ended(self, server: Any, worker: Any) -> None:
        """Find the cause of an end, count it, and log it; called once a worker, after the reap."""
        marks = self._marks.pop(worker.age, None)
        name, code = self._said.pop(worker.pid, ("", 0))
        if marks is not None and marks.has(Marks.BOOT_FAILED):  # it has counted itself
            return
        stopping = self._stopping or not (server.LISTENERS or server.cfg.reuse_port)
        end = End(
            signal=name,
            code=code,
            aborted=worker.aborted,
            booted=marks is None or marks.has(Marks.BOOTED),
            boot_failed=marks is not None and marks.has(Marks.BOOT_FAILED),
            recycled=marks is not None and marks.has(Marks.RECYCLED),
            exited=marks is None or marks.has(Marks.EXITED),
            oom=name == "SIGKILL" and not worker.aborted and self._is_oom(),
            stopping=stopping,
            reloaded=worker.age <= self._newest_before_reload or bool(server.cfg.reload),
            surplus=len(server.WORKERS) >= server.num_workers,
        )
        self._note(end, worker.pid, marks)

    def left_over(self, server: Any) -> None:
        """Note the workers that the server killed as it went down, and did not wait for."""
        for worker in list(server.WORKERS.values()):
            self._note(End("SIGKILL", stopping=True), worker.pid, self._marks.pop(worker.age, None))

    def _is_oom(self) -> bool:
        """Tell whether the kernel has killed for want of memory once more than was accounted for."""
        if limits.oom_kills() <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True

    def _note(self, end: End, pid: int, marks: Marks | None) -> None:
        slot = marks.slot if marks else 0
        left = remains.bury(self._directory, slot, pid) or Remains({}, 0, 0, [])
        if self._served_its_share(end, marks, left):
            end = replace(end, recycled=True)
        cause = cause_of(end)
        store.child(catalogue.EXITS, cause).inc()
        store.child(catalogue.REQUESTS_LOST).inc(left.lost)
        age = time.monotonic() - marks.started if marks else 0.0
        dump = stacks.read(self._directory, slot) if cause == "timeout" or end.signal in _FAULTS else ""
        found = stacks.by_ident(dump)
        requests = stacks.requests_of(dump) or left.flights
        self._remember(slot, pid, cause, end, age, left.requests)
        crash = {"code.stacktrace": found[0]} if cause == "crashed" and 0 in found else {}
        _log_end(end, cause, slot, pid, age, left.requests, requests, **crash)
        if cause == "timeout":
            _log_timeouts(slot, pid, requests, found)

    @staticmethod
    def _served_its_share(end: End, marks: Marks | None, left: Remains) -> bool:
        """Tell recycling from other orderly ends where the worker does not count its requests itself (uvicorn's)."""
        orderly = not end.code and end.signal in ("", "SIGTERM") and not end.stopping
        return orderly and marks is not None and left.requests >= marks.max_requests

    def _remember(self, slot: int, pid: int, cause: str, end: End, age: float, requests: int) -> None:
        """Keep the last ends in the master's slot, for who looks at the server."""
        self._recent.append([round(time.time(), 3), slot, pid, cause, end.signal, end.code, round(age, 3), requests])
        store.STORE.slot.write_note(exits=list(self._recent))


def is_boot_failure(marks: Marks, code: object) -> bool:
    """Tell whether a worker that leaves with this code makes gunicorn halt because it could not boot."""
    return code in _HALTING and not marks.has(Marks.BOOTED)


def boot_failed(marks: Marks, code: int, error: BaseException | None) -> None:
    """Count and log, in the worker itself, that it could not boot: gunicorn halts for it, without another hook."""
    if marks.has(Marks.BOOT_FAILED):
        return
    marks.set(Marks.BOOT_FAILED)
    reason = f"{type(error).__name__}: {error}" if error is not None else ""
    store.STORE.slot.write_note(boot_error=reason[:500])
    store.child(catalogue.EXITS, "boot_failed").inc()
    age = time.monotonic() - marks.started
    _log_end(End(code=code, boot_failed=True), "boot_failed", marks.slot, os.getpid(), age, 0, [], error=reason)


def _log_end(
    end: End, cause: str, slot: int, pid: int, age: float, served: int, requests: list[dict[str, Any]], **more: Any
) -> None:
    how = f" by {end.signal}" if end.signal else f" with code {end.code}" if end.code else ""
    fields = {
        "worker_slot": slot,
        "worker_pid": pid,
        "cause": cause,
        "signal": end.signal,
        "exit_code": None if end.signal else end.code,
        "age_seconds": round(age, 3),
        "requests": served,
        "in_flight": len(requests),
        "requests_in_flight": [_shown(each) for each in requests[:MOST_REQUESTS]],
        **more,
    }
    level = "info" if cause in _EXPECTED else "error"
    logs.emit(level, "gunicorn.worker.exit", fields, body=f"worker {slot} (pid {pid}) ended{how}: {cause}")


def _shown(request: dict[str, Any]) -> dict[str, Any]:
    return {key: request.get(key, "") for key in ("method", "path", "trace_id")} | {"age_seconds": _age(request)}


def _age(request: dict[str, Any]) -> float:
    """Return how old a request was in seconds: when its worker noted it, else now."""
    age: float = request.get("age", time.monotonic() - request["start"])
    return round(max(0.0, age), 3)


def _log_timeouts(slot: int, pid: int, requests: list[dict[str, Any]], found: dict[int, str]) -> None:
    """Log each request that a killed worker had in hand, with where it stood."""
    for request in requests[:MOST_REQUESTS]:
        own = found.get(request["ident"])
        age = _age(request)
        fields = {
            "http.request.method": request["method"],
            "url.path": request["path"],
            "http.route": request.get("route", ""),
            "age_seconds": age,
            "worker_slot": slot,
            "worker_pid": pid,
            "code.stacktrace": own or found.get(0, ""),
            "stack_of": "request" if own else "worker",
        }
        context = RequestContext(request["trace_id"], "", "")
        body = f"request timed out: {request['method']} {request['path']} after {age:.1f} s"
        logs.emit("error", "http.server.request.timeout", fields, context, body)
