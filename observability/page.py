"""A page of metrics: what a scrape merges into, and what the exposition writes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from observability.catalogue import Metric

Labels = tuple[tuple[str, str], ...]


class Point:
    """One merged number, with the newest exemplar beside it."""

    __slots__ = ("exemplar", "seen", "stamp", "value")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the last scrape."""
        self.value, self.seen, self.stamp = 0.0, False, 0.0
        self.exemplar: tuple[dict[str, str], float, float] | None = None


@dataclass
class Merged:
    """One metric over all slots: a point for each label set, and within it for each suffix and bucket bound."""

    kind: str
    help: str
    children: dict[Labels, dict[tuple[str, float], Point]] = field(default_factory=dict)

    def point(self, labels: Labels, suffix: str = "", bound: float = inf) -> Point:
        """Return the point, made if it is new."""
        return self.children.setdefault(labels, {}).setdefault((suffix, bound), Point())


class Page(dict[str, Merged]):
    """All metrics by name."""

    def metric(self, name: str, kind: str, help: str) -> Merged:
        """Return the metric of a name, made if it is new."""
        return self.setdefault(name, Merged(kind, help))

    def put(self, metric: Metric, value: float, *label_values: str, worker: str | None = None) -> None:
        """Set one number of a catalogue metric that is computed and not recorded."""
        labels = tuple(zip(metric.labels, label_values, strict=True))
        if worker is not None:
            labels = (("worker", worker), *labels)
        point = self.metric(metric.name, metric.kind, metric.help).point(labels)
        point.value, point.seen = value, True

    def value(self, metric: Metric, *label_values: str, worker: str | None = None, suffix: str = "") -> float | None:
        """Return one number; None where nothing has said it."""
        labels = tuple(zip(metric.labels, label_values, strict=True))
        if worker is not None:
            labels = (("worker", worker), *labels)
        known = self.get(metric.name)
        point = known.children.get(labels, {}).get((suffix, inf)) if known else None
        return point.value if point is not None and point.seen else None


def _add(point: Point, value: float, _: float) -> None:
    point.value += value


def _min(point: Point, value: float, _: float) -> None:
    point.value = min(point.value, value) if point.seen else value


def _max(point: Point, value: float, _: float) -> None:
    point.value = max(point.value, value) if point.seen else value


def _newest(point: Point, value: float, stamp: float) -> None:
    if not point.seen or stamp >= point.stamp:
        point.value, point.stamp = value, stamp


# How a gauge of several workers becomes one number: point, value, time at which it was set.
GAUGES: dict[str, Callable[[Point, float, float], None]] = {
    "sum": _add,
    "all": _add,
    "min": _min,
    "max": _max,
    "mostrecent": _newest,
}
