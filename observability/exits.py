"""Why a worker ended.

gunicorn tells nobody: `child_exit` gets no status, a timeout can end with code 0, and what it prints of a SIGKILL
("Perhaps out of memory?") is a guess. Three witnesses together know. The worker leaves marks in memory shared with it,
made before its fork. The master's log names the signal or the code just before `child_exit`. And the cgroup counts
what the kernel killed for want of memory.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from observability import catalogue, logs, oom, redact, remains, stacks, store
from observability.context import RequestContext
from observability.marks import Marks
from observability.remains import Remains

MOST_REQUESTS = 20  # of one worker that are named in the log
_DEATH_SECONDS = 1.0
RECENT = 10  # ends that the master's slot remembers

# The signals that a process brings upon itself; signal(7), "core" by default, and two more that its limits bring.
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP", "SIGXCPU", "SIGXFSZ"})
_TELLING = frozenset({"timeout", "crashed"})  # ends of which the worker has written where it stood
_HALTING = frozenset({3, 4})  # exit codes for which gunicorn halts: WORKER_BOOT_ERROR, APP_LOAD_ERROR


@dataclass(frozen=True)
class End:
    """What is known of one worker's end.

    Args:
        signal: the name of the signal that ended it; empty for none.
        code: its exit code.
        aborted: whether the master gave it up for a stopped heartbeat.
        booted: whether it had loaded the app.
        recycled: whether it had served as many requests as it may.
        exited: whether it left in the orderly way.
        oom: whether the kernel killed something of this cgroup for want of memory since the last such end.
        stopping: whether the server is on its way down.
        reloaded: whether a reload had replaced it.
        surplus: whether there were more workers than wanted, and this one of the oldest.
    """

    signal: str = ""
    code: int = 0
    aborted: bool = False
    booted: bool = True
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
    ("boot_failed", lambda end: end.code != 0 and not end.booted),
    ("recycled", lambda end: end.recycled),
    ("oom_killed", lambda end: end.signal == "SIGKILL" and end.oom),
    ("killed", lambda end: end.signal == "SIGKILL"),
    ("crashed", lambda end: end.signal in _FAULTS or end.code != 0),
    ("shutdown", lambda end: end.stopping and end.signal in ("", "SIGTERM", "SIGINT", "SIGQUIT")),
    ("killed", lambda end: end.signal not in ("", "SIGTERM")),
    ("crashed", lambda end: not end.exited and not end.signal),  # os._exit(0)
    ("reloaded", lambda end: end.reloaded),
    ("scaled_down", lambda end: end.surplus),
    ("killed", lambda _: True),
)


def cause_of(end: End) -> str:
    """Return the cause, one of `catalogue.EXIT_CAUSES`."""
    return next(cause for cause, fits in _RULES if fits(end))


@dataclass(frozen=True)
class Ended:
    """Whose end it was.

    Args:
        slot: its slot; 0 where it had none.
        pid: its pid.
        age: seconds that it lived.
        served: requests that it had served.
        in_flight: requests that it had in hand.
    """

    slot: int
    pid: int
    age: float
    served: int = 0
    in_flight: int = 0


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
        self._surplus: set[int] = set()
        self._oom = oom.Account(directory)
        self._recent: deque[list[Any]] = deque(maxlen=RECENT)
        for cause in catalogue.EXIT_CAUSES:  # each shows 0 from the start: a first end is an increase then
            store.child(catalogue.EXITS, cause).inc(0)
        store.child(catalogue.REQUESTS_LOST).inc(0)

    def expect(self, server: Any, worker: Any) -> Marks:
        """Make the memory that a worker will share, which is about to be forked."""
        alive = {each.age for each in server.WORKERS.values()}
        self._marks = {age: marks for age, marks in self._marks.items() if age in alive}
        self._surplus &= alive
        self._oom.renew()
        self._marks[worker.age] = Marks(worker)
        return self._marks[worker.age]

    def marks_of(self, worker: Any) -> Marks | None:
        """Return a worker's marks, in the worker too."""
        return self._marks.get(worker.age)

    def reload(self, server: Any) -> None:
        """Note that all present workers are being replaced."""
        self._newest_before_reload = server.worker_age

    def want(self, server: Any, count: int) -> None:
        """Note which workers are too many: the oldest, as gunicorn chooses them."""
        ages = sorted(each.age for each in server.WORKERS.values())
        self._surplus.update(ages[: max(0, len(ages) - count)])

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
            recycled=marks is not None and marks.has(Marks.RECYCLED),
            exited=marks is None or marks.has(Marks.EXITED),
            oom=name == "SIGKILL" and not worker.aborted and self._oom.is_one_more(),
            stopping=stopping,
            reloaded=worker.age <= self._newest_before_reload or bool(server.cfg.reload),
            surplus=worker.age in self._surplus,
        )
        self._note(end, worker.pid, marks)

    def left_over(self, server: Any) -> None:
        """Note the workers that the server killed as it went down, and did not wait for."""
        _await_death(server.WORKERS)
        for worker in list(server.WORKERS.values()):
            self._note(End("SIGKILL", stopping=True), worker.pid, self._marks.pop(worker.age, None))

    def _note(self, end: End, pid: int, marks: Marks | None) -> None:
        slot = marks.slot if marks else 0
        left = remains.bury(self._directory, slot, pid) or Remains({}, 0, 0, [])
        if self._served_its_share(end, marks, left):
            end = replace(end, recycled=True)
        cause = cause_of(end)
        store.child(catalogue.EXITS, cause).inc()
        store.child(catalogue.REQUESTS_LOST).inc(left.lost)
        age = time.monotonic() - marks.started if marks else 0.0
        noted = marks.read_requests() if marks and cause == "timeout" else None
        total, requests = noted or (left.lost, left.flights)
        worker = Ended(slot, pid, age, left.requests, total)
        self._remember(end, cause, worker)
        dump = stacks.read(stacks.path_of(self._directory, slot)) if cause in _TELLING else ""
        found = stacks.by_ident(dump)
        more = {"code.stacktrace": found[0]} if found.get(0) and (cause == "crashed" or not requests) else {}
        if cause == "boot_failed":
            more["error"] = left.note.get("boot_error", "")
        _log_end(end, cause, worker, requests, **more)
        if cause == "timeout":
            _log_timeouts(worker, requests, found)

    @staticmethod
    def _served_its_share(end: End, marks: Marks | None, left: Remains) -> bool:
        """Tell recycling from other orderly ends where the worker does not count its requests itself (uvicorn's)."""
        orderly = not end.code and end.signal in ("", "SIGTERM") and not end.stopping
        return orderly and marks is not None and left.requests >= marks.max_requests

    def _remember(self, end: End, cause: str, worker: Ended) -> None:
        """Keep the last ends in the master's slot, for who looks at the server."""
        who = (round(time.time(), 3), worker.slot, worker.pid)
        self._recent.append([*who, cause, end.signal, end.code, round(worker.age, 3), worker.served])
        store.STORE.slot.write_note(exits=list(self._recent))


def _await_death(pids: Iterable[int]) -> None:
    """Wait until processes that were sent SIGKILL are dead: before that, what they leave cannot be read."""
    deadline = time.monotonic() + _DEATH_SECONDS
    for pid in pids:
        with contextlib.suppress(OSError):
            while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
                time.sleep(0.01)


def leaves_unbooted(marks: Marks, code: object, error: BaseException | None) -> None:
    """Note in the worker itself that it could not boot, and why.

    Where gunicorn halts for it, no hook of the master's follows: then the worker counts and logs its own end.
    """
    reason = f"{type(error).__name__}: {redact.shown(error)}"[:500] if error is not None else str(code)
    store.STORE.slot.write_note(boot_error=reason)
    if code in _HALTING:
        store.child(catalogue.EXITS, "boot_failed").inc()
        age = time.monotonic() - marks.started
        _log_end(End(code=code), "boot_failed", Ended(marks.slot, os.getpid(), age), error=reason)
        marks.set(Marks.BOOT_FAILED)


def _log_end(end: End, cause: str, worker: Ended, requests: Sequence[Mapping[str, Any]] = (), **more: Any) -> None:
    how = f" by {end.signal}" if end.signal else f" with code {end.code}" if end.code else ""
    fields = {
        "worker_slot": worker.slot,
        "worker_pid": worker.pid,
        "cause": cause,
        "signal": end.signal,
        "exit_code": None if end.signal else end.code,
        "age_seconds": round(worker.age, 3),
        "requests": worker.served,
        "in_flight": worker.in_flight,
        "requests_in_flight": [_shown(each) for each in requests[:MOST_REQUESTS]],
        **more,
    }
    level = "info" if cause in catalogue.EXPECTED_CAUSES else "error"
    logs.emit(
        level, "gunicorn.worker.exit", fields, body=f"worker {worker.slot} (pid {worker.pid}) ended{how}: {cause}"
    )


def _shown(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: request.get(key, "") for key in ("method", "path", "trace_id")} | {"age_seconds": _age(request)}


def _age(request: Mapping[str, Any]) -> float:
    """Return how old a request was in seconds: when its worker noted it, else now."""
    age: float = request.get("age", time.monotonic() - request["start"])
    return round(max(0.0, age), 3)


def _log_timeouts(worker: Ended, requests: Sequence[Mapping[str, Any]], found: dict[int, str]) -> None:
    """Log each request that a killed worker had in hand, with where it stood."""
    for request in requests[:MOST_REQUESTS]:
        own = found.get(request["ident"])
        age = _age(request)
        fields = {
            "http.request.method": request["method"],
            "url.path": request["path"],
            "http.route": request.get("route", ""),
            "age_seconds": age,
            "worker_slot": worker.slot,
            "worker_pid": worker.pid,
            "code.stacktrace": own or found.get(0, ""),
            "stack_of": "request" if own else "worker",
        }
        context = RequestContext(request["trace_id"], "", "")
        body = f"request timed out: {request['method']} {request['path']}, {age:.1f} s old when its worker was given up"
        logs.emit("error", "http.server.request.timeout", fields, context, body)
