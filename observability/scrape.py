"""Reads all slots and merges them: the numbers behind `/metrics` and `/state`.

Reading takes no lock and no mapping: a slot file is copied with pread(2), so that a file truncated under the reader is
a short read and not a SIGBUS. What a file's records say is parsed once and remembered; a scrape then copies the values
and adds them up. A file that does not read well is counted, left out, and looked at again when it changes.
"""

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import orjson

from observability import catalogue, flight, layout, slots
from observability.page import GAUGES, Page, Point
from observability.store import Family, family_of, read_records

# A request's values change for well under a microsecond at a time; only a writer that was preempted then takes longer.
_RETRIES, _RETRY_SECONDS = 10, 0.0005
DURATION_BOUNDS = (*catalogue.DURATION_BUCKETS, inf)


class CorruptError(ValueError):
    """A slot file that cannot be read."""


@dataclass
class Reading:
    """A slot at the moment of a scrape.

    Args:
        file: the slot's file.
        note: what its owner says of itself.
        live: whether the owner lives.
        busy: request seconds so far; requests in flight count up to now, or to their worker's end.
        values: the numbers.
        ended: monotonic seconds at which a dead owner was seen dead; 0 where nobody has seen it yet.
    """

    file: "SlotFile"
    note: dict[str, Any]
    live: bool
    busy: float
    values: Sequence[float]
    ended: float = 0.0

    @property
    def role(self) -> str:
        """`worker` or `master`."""
        return self.file.role

    @property
    def number(self) -> int:
        """The slot's number."""
        return self.file.number

    @property
    def forked(self) -> bool:
        """Whether it is a gunicorn worker's slot; a script or a worker's own child has one too."""
        return self.role == "worker" and "heartbeat_fd" in self.note

    @property
    def label(self) -> str:
        """The `worker` label's value."""
        return self.file.label


class SlotFile:
    """One slot file as a reader sees it; what its records say is kept between scrapes.

    Args:
        path: the file, named ROLE-NUMBER.slot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        role, _, number = path.stem.partition("-")
        self.role, self.number = role, int(number)
        self.label = number if role == "worker" else role
        self._busy = 0.0
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.identity = _identity(os.fstat(self.fd))
        self._parsed = 0
        self._families: list[Family] = []
        self._exemplars: dict[int, tuple[int, Point]] = {}
        self._exemplar_cache: dict[int, tuple[bytes, Any]] = {}
        self._adds: list[tuple[int, Point]] = []
        self._gauges: list[tuple[int, int, Point, Callable[[Point, float, float], None]]] = []
        self._places: dict[int, Point] = {}
        self._durations: list[tuple[int, int]] = []

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def read(self, page: Page) -> Reading:
        """Copy the slot's numbers, and learn what is new in its records.

        Raises:
            CorruptError: the file is not a slot file of this layout, torn, or too short.
        """
        held = slots.held(self.fd)
        header = os.pread(self.fd, layout.HEADER_SIZE, 0)
        if not slots.sound_header(header):
            raise CorruptError(f"{self.path.name}: not a slot file of this layout")
        records, cells, _ = layout.USED.unpack_from(header, layout.USED_AT)
        try:
            self._learn(records, cells, page)
        except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
            raise CorruptError(f"{self.path.name}: {error}") from error
        now, ended = time.monotonic(), slots.ended(header)
        live = held and not ended
        values = self._values(cells, live)
        busy = self._busy_until(now if live else ended or now, values)
        return Reading(self, slots.read_note(header), live, busy, values, ended)

    def _values(self, cells: int, live: bool) -> Sequence[float]:
        """Copy the values, a request's all from before or all from after its end."""
        values: Sequence[float] = ()
        for _ in range(_RETRIES):
            data = os.pread(self.fd, cells * 8, layout.VALUES_AT)
            if len(data) != cells * 8:
                raise CorruptError(f"{self.path.name}: truncated")
            values = memoryview(data).cast("d")
            if not values[layout.SEQUENCE] % 2 or not live:  # a writer killed in a change leaves it odd
                break
            time.sleep(_RETRY_SECONDS)
        return values

    def _busy_until(self, until: float, values: Sequence[float]) -> float:
        """Return the request seconds, which never decrease: not even where a change could not be seen whole."""
        whole = not values[layout.SEQUENCE] % 2
        running = max(0.0, values[layout.ACTIVE] * until - values[layout.STARTS]) if whole else 0.0
        self._busy = max(self._busy, values[layout.BUSY] + running)
        return self._busy

    def _learn(self, records: int, cells: int, page: Page) -> None:
        """Parse the records that were added since the last scrape."""
        if records <= self._parsed:
            return
        data = os.pread(self.fd, records - self._parsed, layout.RECORDS_AT + self._parsed)
        if len(data) != records - self._parsed:
            raise ValueError("truncated")
        for record in read_records(data):
            if record[0] == "F":
                self._families.append(family_of(record))
            elif record[0] == "S":
                self._learn_series(record, cells, page)
            elif record[0] == "E" and record[1] in self._places:
                self._exemplars[record[1]] = (record[2], self._places[record[1]])
        self._parsed = records

    def _learn_series(self, record: list[Any], cells: int, page: Page) -> None:
        _, number, cell, suffix, label_values, bound = record
        family = self._families[number]
        if not layout.FIRST_SERIES <= cell < cells:
            raise ValueError("a series without a value")
        point = self._point(page, family, suffix, label_values, bound)
        self._places[cell] = point
        if family.kind == "gauge":
            stamp = cell + 1 if family.merge == "mostrecent" else cell
            self._gauges.append((cell, stamp, point, GAUGES[family.merge]))
        else:
            self._adds.append((cell, point))
        if family.name == catalogue.REQUEST_DURATION.name and suffix == "_bucket" and float(bound) in DURATION_BOUNDS:
            self._durations.append((cell, DURATION_BOUNDS.index(float(bound))))

    def _point(self, page: Page, family: Family, suffix: str, label_values: list[str], bound: str) -> Point:
        labels = tuple(zip(family.labels, label_values, strict=True))
        if family.merge == "all":
            labels = (("worker", self.label), *labels)
        metric = page.metric(family.name, family.kind, family.help)
        if metric.kind != family.kind:
            return Point()  # an older release's metric of the same name: the first one seen is shown
        return metric.point(labels, suffix, float(bound) if bound else inf)

    def merge(self, reading: Reading) -> None:
        """Add the slot's numbers to the page."""
        values = reading.values
        for cell, point in self._adds:
            point.value += values[cell]
            point.seen = True
        if reading.live:
            for cell, stamp, point, merge in self._gauges:
                value = values[cell]
                if value == value:  # NaN: not set by this owner
                    merge(point, value, values[stamp])
                    point.seen = True

    def merge_exemplars(self) -> None:
        """Put the newest exemplar beside each point."""
        if not self._exemplars:
            return
        used = 1 + max(entry for entry, _ in self._exemplars.values())
        data = os.pread(self.fd, used * layout.EXEMPLAR_SIZE, layout.EXEMPLARS_AT)
        for entry, point in self._exemplars.values():
            found = self._exemplar(entry, data[entry * layout.EXEMPLAR_SIZE : (entry + 1) * layout.EXEMPLAR_SIZE])
            if found and (point.exemplar is None or found[2] > point.exemplar[2]):
                point.exemplar = found

    def _exemplar(self, entry: int, raw: bytes) -> Any:
        """Decode an entry; the last good one stands while it is being written."""
        cached = self._exemplar_cache.get(entry)
        if cached and cached[0] == raw:
            return cached[1]
        if len(raw) == layout.EXEMPLAR_SIZE:
            crc, length = layout.EXEMPLAR.unpack_from(raw)
            data = raw[layout.EXEMPLAR.size : layout.EXEMPLAR.size + length]
            if length and zlib.crc32(data) == crc:
                self._exemplar_cache[entry] = (raw, orjson.loads(data))
                return self._exemplar_cache[entry][1]
        return cached[1] if cached else None

    def durations(self, values: Sequence[float]) -> list[int]:
        """Return how many of the slot's requests took how long: one number for each of `DURATION_BOUNDS`."""
        counts = [0] * len(DURATION_BOUNDS)
        for cell, bucket in self._durations:
            counts[bucket] += int(values[cell])
        return counts

    def flights(self) -> Iterator[dict[str, Any]]:
        """Yield the requests in flight, the oldest first; `start` in monotonic seconds."""
        return flight.read(os.pread(self.fd, layout.FLIGHT_SIZE, layout.FLIGHT_AT))

    def unchanged(self) -> bool:
        """Tell whether the path still names this file."""
        try:
            return _identity(self.path.stat()) == self.identity
        except OSError:
            return False


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


class Scraper:
    """Reads a state directory, again and again.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.page = Page()
        self.corrupt: dict[Path, str] = {}
        self._files: dict[Path, SlotFile] = {}

    def files(self) -> Iterable[SlotFile]:
        """Return the slot files that could be opened, after looking for new and vanished ones."""
        self.corrupt = {}
        try:
            paths = list(slots.files(self.directory))
        except OSError:
            paths = []
        if any(path not in paths or not known.unchanged() for path, known in self._files.items()):
            self.close()
        for path in paths:
            if path not in self._files:
                self._open(path)
        return list(self._files.values())

    def _open(self, path: Path) -> None:
        try:
            self._files[path] = SlotFile(path)
        except FileNotFoundError:  # gone since the listing
            pass
        except OSError as error:
            self.corrupt[path] = str(error)

    def close(self) -> None:
        """Let go of all files; the next scrape opens them anew."""
        for known in self._files.values():
            known.close()
        self._files.clear()
        self.page = Page()

    def scrape(self, *, exemplars: bool = False) -> tuple[Page, list[Reading]]:
        """Read and merge all slots; the page is this scraper's own and changes with its next scrape."""
        begun = time.perf_counter()
        known = self.files()
        self._reset()
        readings = []
        for slot_file in known:
            try:
                reading = slot_file.read(self.page)
            except (CorruptError, OSError) as error:
                self.corrupt[slot_file.path] = str(error)
                self._files.pop(slot_file.path).close()  # what was learnt of it may be half: begin anew next time
                continue
            readings.append(reading)
            slot_file.merge(reading)
            if exemplars:
                slot_file.merge_exemplars()
        self._put_computed(readings)
        self._put_self(begun)
        return self.page, readings

    def _reset(self) -> None:
        for metric in self.page.values():
            for points in metric.children.values():
                for point in points.values():
                    point.reset()

    def _put_computed(self, readings: list[Reading]) -> None:
        """Put what is computed from the values with fixed places."""
        page = self.page
        workers = [reading for reading in readings if reading.role == "worker"]
        for reading in workers:
            values, label = reading.values, reading.label
            page.put(catalogue.WORKER_REQUESTS, values[layout.REQUESTS], worker=label)
            page.put(catalogue.WORKER_ERRORS, values[layout.ERRORS], worker=label)
            page.put(catalogue.WORKER_BUSY, reading.busy, worker=label)
            if reading.live:
                page.put(catalogue.WORKER_ACTIVE, values[layout.ACTIVE], worker=label)
        live = [reading for reading in workers if reading.live]
        page.put(catalogue.ACTIVE_REQUESTS, sum(reading.values[layout.ACTIVE] for reading in live))
        page.put(catalogue.WORKERS, sum(reading.forked for reading in live), "live")
        page.put(
            catalogue.WORKERS, sum(reading.forked and bool(reading.note.get("booted")) for reading in live), "booted"
        )
        page.put(catalogue.STORE_REFUSED, sum(reading.values[layout.REFUSED] for reading in readings))

    def _put_self(self, begun: float) -> None:
        page = self.page
        page.put(catalogue.STORE_FILES, len(self._files) + len(self.corrupt))
        page.put(catalogue.STORE_BYTES, sum(os.fstat(known.fd).st_blocks * 512 for known in self._files.values()))
        page.put(catalogue.STORE_CORRUPT, len(self.corrupt))
        page.put(catalogue.SCRAPE_SECONDS, time.perf_counter() - begun)
