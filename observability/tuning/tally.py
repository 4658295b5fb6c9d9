"""The tuner's own metrics: counted in this process, and written as the agent's are.

A counter that begins with its first event has no increase of it, so what may be counted of a server is shown as 0 from
its first look on: what each row of the table may have done or advised. What may come of a step begins with the step.
"""

import threading
from collections.abc import Iterator

from observability import catalogue
from observability.metric import Metric
from observability.page import Page
from observability.tuning.model import Action, Mode, Outcome
from observability.tuning.table import TABLE, WELL

MOST_LABEL_SETS = 5000  # of a metric: 64 servers, with all that begins at 0; what exceeds them is counted together
_OVERFLOW = "_overflow"
# By the words of the table's column, what a row does; whatever holds, it may be kept from that, and advise only.
_DOES = {"one worker more": Action.ADD, "one worker less": Action.REMOVE}
_COMES_OF_IT = (Outcome.KEPT, Outcome.UNDONE, Outcome.INCONCLUSIVE, Outcome.FAILED)
RESULTS = ("accepted", "repeated", "unauthorized", "malformed", "dropped")
PARTS = ("prometheus", "agent", "state", "decision")


def _known() -> Iterator[tuple[Action, str, Outcome]]:
    """Yield what a decision on a server may be: action, row, and what becomes of it first."""
    for row in (*TABLE, WELL):
        yield Action.HOLD, row.name, Outcome.RECOMMENDED
        for words, action in _DOES.items():
            if row.does.startswith(words):
                yield action, row.name, Outcome.RECOMMENDED
                yield action, row.name, Outcome.APPLIED


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
            self._add(metric, label_values, amount)
            if metric is catalogue.TUNER_DECISIONS and label_values[-1] == Outcome.APPLIED:
                for outcome in _COMES_OF_IT:
                    self._add(metric, (*label_values[:-1], outcome), 0.0)

    def set(self, metric: Metric, value: float | None, *label_values: str) -> None:
        """Set a gauge; None takes it away."""
        with self._lock:
            if metric is catalogue.TUNER_EVALUATED and label_values not in self._values.get(metric, {}):
                for each in _known():
                    self._add(catalogue.TUNER_DECISIONS, (*label_values, *each), 0.0)
            values, labels = self._place(metric, label_values)
            values.pop(labels, None)
            if value is not None:
                values[labels] = value

    def _add(self, metric: Metric, label_values: tuple[str, ...], amount: float) -> None:
        values, labels = self._place(metric, label_values)
        values[labels] = values.get(labels, 0.0) + amount

    def _place(
        self, metric: Metric, label_values: tuple[str, ...]
    ) -> tuple[dict[tuple[str, ...], float], tuple[str, ...]]:
        values = self._values.setdefault(metric, {})
        known = label_values in values or len(values) < MOST_LABEL_SETS
        return values, label_values if known else (_OVERFLOW,) * len(label_values)

    def forget(self, server: str) -> None:
        """Take the gauges of a server away that is no longer there, and what was never counted; counters stay."""
        with self._lock:
            for metric, values in self._values.items():
                if metric.labels[:1] == ("server",):
                    gauge = metric.kind == "gauge"
                    for labels in [each for each in values if each[0] == server and (gauge or not values[each])]:
                        del values[labels]

    def page(self) -> Page:
        """Return all of it."""
        page = Page()
        with self._lock:
            for metric, values in self._values.items():
                for labels, value in values.items():
                    page.put(metric, value, *labels)
        return page
