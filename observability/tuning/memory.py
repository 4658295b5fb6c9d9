"""What the tuner remembers over restarts: one file, whole or not at all, and bounded.

The loop writes to it, and the web server reads from it in another thread: every access takes the lock, and none holds
it over the disk.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from observability.tuning.model import Advice, History, Mode, Outcome

FILE = "memory.json"
VERSION = 1
DAY = 86_400.0
MOST_SERVERS = 64  # more have their own tuners; the one that was not seen for longest is forgotten
MOST_STEPS = 150  # of a server: a day of them at the default of six an hour
MOST_ENTRIES = 300
MOST_SEEN = 2000
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One decision that was said, or what came of one: for people, and for annotations.

    Args:
        id: grows by one, over restarts too.
        time: when, as a Unix time.
        kind: decision, or outcome.
        server: what Prometheus calls the instance.
        mode: the mode that held.
        action: what was to be done to the number of workers.
        rule: the row that said so.
        outcome: what became of it.
        diagnosis: what it means.
        reason: the numbers behind it, or what kept it from being done.
        before: workers wanted before.
        workers: workers wanted after it.
        ceiling: the count that growth would have ended at.
        vetoes: what forbids growth.
        advice: settings to change.
        urgency: 0 nothing to do, 1 when there is time, 2 soon, 3 now.
        numbers: what it rests on.
    """

    time: float
    kind: str
    server: str
    mode: Mode
    action: str
    rule: str
    outcome: Outcome
    diagnosis: str
    reason: str
    before: int
    workers: int
    ceiling: int = 0
    vetoes: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    urgency: int = 0
    numbers: dict[str, float | bool | str | None] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True)
class Remembered:
    """What is known of one server.

    Args:
        history: as a decision takes it.
        seen: when it was last looked at.
    """

    history: History
    seen: float


@dataclass
class Contents:
    """The file.

    Args:
        version: of this layout.
        last_id: the newest entry's.
        servers: what is known of each.
        entries: the newest decisions and outcomes, the oldest first.
        seen: notifications that were taken, and when.
    """

    version: int
    last_id: int = 0
    servers: dict[str, Remembered] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)


class UnreadableError(Exception):
    """A file that is no memory of ours: the message says why."""


def read(path: Path) -> Contents:
    """Read a memory file; one that is not there yet is empty.

    Raises:
        UnreadableError: it cannot be read, or is not what this version writes.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UnreadableError(f"it is larger than {_MOST_BYTES} bytes")
        contents = msgspec.json.decode(path.read_bytes(), type=Contents)
    except FileNotFoundError:
        return Contents(VERSION)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from None
    if contents.version != VERSION:
        raise UnreadableError(f"it has version {contents.version}, and this tuner writes {VERSION}")
    return contents


class Memory:
    """The memory of one tuner.

    Args:
        directory: where the file is.
        failing: is told what went wrong, and for how long; "" that it is well again.
    """

    def __init__(self, directory: Path, failing: Callable[[str], None]) -> None:
        self.path = directory / FILE
        self._failing = failing
        self._lock = threading.Lock()
        self._contents = Contents(VERSION)
        self._changed = False
        self._written = 0  # the newest id that was written, or could not be

    def load(self) -> str:
        """Take over what is there; return what is wrong with it, if it had to be set aside."""
        try:
            found, problem = read(self.path), ""
        except UnreadableError as error:
            found, problem = Contents(VERSION), str(error)
            self._set_aside()
        with self._lock:
            found.last_id = max([found.last_id, *(each.id for each in found.entries)])
            self._contents, self._written = found, found.last_id
        return problem

    def _set_aside(self) -> None:
        try:
            self.path.replace(self.path.with_suffix(".unreadable"))
        except OSError as error:
            self._failing(f"{self.path} cannot be set aside: {error.strerror}")

    def history(self, server: str) -> History:
        """Return what is known of a server."""
        with self._lock:
            known = self._contents.servers.get(server)
        return known.history if known else History()

    def servers(self) -> list[str]:
        """Return the names of all servers that are known."""
        with self._lock:
            return list(self._contents.servers)

    def remember(self, server: str, history: History, now: float) -> None:
        """Keep what is known of a server; steps older than a day, or in a future that a clock made, go."""
        steps = tuple(step for step in history.steps if now - DAY < step.time <= now + DAY)[-MOST_STEPS:]
        kept = replace(history, steps=steps)
        with self._lock:
            known = self._contents.servers.get(server)
            self._changed = self._changed or known is None or known.history != kept
            self._contents.servers[server] = Remembered(kept, now)
            while len(self._contents.servers) > MOST_SERVERS:
                _, oldest = min((each.seen, name) for name, each in self._contents.servers.items())
                del self._contents.servers[oldest]

    def add(self, entry: Entry) -> Entry:
        """Keep a decision or an outcome, under the next id."""
        with self._lock:
            self._contents.last_id += 1
            entry = replace(entry, id=self._contents.last_id)
            self._contents.entries = [*self._contents.entries[-(MOST_ENTRIES - 1) :], entry]
            self._changed = True
        return entry

    def entries(self, after: int | None = None, limit: int = MOST_ENTRIES) -> list[Entry]:
        """Return entries, the newest last: the first ones after an id, or else the newest.

        One that is not written yet is left out: a crash would lose it, and give its id to another.
        """
        with self._lock:
            found = [entry for entry in self._contents.entries if entry.id <= self._written]
        return found[-limit:] if after is None else [entry for entry in found if entry.id > after][:limit]

    def newest(self, server: str) -> Entry | None:
        """Return the last decision that was said of a server."""
        with self._lock:
            found = self._contents.entries
        return next((each for each in reversed(found) if (each.server, each.kind) == (server, "decision")), None)

    def first_time(self, keys: list[str], now: float) -> bool:
        """Tell whether any of these keys is new; all of them are known from now on."""
        with self._lock:
            seen = self._contents.seen
            new = [key for key in keys if key not in seen]
            seen.update(dict.fromkeys(new, now))
            for key in list(seen)[: max(0, len(seen) - MOST_SEEN)]:
                del seen[key]
            self._changed = self._changed or bool(new)
        return bool(new)

    def save(self) -> None:
        """Write what has changed; where that fails, the tuner goes on with what it knows, and tries again next time."""
        with self._lock:
            if not self._changed:
                return
            data, self._changed, newest = msgspec.json.encode(self._contents), False, self._contents.last_id
        try:
            self._write(data)
        except OSError as error:
            self._changed = True
            self._failing(f"{self.path} cannot be written: {error.strerror or error}")
        else:
            self._failing("")
        with self._lock:
            self._written = newest

    def _write(self, data: bytes) -> None:
        """Replace the file by a complete one, so that a crash leaves the old or the new."""
        draft = self.path.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def moment(seconds: float) -> str:
    """Return a Unix time as RFC 3339 has it, for people."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
