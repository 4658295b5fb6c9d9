"""What prometheus_client stores a number in, so that its ordinary metrics live in the slot.

`prometheus_client.values.ValueClass` is the seam: importing this module sets it, so metrics that are made before
Sightline is imported stay private to their process.
"""

import time
from typing import Any, ClassVar, Self

from prometheus_client import values as prometheus_values

from observability import layout
from observability.store import STORE, Family


class SlotValue:
    """What prometheus_client stores a number in (its `ValueClass`), so that its ordinary metrics live in the slot.

    The arguments are prometheus_client's: type, family name, sample name, label names and values (a bucket's `le`
    last), help, and a gauge's multiprocess mode.
    """

    _multiprocess = False
    per_worker: ClassVar[set[str]] = set()  # families of the app's own that are kept apart a worker

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: tuple[str, ...],
        labelvalues: tuple[str, ...],
        help_text: str,
        multiprocess_mode: str = "sum",
        **_: object,
    ) -> None:
        self.store = STORE
        self.bound = ""
        if labelnames and labelnames[-1] == "le" and name.endswith("_bucket"):
            self.bound, labelnames, labelvalues = labelvalues[-1], labelnames[:-1], labelvalues[:-1]
        family_name = metric_name + "_total" if typ == "counter" else metric_name
        self.suffix = name[len(family_name) :]
        merge = "all" if family_name in self.per_worker else multiprocess_mode.removeprefix("live")
        self.family = Family(family_name, typ, help_text, tuple(labelnames), merge)
        self.label_values = tuple(labelvalues)
        self.store.values.add(self)
        self.bind()

    def bind(self) -> Self:
        """Find the value's place in the store's present memory."""
        (self.index,) = self.store.places(self.family, self.label_values, [(self.suffix, self.bound)])
        self.epoch = self.store.epoch
        return self

    def inc(self, amount: float) -> None:
        """Add to the value."""
        store = self.store
        with store.lock:
            if self.epoch is not store.epoch:
                self.bind()
            value = store.cells[self.index]
            store.cells[self.index] = (value if value == value else 0.0) + amount  # NaN: a gauge not set yet

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value."""
        store = self.store
        with store.lock:
            if self.epoch is not store.epoch:
                self.bind()
            store.cells[self.index] = value
            if self.family.merge == "mostrecent" and self.index != layout.VOID:
                store.cells[self.index + 1] = timestamp or time.time()

    def get(self) -> float:
        """Return the value of this slot."""
        with self.store.lock:
            if self.epoch is not self.store.epoch:
                self.bind()
            value = self.store.cells[self.index]
            return value if value == value else 0.0

    def set_exemplar(self, exemplar: Any) -> None:
        """Store prometheus_client's exemplar beside the value."""
        self.store.exemplar(self.index, exemplar.labels, exemplar.value, exemplar.timestamp)

    def get_exemplar(self) -> None:
        """Return nothing: the scrape reads exemplars from the slot file."""
        return


prometheus_values.ValueClass = SlotValue
