"""Two states of a server become rates: what each worker, and the server as a whole, did between them."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from observability.top.state import Durations, State, Worker

_CLOCK_SLACK = 0.5  # seconds by which the agent's clock and ours may differ over an interval before ours is believed


@dataclass(frozen=True)
class Row:
    """One worker, and its rates since the state before; None where they cannot be known.

    Args:
        worker: what was read last.
        busy: as the agent says over the last seconds (docs/saturation.md), else the share of its places taken, 0 to 1.
        rps: requests finished a second.
        eps: failed requests a second.
        p99: 99th percentile of the durations of the requests that ended meanwhile, in seconds.
        cpu: CPU seconds a second.
        ended: how many requests ended in each bucket.
    """

    worker: Worker
    busy: float | None = None
    rps: float | None = None
    eps: float | None = None
    p99: float | None = None
    cpu: float | None = None
    ended: "Buckets | None" = None


@dataclass(frozen=True)
class Buckets:
    """How many values lie up to each bound, and above the one before it."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True)
class Totals:
    """All workers together."""

    busy: float | None
    rps: float | None
    eps: float | None
    p99: float | None
    cpu: float | None
    memory: float | None


def elapsed(before: State, after: State, ours: float) -> float:
    """Return the seconds between two states: the agent's own if its clock was not set meanwhile, else `ours`."""
    if before.time is not None and after.time is not None:
        theirs = after.time - before.time
        if theirs > 0 and abs(theirs - ours) <= _CLOCK_SLACK + ours / 2:
            return theirs
    return ours


def same_server(before: State, after: State) -> bool:
    """Tell whether counters went on between two states: some master was there both times."""
    return bool({master.pid for master in before.masters} & {master.pid for master in after.masters})


def rows(before: State | None, after: State, seconds: float) -> list[Row]:
    """Return a row for each worker; without rates where no state before it tells any.

    Args:
        before: the state before, if there is one.
        after: the state now.
        seconds: the time between them.
    """
    if before is None or seconds <= 0 or not same_server(before, after):
        return [Row(worker) for worker in after.shown]
    known = {worker.slot: worker for worker in [*before.dead, *before.workers]}
    return [_row(known.get(worker.slot), worker, seconds) for worker in after.shown]


def _row(before: Worker | None, after: Worker, seconds: float) -> Row:
    if before is None or not after.live:
        return Row(after)
    ended = _between(before.durations, after.durations)
    return Row(
        after,
        busy=_places_taken(before, after, seconds) if after.busy_ratio is None else after.busy_ratio,
        rps=_rate(before.requests, after.requests, seconds),
        eps=_rate(before.errors, after.errors, seconds),
        p99=quantile(0.99, ended),
        cpu=_rate(before.cpu_seconds, after.cpu_seconds, seconds),
        ended=ended,
    )


def _places_taken(before: Worker, after: Worker, seconds: float) -> float | None:
    taken = _rate(before.busy_seconds, after.busy_seconds, seconds)
    return None if taken is None or not after.capacity else min(1.0, taken / after.capacity)


def _rate(before: float | None, after: float | None, seconds: float) -> float | None:
    if before is None or after is None or after < before:
        return None
    return (after - before) / seconds


def _between(before: Durations | None, after: Durations | None) -> Buckets | None:
    if after is None:
        return None
    if before is None or not before.counts:
        counts = tuple(after.counts)  # the slot had no request yet
    elif before.bounds == after.bounds and len(before.counts) == len(after.counts):
        counts = tuple(now - then for now, then in zip(after.counts, before.counts, strict=True))
    else:
        return None
    bounds = tuple(inf if isinstance(bound, str) else bound for bound in after.bounds)  # JSON has no infinity
    if len(bounds) != len(counts) or any(count < 0 for count in counts):
        return None
    return Buckets(bounds, counts)


def quantile(share: float, buckets: Buckets | None) -> float | None:
    """Estimate a quantile as Prometheus's histogram_quantile() does; None where nothing was counted.

    Within the bucket that holds the rank, values count as spread evenly. Above the last finite bound nothing is known,
    and that bound is returned. https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    if buckets is None or (total := sum(buckets.counts)) <= 0:
        return None
    rank, low, seen = share * total, 0.0, 0.0
    for bound, count in zip(buckets.bounds, buckets.counts, strict=True):
        if count and seen + count >= rank and isfinite(bound):
            return low + (bound - low) * (rank - seen) / count
        seen += count
        low = bound if isfinite(bound) else low
    return low or None


def total(rows: Sequence[Row], state: State) -> Totals:
    """Return what all workers did together."""
    server = state.server
    memory = server.memory_used_bytes
    return Totals(
        busy=_busy(rows) if server.busy_ratio is None else server.busy_ratio,
        rps=_sum(row.rps for row in rows),
        eps=_sum(row.eps for row in rows),
        p99=quantile(0.99, _merged(row.ended for row in rows)),
        cpu=_sum(row.cpu for row in rows),
        memory=_sum(row.worker.pss_bytes for row in rows) if memory is None else memory,
    )


def _busy(rows: Sequence[Row]) -> float | None:
    """Weigh each worker by its places."""
    known = [(row.busy, row.worker.capacity) for row in rows if row.busy is not None and row.worker.capacity]
    places = sum(capacity for _, capacity in known)
    return sum(busy * capacity for busy, capacity in known) / places if places else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _merged(parts: Iterable[Buckets | None]) -> Buckets | None:
    known = [part for part in parts if part is not None and part.bounds]
    if not known or any(part.bounds != known[0].bounds for part in known):
        return None
    counts = (sum(column) for column in itertools.zip_longest(*(part.counts for part in known), fillvalue=0.0))
    return Buckets(known[0].bounds, tuple(counts))


def places(row: Row) -> float:
    """Return how many requests the worker can run at the same time; unknown counts as without bound."""
    return row.worker.capacity or inf
