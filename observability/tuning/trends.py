"""What only a look back tells: how long a server has had little to do, and whether its workers leak memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import inf, isfinite
from statistics import median

LOW_BUSY = 0.25
QUIET_SECONDS = 0.025  # half the objective of 50 ms, and the bound of a bucket
NO_QUEUE_SECONDS = 0.01  # a proxy writes its header in milliseconds, and a hop on one machine takes a few
WARM_WINDOWS = 1  # what a worker takes to import, to compile and to fill its caches is no leak
LIFE_WINDOWS = 3  # a shorter life, once it is warm, tells nothing
LIVES = 3
LEAST_GAIN = 0.05  # of what the worker had when it was warm
LEAST_GAIN_BYTES = 1 << 20
_LEAST_SAMPLES = 6
_STEADY = 0.2  # of the gain, that each half of a life has at least
_STEP = 0.5  # of the gain, that comes at once at most: else it is a cache that filled


@dataclass(frozen=True)
class Point:
    """A server at one moment: how busy, how long requests waited, and how many were in flight, if anybody said so."""

    time: float
    busy: float
    queue: float | None = None
    in_flight: float | None = None

    @property
    def quiet(self) -> bool:
        """Whether requests hardly waited."""
        return self.queue is None or self.queue <= QUIET_SECONDS

    @property
    def low(self) -> bool:
        """Whether it had little to do."""
        return self.busy < LOW_BUSY and (self.queue is None or self.queue <= NO_QUEUE_SECONDS)


@dataclass(frozen=True)
class Memory:
    """A worker's proportional memory at one moment."""

    slot: str
    started: float
    time: float
    size: float


def low_seconds(points: Sequence[Point], gap: float) -> float:
    """Return how long the server has had little to do, as far as one looked back.

    Args:
        points: the oldest first.
        gap: seconds without a point beyond which nothing is known of what was before.
    """
    since = later = points[-1].time if points else 0.0
    for point in reversed(points):
        if not point.low or later - point.time > gap:
            break
        since = later = point.time
    return points[-1].time - since if points else 0.0


def quiet_peak(points: Sequence[Point], seconds: float, gap: float) -> float | None:
    """Return the most requests that were in flight; None where some waited meanwhile, or where it is not known.

    Args:
        points: the oldest first.
        seconds: how far to look back.
        gap: seconds without a point beyond which nothing is known of what was before.
    """
    since = later = points[-1].time if points else 0.0
    most = 0.0
    for point in reversed(points):
        if not point.quiet or point.in_flight is None or later - point.time > gap:
            return None
        later, most = point.time, max(most, point.in_flight)
        if since - point.time >= seconds:
            return most
    return None


def value_before(points: Iterable[Point], moment: float, gap: float) -> float | None:
    """Return how busy the server was at a moment, by the last point up to it; None where there is none so near.

    Args:
        points: in any order.
        moment: Unix time.
        gap: seconds by which the point may be older.
    """
    known = [point for point in points if moment - gap <= point.time <= moment]
    return max(known, key=lambda point: point.time).busy if known else None


def leak(samples: Iterable[Memory], window: float) -> float:
    """Return the bytes that a worker gains over its life, where the last three lives have all grown; else 0.

    A life is the time of one worker in its slot, from when it is warm to its end or to now. It has grown where its
    memory rose by a twentieth or more, in both its halves.

    Args:
        samples: of all workers of a server, in any order.
        window: seconds of a window of the recording rules; lives are measured in it.
    """
    ordered = sorted(samples, key=lambda each: (each.started, each.slot, each.time))
    gains: list[float] = []
    for (_, started), life in groupby(ordered, key=lambda each: (each.slot, each.started)):
        warm = [each for each in life if each.time - started >= WARM_WINDOWS * window]
        if len(warm) >= _LEAST_SAMPLES and warm[-1].time - warm[0].time >= LIFE_WINDOWS * window:
            gains.append(_gain([each.size for each in warm]))
    return median(gains[-LIVES:]) if len(gains) >= LIVES and all(gains[-LIVES:]) else 0.0


def _gain(sizes: Sequence[float]) -> float:
    """Return what a life gained; 0 where it did not grow, or in one step."""
    third = len(sizes) // 3
    first, middle, last = median(sizes[:third]), median(sizes[third:-third]), median(sizes[-third:])
    gain, step = last - first, max(after - before for before, after in pairwise(sizes))
    small = gain < max(LEAST_GAIN * first, LEAST_GAIN_BYTES)
    if small or min(middle - first, last - middle) < _STEADY * gain or step > _STEP * gain:
        return 0.0
    return max(0.0, sizes[-1] - sizes[0])


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Estimate a quantile as Prometheus' histogram_quantile() does; None where nothing was counted.

    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile

    Args:
        share: from 0 to 1.
        buckets: how many values were at most so large, by upper bound.
    """
    total = max(buckets.values(), default=0.0)
    if total <= 0 or inf not in buckets:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if not isfinite(bound):
            break
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below) if count > below else bound
        low, below = bound, max(below, count)
    return low
