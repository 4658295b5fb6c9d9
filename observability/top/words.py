"""What stands above the table: the server in a few lines, its last exits, and a banner when it is not well."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from observability import catalogue
from observability.top import rates
from observability.top.cells import (
    MARKS,
    OK,
    PROBLEM,
    UNKNOWN,
    WARNING,
    class_name,
    clock,
    duration,
    percent,
    printable,
    rate,
    size,
    step,
    whole,
)
from observability.top.rates import Row, Totals
from observability.top.source import Snapshot
from observability.top.state import Exit, Flight, State, Worker

_EXITS = 3

_WITNESSED = ("clean", "halted")  # ends that the master itself wrote down


@dataclass(frozen=True)
class Fact:
    """One fact of a line: its name, its text, how healthy it is, and the share of a bar beside it, if there is one."""

    name: str
    text: str
    level: int = OK
    share: float | None = None

    @property
    def marked(self) -> str:
        """The text with the mark."""
        return self.text + MARKS[self.level]


@dataclass(frozen=True)
class Picture:
    """What is shown at one moment."""

    snapshot: Snapshot
    rows: list[Row]
    totals: Totals

    @property
    def state(self) -> State:
        """The state; an empty one where nothing was seen."""
        return self.snapshot.state or State()


def picture(before: Snapshot | None, after: Snapshot) -> Picture:
    """Draw the rates between two looks."""
    state = after.state or State()
    earlier = before.state if before is not None else None
    seconds = 0.0
    if before is not None and earlier is not None:
        seconds = rates.elapsed(earlier, state, after.at - before.at)
    rows = rates.rows(earlier, state, seconds)
    return Picture(after, rows, rates.total(rows, state))


def facts(shown: Picture) -> Iterator[list[Fact]]:
    """Yield the lines above the table of a live server."""
    yield list(_master(shown))
    yield list(_work(shown))
    yield list(_room(shown))


def _master(shown: Picture) -> Iterator[Fact]:
    state = shown.state
    masters = state.masters
    yield Fact("master", ", ".join(whole(master.pid) for master in masters) or UNKNOWN, OK if masters else PROBLEM)
    if masters:
        yield Fact("class", class_name(masters[-1].worker_class))
        yield Fact("up", duration(masters[-1].age_seconds))
    live, target = state.server.workers_live, state.server.workers_target
    live = len(state.workers) if live is None else live
    level = WARNING if target is not None and live != target else OK
    yield Fact("workers", f"{whole(live)}/{whole(target)}", level if live else PROBLEM)
    if len(masters) > 1:
        yield Fact("upgrade", "under way: two masters", WARNING)
    if state.agent.corrupt_files:
        yield Fact("corrupt files", str(len(state.agent.corrupt_files)), WARNING)


def _work(shown: Picture) -> Iterator[Fact]:
    totals, quota = shown.totals, shown.state.server.cpu_quota
    yield Fact("busy", percent(totals.busy), step(totals.busy, 0.8, 0.95), totals.busy)
    yield Fact("req/s", rate(totals.rps))
    errors = OK if not totals.eps else PROBLEM if totals.eps >= 0.05 * (totals.rps or 0.0) else WARNING
    yield Fact("err/s", rate(totals.eps), errors)
    yield Fact("p99", duration(totals.p99), step(totals.p99, 1, 5))
    share = totals.cpu / quota if totals.cpu is not None and quota else None
    cores = UNKNOWN if totals.cpu is None else f"{totals.cpu:.1f}"
    yield Fact("CPU", f"{cores}/{quota:g} cores" if quota else f"{cores} cores", step(share, 0.85, 0.95))


def _room(shown: Picture) -> Iterator[Fact]:
    limit, used = shown.state.server.memory_limit_bytes, shown.totals.memory
    share = used / limit if used is not None and limit else None
    yield Fact("memory", f"{size(used)}/{size(limit)}", step(share, 0.8, 0.9), share)
    for listener in shown.state.server.listeners:
        waiting, most = listener.backlog, listener.backlog_limit
        level = step(waiting, 1, max(2.0, 0.8 * (most or 0.0)))
        yield Fact(f"backlog {printable(listener.address, 40)}", f"{whole(waiting)}/{whole(most)}", level)


def last_exits(shown: Picture) -> list[Fact]:
    """Return the last exits of workers, the newest first."""
    now = shown.state.time or time.time()
    return [_exit(each, now) for each in reversed(shown.state.server.last_exits[-_EXITS:])]


def _exit(ended: Exit, now: float) -> Fact:
    how = ended.signal or ("" if not ended.code else f"code {ended.code}")
    cause = printable(ended.cause or UNKNOWN) + (f" ({printable(how)})" if how else "")
    ago = duration(max(0.0, now - ended.time)) + " ago" if ended.time is not None else "at an unknown time"
    return Fact(f"slot {whole(ended.slot)} {ago}", cause, OK if ended.cause in catalogue.EXPECTED_CAUSES else WARNING)


def age_of(flight: Flight, worker: Worker, now: float | None) -> str:
    """Say how old a request is; of one whose worker died unseen, when it began."""
    if worker.timed or flight.age_seconds is None or now is None:
        return duration(flight.age_seconds)
    return clock(now - flight.age_seconds)


def banner(snapshot: Snapshot) -> str:
    """Say in a line or two what is wrong with the whole; empty where nothing is."""
    parts = []
    if snapshot.state is None:
        parts.append("NO SERVER TO BE SEEN")
    elif not snapshot.alive:
        parts.append(_death(snapshot, snapshot.state))
    elif not snapshot.state.masters:
        parts.append("THE MASTER IS DEAD: workers without one leave soon")
    if snapshot.trouble:
        tail = f"reading {snapshot.origin} instead" if snapshot.state is not None else "trying again"
        parts.append(f"{snapshot.trouble} - {tail}")
    return printable(". ".join(parts).replace("\n", " "), 400)


def _death(snapshot: Snapshot, state: State) -> str:
    end = snapshot.end or {}
    if not state.dead and not end:
        return "NO SERVER RUNS HERE"
    when = max(state.last_sign or 0.0, end.get("time") or 0.0)
    known = end.get("outcome") in _WITNESSED or all(worker.timed for worker in state.dead)
    text = "THE SERVER IS DEAD"
    if when:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        text += " since" if known else ", last sign of life"
        text += f" {clock} ({duration(max(0.0, time.time() - when))} ago)"
    if end.get("outcome"):
        text += f": {end['outcome']}" + (f", {end['reason']}" if end.get("reason") else "")
    return text + ("; its slots as it left them" if state.dead else "")
