"""The tuner's own metrics: counted in this process, and written as the agent's are."""

import threading

from observability import catalogue
from observability.metric import Metric
from observability.page import Page
from observability.tuning.model import Mode

MOST_LABEL_SETS = 1000  # of a metric; what exceeds them is counted together
_OVERFLOW = "_overflow"
RESULTS = ("accepted", "repeated", "unauthorized", "malformed", "dropped")
PARTS = ("prometheus", "agent", "state", "decision")


class Tally:
    """Numbers by metric and label values, for two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {}
        for result in RESULTS:
            self.count(catalogue.TUNER_WEBHOOKS, result, amount=0.0)
        for part in PARTS:
            self.count(catalogue.TUNER_FAILURES, part, amount=0.0)
        for mode in Mode:
            self.set(catalogue.TUNER_MODE, 0.0, mode)

    def count(self, metric: Metric, *label_values: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        with self._lock:
            values, labels = self._place(metric, label_values)
            values[labels] = values.get(labels, 0.0) + amount

    def set(self, metric: Metric, value: float | None, *label_values: str) -> None:
        """Set a gauge; None takes it away."""
        with self._lock:
            values, labels = self._place(metric, label_values)
            values.pop(labels, None)
            if value is not None:
                values[labels] = value

    def _place(
        self, metric: Metric, label_values: tuple[str, ...]
    ) -> tuple[dict[tuple[str, ...], float], tuple[str, ...]]:
        values = self._values.setdefault(metric, {})
        known = label_values in values or len(values) < MOST_LABEL_SETS
        return values, label_values if known else (_OVERFLOW,) * len(label_values)

    def forget(self, server: str) -> None:
        """Take the gauges of a server away that is no longer there; counters stay."""
        with self._lock:
            for metric, values in self._values.items():
                if metric.kind == "gauge" and metric.labels[:1] == ("server",):
                    for labels in [each for each in values if each[0] == server]:
                        del values[labels]

    def page(self) -> Page:
        """Return all of it."""
        page = Page()
        with self._lock:
            for metric, values in self._values.items():
                for labels, value in values.items():
                    page.put(metric, value, *labels)
        return page
