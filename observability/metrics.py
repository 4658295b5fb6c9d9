"""The app's own metrics: prometheus_client's ordinary ones, kept in the slot like the rest.

Asking twice for the same metric returns the same one, so that an application factory may run twice in a process.
"""

from collections.abc import Sequence
from typing import Any, Self

import prometheus_client

from observability.store import OVERFLOW, STORE
from observability.values import SlotValue

_made: dict[str, Any] = {}


class _Bounded(prometheus_client.metrics.MetricWrapperBase):
    """A metric that keeps only so many label sets in memory, as its slot file does; the rest share the overflow's."""

    def labels(self, *values: object, **by_name: object) -> Self:
        """Return the recorder of a label set."""
        if len(self._metrics) >= STORE.max_label_sets:
            given = tuple(str(by_name[name]) for name in self._labelnames) if by_name else tuple(map(str, values))
            if given not in self._metrics:
                STORE.refuse(self._original_name)
                return super().labels(*(OVERFLOW,) * len(self._labelnames))
        return super().labels(*values, **by_name)


class Counter(_Bounded, prometheus_client.Counter):
    """prometheus_client's counter, bounded."""


class Gauge(_Bounded, prometheus_client.Gauge):
    """prometheus_client's gauge, bounded."""


class Histogram(_Bounded, prometheus_client.Histogram):
    """prometheus_client's histogram, bounded."""


def _make(cls: type[Any], name: str, help: str, labels: Sequence[str], per_worker: bool, **more: Any) -> Any:
    made = _made.get(name)
    if made is None:
        if per_worker:
            SlotValue.per_worker.add(name)
        made = _made[name] = cls(name, help, labels, **more)
    elif not isinstance(made, cls) or made._labelnames != tuple(labels):
        raise ValueError(f"{name} is declared already, with another type or other labels")
    return made


def counter(name: str, help: str, labels: Sequence[str] = (), *, per_worker: bool = False) -> Counter:
    """Make a counter; its name ends in `_total`. `per_worker` keeps one series a worker.

    Raises:
        ValueError: the name stands for another metric already.
    """
    made: Counter = _make(Counter, name, help, labels, per_worker)
    return made


def gauge(name: str, help: str, labels: Sequence[str] = (), *, per_worker: bool = False, merge: str = "sum") -> Gauge:
    """Make a gauge; `merge` says how workers are joined: sum, min, max, or mostrecent.

    Raises:
        ValueError: the name stands for another metric already.
    """
    made: Gauge = _make(Gauge, name, help, labels, per_worker, multiprocess_mode=merge)
    return made


def histogram(
    name: str,
    help: str,
    labels: Sequence[str] = (),
    *,
    buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    per_worker: bool = False,
) -> Histogram:
    """Make a histogram; `buckets` are upper bounds in the metric's unit.

    Raises:
        ValueError: the name stands for another metric already.
    """
    made: Histogram = _make(Histogram, name, help, labels, per_worker, buckets=buckets)
    return made
