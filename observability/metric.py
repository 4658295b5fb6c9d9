"""What a metric is."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric: what is exposed under its name.

    Args:
        name: as exposed; a counter's ends in `_total`, and a unit stands in it.
        kind: counter, gauge, or histogram.
        help: one sentence.
        labels: label names; the reader adds `worker` to a per-worker metric.
        buckets: a histogram's upper bounds, +Inf left out.
        per_worker: keep one series a worker; otherwise all workers are merged into one.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    per_worker: bool = False
