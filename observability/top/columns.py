"""The table's columns: what each shows, how it sorts, and when a cell is unhealthy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

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
from observability.top.rates import Row, places
from observability.top.state import State

_DOING = 36  # cells


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: its head.
        key: the key that sorts by it.
        width: of its cells, in terminal cells.
        rank: where there is no room for all, those of the highest rank are left out first.
        value: what it sorts by.
        shown: its text.
        means: for people, in a few words.
        level: how healthy it is.
        bad: when it is not, for people.
    """

    title: str
    key: str
    width: int
    rank: int
    value: Callable[[Row], float | str | None]
    shown: Callable[[Row], str]
    means: str
    level: Callable[[Row], int] = lambda _: OK
    bad: str = ""

    @property
    def largest_first(self) -> bool:
        """Whether people look for its largest values first; names go the other way."""
        return self.title not in ("slot", "pid", "class", "was doing")

    def text(self, row: Row) -> str:
        """Return a cell as it is shown: the text, and the mark if it is unhealthy."""
        return self.shown(row) + MARKS[self.level(row)]


def _heartbeat_level(row: Row) -> int:
    timeout = row.worker.timeout_seconds  # 0 turns it off; an idle worker may beat only every half of it
    return step(row.worker.heartbeat_age_seconds, timeout * 0.6, timeout * 0.9) if timeout else OK


def _error_level(row: Row) -> int:
    if not row.eps:
        return OK
    return PROBLEM if row.eps >= 0.05 * (row.rps or 0.0) else WARNING


def _places_level(row: Row) -> int:
    return WARNING if 1 < places(row) <= (row.worker.in_flight or 0) else OK


def _in_flight(row: Row) -> str:
    capacity = row.worker.capacity
    return whole(row.worker.in_flight) + ("" if capacity is None else f"/{whole(capacity)}")


COLUMNS: Sequence[Column] = (
    Column(
        "slot",
        "s",
        5,
        0,
        lambda row: row.worker.slot,
        lambda row: str(row.worker.slot),
        "the worker's slot: its name in the metrics",
        lambda row: OK if row.worker.booted else WARNING,
        "the worker has not loaded the app",
    ),
    Column("pid", "p", 7, 6, lambda row: row.worker.pid, lambda row: whole(row.worker.pid), "its process"),
    Column(
        "class",
        "l",
        13,
        14,
        lambda row: class_name(row.worker.worker_class),
        lambda row: class_name(row.worker.worker_class, 13),
        "its worker class",
    ),
    Column(
        "busy",
        "b",
        15,
        1,
        lambda row: row.busy,
        lambda row: percent(row.busy),
        "share of the last seconds in which it could take no more work",
        lambda row: step(row.busy, 0.8, 0.95),
        "from 80 %, very bad from 95 %",
    ),
    Column(
        "in flight",
        "f",
        9,
        2,
        lambda row: row.worker.in_flight,
        _in_flight,
        "requests that it runs, of those that it can run at the same time",
        _places_level,
        "all of several places are taken",
    ),
    Column(
        "queued",
        "u",
        7,
        7,
        lambda row: row.worker.queued,
        lambda row: whole(row.worker.queued),
        "requests that wait inside the worker",
        lambda row: step(row.worker.queued, 1, max(2.0, places(row))),
        "any, very bad from as many as it can run",
    ),
    Column("req/s", "r", 7, 3, lambda row: row.rps, lambda row: rate(row.rps), "requests finished a second"),
    Column(
        "err/s",
        "e",
        7,
        5,
        lambda row: row.eps,
        lambda row: rate(row.eps),
        "failed requests a second: status 5xx or an exception",
        _error_level,
        "any, very bad from 5 % of its requests",
    ),
    Column(
        "p99",
        "9",
        7,
        4,
        lambda row: row.p99,
        lambda row: duration(row.p99),
        "99 of 100 requests since the last look took at most so long",
        lambda row: step(row.p99, 1, 5),
        "from 1 s, very bad from 5 s",
    ),
    Column(
        "CPU",
        "c",
        6,
        8,
        lambda row: row.cpu,
        lambda row: percent(row.cpu),
        "CPU time, of one core",
        lambda row: step(row.cpu, 0.9, 1.2),
        "from 90 %: one Python process runs on hardly more than one core",
    ),
    Column(
        "PSS",
        "m",
        6,
        9,
        lambda row: row.worker.pss_bytes,
        lambda row: size(row.worker.pss_bytes),
        "memory, what it shares with others counted in part",
    ),
    Column(
        "lag",
        "g",
        7,
        11,
        lambda row: row.worker.lag_seconds,
        lambda row: duration(row.worker.lag_seconds),
        "how late its event loop was at worst, in the last seconds",
        lambda row: step(row.worker.lag_seconds, 0.1, 1),
        "from 100 ms, very bad from 1 s: something blocks the loop",
    ),
    Column("age", "a", 6, 12, lambda row: row.worker.age, lambda row: duration(row.worker.age), "its life"),
    Column(
        "oldest",
        "o",
        8,
        10,
        lambda row: row.worker.oldest,
        lambda row: duration(row.worker.oldest),
        "age of its oldest request in flight",
        lambda row: step(row.worker.oldest, 5, 30),
        "from 5 s, very bad from 30 s",
    ),
    Column(
        "beat",
        "t",
        7,
        13,
        lambda row: row.worker.heartbeat_age_seconds,
        lambda row: duration(row.worker.heartbeat_age_seconds),
        "time since its last heartbeat",
        _heartbeat_level,
        "from 60 % of gunicorn's timeout, very bad from 90 %: it is about to be killed",
    ),
)


def _doing(row: Row) -> str:
    """Say what the dead worker's oldest request was."""
    oldest = row.worker.now[0] if row.worker.now else None
    return UNKNOWN if oldest is None else printable(f"{oldest.method} {oldest.path}", _DOING)


BY_TITLE = {column.title: column for column in COLUMNS}

# of a dead server: what its slots still hold
LEFT: Sequence[Column] = (
    BY_TITLE["slot"],
    BY_TITLE["pid"],
    BY_TITLE["class"],
    Column(
        "requests",
        "r",
        9,
        4,
        lambda row: row.worker.requests,
        lambda row: whole(row.worker.requests),
        "requests finished by all workers that the slot has had",
    ),
    Column(
        "failed",
        "e",
        7,
        5,
        lambda row: row.worker.errors,
        lambda row: whole(row.worker.errors),
        "those of them that failed",
    ),
    Column(
        "in flight",
        "f",
        9,
        1,
        lambda row: row.worker.in_flight,
        lambda row: whole(row.worker.in_flight),
        "requests that the worker died with",
        lambda row: step(row.worker.in_flight, 1, inf),
        "any",
    ),
    BY_TITLE["age"],
    BY_TITLE["oldest"],
    Column(
        "died",
        "d",
        9,
        3,
        lambda row: row.worker.ended,
        lambda row: UNKNOWN if row.worker.ended is None else clock(row.worker.ended),
        "when the worker was seen dead; not known where the master died with it",
    ),
    Column("was doing", "n", _DOING, 2, _doing, _doing, "the oldest request that it died with"),
)


def columns_of(state: State) -> Sequence[Column]:
    """Return the columns for a server: alive, or dead."""
    return COLUMNS if state.alive or not state.dead else LEFT


def counterpart(column: Column, columns: Sequence[Column]) -> Column:
    """Return the column of the same key, else the first."""
    return next((each for each in columns if each.key == column.key), columns[0])


def fitting(columns: Sequence[Column], width: int, gap: int = 2) -> list[Column]:
    """Return the columns that a terminal of a width has room for, the least important left out.

    Args:
        columns: all that there are.
        width: terminal cells.
        gap: cells between two columns.
    """
    chosen = sorted(columns, key=lambda column: column.rank)
    while len(chosen) > 1 and sum(column.width + gap for column in chosen) > width:
        chosen.pop()
    return [column for column in columns if column in chosen]


def ordered(rows: Sequence[Row], column: Column, *, descending: bool) -> list[Row]:
    """Sort rows by a column; what is unknown comes last either way, and ties go by slot."""
    known = [row for row in rows if column.value(row) is not None]
    known.sort(key=lambda row: row.worker.slot)
    known.sort(key=lambda row: column.value(row), reverse=descending)  # type: ignore[arg-type, return-value]
    return known + [row for row in rows if column.value(row) is None]
