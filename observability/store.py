"""Metric values in shared memory: what a process records lies in its slot file, and outlives it.

`STORE` is the process's one store. Before a slot is claimed, and in a forked child until it has a slot of its own, it
writes to private memory of the same layout; claiming carries over what that holds. Recorders remember the store's
`epoch`, which changes with the memory, so a value recorded after a fork can never land in the parent's file.
"""

import bisect
import logging
import os
import time
import weakref
import zlib
from _thread import RLock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import orjson

from observability import catalogue, layout, settings, slots
from observability.catalogue import Metric

OVERFLOW = "_overflow"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Family:
    """What all series of one metric share, as a slot file's records say it.

    Args:
        merge: how the reader joins workers: sum, min, max, mostrecent, or all (one series a worker).
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    merge: str


# suffix of the sample's name, label values, and a bucket's upper bound or ""
Series = tuple[str, tuple[str, ...], str]


def _encodable(value: str) -> str:
    """Replace what is no text in UTF-8: lone surrogates, which a client can send in JSON."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


class Store:
    """The values of this process.

    Args:
        directory: the state directory; the setting's where it is None.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        # Re-entrant: a signal handler may record while a record is under way. Native even under gevent, whose own is
        # slower and not safe against that; nothing in its sections lets another greenlet run.
        self.lock = RLock()
        self.claims_lazily = True  # not in a gunicorn master, whose hooks claim
        self._tried = False
        self.max_label_sets = 1000
        # the numbers of the app's own metrics (values.py): bound anew at a claim, so that each shows 0 from the start
        self.values: weakref.WeakSet[Any] = weakref.WeakSet()
        self._children: dict[tuple[Metric, tuple[str, ...]], Recorder] = {}
        self._use(slots.Slot.private())

    def _use(self, slot: slots.Slot) -> None:
        self.slot = slot
        self.cells = slot.values
        self.epoch = object()
        self._index: dict[tuple[Family, Series], int] = {}
        self._families: dict[Family, int] = {}
        self._label_sets: dict[Family, set[tuple[str, ...]]] = {}
        self._exemplars: dict[int, int] = {}
        self._load()

    @property
    def number(self) -> int:
        """The slot's number; 0 while there is none."""
        return self.slot.number

    def attach(self, slot: slots.Slot) -> None:
        """Record into a claimed slot from now on, what was recorded so far included."""
        with self.lock:
            before, former = dict(self._index), self.slot
            fixed = list(former.values[layout.REQUESTS : layout.FIRST_SERIES])
            amounts = {key: former.values[index] for key, index in before.items()}
            self._use(slot)
            for offset, amount in enumerate(fixed):
                if layout.REQUESTS + offset not in (layout.ACTIVE, layout.STARTS):
                    self.cells[layout.REQUESTS + offset] += amount
            for (family, series), amount in amounts.items():
                self._carry_over(family, series, amount)
            former.close()
            for value in list(self.values):
                value.bind()

    def _carry_over(self, family: Family, series: Series, amount: float) -> None:
        (index,) = self.places(family, series[1], [(series[0], series[2])])
        if family.kind == "gauge":
            self.cells[index] = amount
        else:
            self.cells[index] += amount

    def claim(self, role: str = "worker") -> slots.Slot:
        """Claim a slot in the state directory and record into it.

        Raises:
            OSError, slots.DirectoryError: the directory cannot be used.
        """
        loaded = settings.load(settings.Settings)
        directory = self._directory or loaded.directory
        self.max_label_sets = loaded.max_label_sets
        if role == "worker":
            slots.prepare(directory)
        self.attach(slots.claim(directory, role))
        self.slot.begin()
        return self.slot

    def after_fork(self) -> None:
        """Start over in a forked child: its own lock, private memory, no slot."""
        self.lock = RLock()
        self._tried = False
        parent = self.slot
        self._use(slots.Slot.private())
        parent.close()

    def claim_if_lazy(self) -> None:
        """Claim a slot at the first record of a process that no server hook looks after."""
        if self._tried or not self.claims_lazily or self.slot.fd >= 0:
            return
        self._tried = True  # recording goes on in private memory where it fails
        try:
            self.claim()
        except (OSError, RuntimeError, ValueError) as error:
            _log.warning("metrics of this process stay invisible: %s", error)

    def places(
        self, family: Family, label_values: tuple[str, ...], parts: Sequence[tuple[str, str]] = (("", ""),)
    ) -> list[int]:
        """Return the places of a label set's values, made where they are new.

        A label set that may not be has the overflow's; where there is no room for all of its values, each is VOID.

        Args:
            parts: the suffix of each value's name, and a bucket's upper bound or "".
        """
        with self.lock:
            self.claim_if_lazy()
            found = [self._index.get((family, (suffix, label_values, bound))) for suffix, bound in parts]
            if None not in found:
                return found  # type: ignore[return-value]
            admitted = self._admit(family, tuple(map(_encodable, label_values)))
            if not self.slot.has_room(len(parts)):
                self.cells[layout.REFUSED] += 1
                return [layout.VOID] * len(parts)
            return [self._add(family, (suffix, admitted, bound)) for suffix, bound in parts]

    def _add(self, family: Family, series: Series) -> int:
        found = self._index.get((family, series))
        if found is not None:  # the overflow series
            return found
        cell = self.slot.add_cells(2 if family.merge == "mostrecent" else 1)  # value, time of setting
        if cell is None or not self._write_records(family, series, cell):
            self.cells[layout.REFUSED] += 1
            return layout.VOID
        self._index[family, series] = cell
        return cell

    def _write_records(self, family: Family, series: Series, cell: int) -> bool:
        number = self._families.get(family)
        if number is None:
            number = len(self._families)
            if not self.slot.add_record(("F", family.name, family.kind, family.help, family.labels, family.merge)):
                return False
            self._families[family] = number
        return self.slot.add_record(("S", number, cell, *series))

    def _admit(self, family: Family, label_values: tuple[str, ...]) -> tuple[str, ...]:
        """Return the label values, or the overflow's where the metric has as many label sets as it may."""
        overflow = (OVERFLOW,) * len(label_values)
        if label_values == overflow:
            return label_values
        if self.full(family, label_values):
            self.refuse(family.name)
            return overflow
        self._label_sets.setdefault(family, set()).add(label_values)
        return label_values

    def refuse(self, name: str) -> None:
        """Count a label set that its metric has no room for."""
        if name != catalogue.LABEL_SETS_REFUSED.name:
            self.child(catalogue.LABEL_SETS_REFUSED, name).inc()

    def full(self, family: Family, label_values: tuple[str, ...]) -> bool:
        """Tell whether these label values would go to the overflow series."""
        known = self._label_sets.get(family, ())
        return label_values not in known and len(known) >= self.max_label_sets

    def _load(self) -> None:
        """Take over the series that the slot's last owner left: counters go on, gauges start anew."""
        families: list[Family] = []
        used = bytes(self.slot.memory[layout.RECORDS_AT : layout.RECORDS_AT + self.slot.records])
        for record in read_records(used):
            if record[0] == "F":
                families.append(family_of(record))
                self._families[families[-1]] = len(families) - 1
            elif record[0] == "S":
                family, (suffix, labels, bound) = families[record[1]], record[3:]
                self._index[family, (suffix, tuple(labels), bound)] = record[2]
                if labels and OVERFLOW not in labels:
                    self._label_sets.setdefault(family, set()).add(tuple(labels))
                if family.kind == "gauge":
                    self.cells[record[2]] = nan
            elif record[0] == "E":
                self._exemplars[record[1]] = record[2]

    def child(self, metric: Metric, *label_values: str) -> Any:
        """Return the recorder of one label set of a catalogue metric: `inc`, `set`, or `observe`."""
        found = self._children.get((metric, label_values))
        if found is None:
            found = _RECORDERS[metric.kind](self, metric, label_values)
            overflow = (OVERFLOW,) * len(label_values)
            if label_values != overflow and self.full(found.family, label_values):
                self.refuse(metric.name)
                return self.child(metric, *overflow)
            self._children[metric, label_values] = found
        return found

    def exemplar(self, index: int, labels: Mapping[str, str], value: float, timestamp: float | None = None) -> None:
        """Store an exemplar beside a value; the newest replaces the one before."""
        if index == layout.VOID:
            return
        with self.lock:
            entry = self._exemplars.get(index)
            if entry is None:
                entry = self.slot.add_exemplar()
                if entry is None or not self.slot.add_record(("E", index, entry)):
                    return
                self._exemplars[index] = entry
            self.slot.write_exemplar(entry, dict(labels), value, timestamp or time.time())


def read_records(used: bytes) -> Iterator[list[Any]]:
    """Yield the records of an area's used bytes.

    Raises:
        ValueError: a record is torn.
    """
    at = 0
    while at < len(used):
        crc, length = layout.RECORD.unpack_from(used, at)
        at += layout.RECORD.size
        data = used[at : at + length]
        if len(data) != length or zlib.crc32(data) != crc:
            raise ValueError("a torn record")
        yield orjson.loads(data)
        at += length


def family_of(record: list[Any]) -> Family:
    """Read a family's record."""
    _, name, kind, help_text, labels, merge = record
    return Family(name, kind, help_text, tuple(labels), merge)


class Recorder:
    """One label set of a catalogue metric."""

    def __init__(self, store: Store, metric: Metric, label_values: tuple[str, ...]) -> None:
        if len(label_values) != len(metric.labels):
            raise ValueError(f"{metric.name} takes the labels {metric.labels}, but got {label_values}")
        self.store = store
        self.family = Family(
            metric.name, metric.kind, metric.help, metric.labels, "all" if metric.per_worker else "sum"
        )
        self.label_values = label_values
        self.bounds = metric.buckets
        self.epoch: object = None
        self.places: list[int] = []

    def bind(self) -> list[int]:
        """Find the values' places in the store's present memory."""
        self.places = self._places()
        self.epoch = self.store.epoch
        return self.places

    def _places(self) -> list[int]:
        return self.store.places(self.family, self.label_values)


class CounterRecorder(Recorder):
    """A counter: it only goes up."""

    def inc(self, amount: float = 1.0) -> None:
        """Add to the counter."""
        store = self.store
        with store.lock:
            if self.epoch is not store.epoch:
                self.bind()
            store.cells[self.places[0]] += amount


class GaugeRecorder(Recorder):
    """A gauge: the present value."""

    def set(self, value: float) -> None:
        """Set the gauge."""
        store = self.store
        with store.lock:
            if self.epoch is not store.epoch:
                self.bind()
            store.cells[self.places[0]] = value


class HistogramRecorder(Recorder):
    """A histogram: the sum's place first, then one place a bucket, +Inf last; buckets hold their own counts."""

    def _places(self) -> list[int]:
        buckets = [("_bucket", str(bound)) for bound in self.bounds] + [("_bucket", "+Inf")]
        return self.store.places(self.family, self.label_values, [("_sum", ""), *buckets])

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count one observation, in the metric's unit."""
        store = self.store
        with store.lock:
            if self.epoch is not store.epoch:
                self.bind()
            place = self.places[1 + bisect.bisect_left(self.bounds, value)]
            store.cells[self.places[0]] += value
            store.cells[place] += 1.0
        if exemplar:
            store.exemplar(place, exemplar, value)


_RECORDERS = {"counter": CounterRecorder, "gauge": GaugeRecorder, "histogram": HistogramRecorder}


STORE = Store()
os.register_at_fork(after_in_child=STORE.after_fork)


def child(metric: Metric, *label_values: str) -> Any:
    """Return the recorder of one label set of a catalogue metric: `inc`, `set`, or `observe`."""
    return STORE.child(metric, *label_values)
