"""A process's identity: the slot it claims in the state directory, and its flight record.

A slot is a number and a file. A process owns it by a lock on the file, which the kernel drops however the process
dies. The lock is an open-file-description lock (fcntl(2), F_OFD_SETLK) and not a flock, because any process may
then ask whether it is held without taking it for a moment, which could make a claim fail.
"""

import contextlib
import fcntl
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from typing import Any

import orjson

from observability import flight, layout

MAX_SLOTS = 1024
STAMP = "layout"
_FILE = re.compile(r"(worker|master)-([1-9]\d{0,3})\.(slot(\.corrupt|\.new-\d+)?|stack|answer)")
_FLOCK = struct.Struct("hhqqi0q")  # struct flock, native layout: type, whence, start, length, pid
_RECORD_BYTES = 256
_CHUNK = 16 * 1024  # bytes by which the used part of an area is made real


class DirectoryError(RuntimeError):
    """The state directory cannot be used; the message is one line that names the setting."""


def held(fd: int) -> bool:
    """Tell whether some process holds the lock on an open slot file, without taking it."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _take(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def prepare(directory: Path) -> None:
    """Make the state directory, mode 0700, and refuse one that belongs to somebody else.

    Raises:
        DirectoryError: it is not a directory of this user's, or cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise DirectoryError(f"OBSERVABILITY_DIR is {directory}, but takes a directory owned by the server's user")
        directory.chmod(0o700)
    except OSError as error:
        raise DirectoryError(
            f"OBSERVABILITY_DIR is {directory}, but takes a directory that can be written: {error.strerror}"
        ) from None


def files(directory: Path) -> Iterator[Path]:
    """Yield the slot files of a state directory, in the order of their slots."""
    found = ((_FILE.fullmatch(entry.name), entry) for entry in directory.iterdir())
    slot_files = [(match[1], int(match[2]), path) for match, path in found if match and match[3] == "slot"]
    for _, _, path in sorted(slot_files):
        yield path


def path_of(directory: Path, role: str, number: int) -> Path:
    """Return the path of a slot's file."""
    return directory / f"{role}-{number}.slot"


def empty(directory: Path) -> None:
    """Forget all that an earlier server left, and stamp the layout version; touch nothing else."""
    for path in directory.iterdir():
        if _FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)
    (directory / STAMP).write_text(f"{layout.VERSION}\n")


def touch(directory: Path) -> None:
    """Leave a sign of life: the stamp's time then says when the server was last seen alive."""
    with contextlib.suppress(OSError):
        os.utime(directory / STAMP)


def stamped(directory: Path) -> bool:
    """Tell whether the directory holds slots of this layout."""
    try:
        return (directory / STAMP).read_text().strip() == str(layout.VERSION)
    except OSError:
        return False


class Slot:
    """One claimed slot file, mapped; or, without a file, private memory of the same layout.

    Args:
        memory: the mapped bytes.
        role: `worker` or `master`.
        number: the slot's number, 0 where there is no file.
        fd: the locked file, -1 where there is none.
    """

    def __init__(self, memory: mmap, role: str = "worker", number: int = 0, fd: int = -1) -> None:
        self.memory = memory
        self.role = role
        self.number = number
        self.fd = fd
        self.pid = os.getpid()
        self.values = memoryview(memory)[layout.VALUES_AT : layout.RECORDS_AT].cast("d")
        self.note: dict[str, Any] = {}
        self.records: int
        self.cells: int
        self.exemplars: int
        self.records, self.cells, self.exemplars = layout.USED.unpack_from(memory, layout.USED_AT)
        self._real: dict[int, int] = {}
        self.flight = flight.Flight(memory)

    @classmethod
    def private(cls) -> "Slot":
        """Make a slot that no other process sees, for a process that has none yet."""
        memory = mmap(-1, layout.SIZE, MAP_PRIVATE | MAP_ANONYMOUS)
        slot = cls(memory)
        slot._set_used(0, layout.FIRST_SERIES, 0)
        return slot

    def close(self) -> None:
        """Let go of the slot; in a forked child, only of the child's copy."""
        self.values.release()
        self.flight.close()
        self.memory.close()  # mmap keeps a duplicate of the descriptor, which would hold the lock on
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def write_note(self, **fields: Any) -> None:
        """Say who owns the slot: merge the fields into the header's JSON note."""
        self.note = {**self.note, **fields}
        data = orjson.dumps(self.note)
        if len(data) <= layout.NOTE_MAX:
            start = layout.NOTE_AT + layout.NOTE.size
            self.memory[start : start + len(data)] = data
            layout.NOTE.pack_into(self.memory, layout.NOTE_AT, zlib.crc32(data), len(data))

    def add_record(self, payload: object) -> bool:
        """Append one record; False where it finds no room."""
        data = orjson.dumps(payload)
        end = self.records + layout.RECORD.size + len(data)
        if end > layout.RECORDS_MAX or not self._make_real(layout.RECORDS_AT, end):
            return False
        at = layout.RECORDS_AT + self.records
        layout.RECORD.pack_into(self.memory, at, zlib.crc32(data), len(data))
        self.memory[at + layout.RECORD.size : layout.RECORDS_AT + end] = data
        self._set_used(end, self.cells, self.exemplars)
        return True

    def has_room(self, count: int) -> bool:
        """Tell whether `count` new series find room, by what a record takes at most in practice."""
        records = self.records + count * _RECORD_BYTES
        return (
            self.cells + 2 * count <= layout.VALUES_MAX
            and records <= layout.RECORDS_MAX
            and self._make_real(layout.VALUES_AT, (self.cells + 2 * count) * 8)
            and self._make_real(layout.RECORDS_AT, records)
        )

    def add_cells(self, count: int) -> int | None:
        """Take the next `count` values, 0 each; None where there is no room."""
        first, end = self.cells, self.cells + count
        if end > layout.VALUES_MAX or not self._make_real(layout.VALUES_AT, end * 8):
            return None
        self._set_used(self.records, end, self.exemplars)
        return first

    def add_exemplar(self) -> int | None:
        """Take the next exemplar entry; None where there is no room."""
        entry = self.exemplars
        if entry >= layout.EXEMPLARS_MAX or not self._make_real(
            layout.EXEMPLARS_AT, (entry + 1) * layout.EXEMPLAR_SIZE
        ):
            return None
        self._set_used(self.records, self.cells, entry + 1)
        return entry

    def write_exemplar(self, entry: int, labels: dict[str, str], value: float, timestamp: float) -> None:
        """Store an exemplar; one that is too long for its entry is left out."""
        data = orjson.dumps((labels, value, timestamp))
        if len(data) > layout.EXEMPLAR_SIZE - layout.EXEMPLAR.size:
            return
        at = layout.EXEMPLARS_AT + entry * layout.EXEMPLAR_SIZE
        self.memory[at : at + layout.EXEMPLAR.size + len(data)] = (
            layout.EXEMPLAR.pack(zlib.crc32(data), len(data)) + data
        )

    def _set_used(self, records: int, cells: int, exemplars: int) -> None:
        self.records, self.cells, self.exemplars = records, cells, exemplars
        layout.USED.pack_into(self.memory, layout.USED_AT, records, cells, exemplars)

    def _make_real(self, area: int, used: int) -> bool:
        """Reserve an area's pages before they are touched: a full disk is then an error here, not a SIGBUS."""
        real = self._real.get(area, 0)
        if self.fd < 0 or used <= real:
            return True
        wanted = -(-used // _CHUNK) * _CHUNK
        try:
            os.posix_fallocate(self.fd, area + real, wanted - real)
        except OSError:
            return False
        self._real[area] = wanted
        return True

    def adopt(self) -> None:
        """Take over what the last owner left: its counters go on, what was in flight is over."""
        values = self.values
        ended = layout.ENDED.unpack_from(self.memory, layout.ENDED_AT)[0] or time.monotonic()
        layout.ENDED.pack_into(self.memory, layout.ENDED_AT, ended)  # until `begin`
        values[layout.SEQUENCE] = 1.0  # odd: a reader waits for the whole
        if values[layout.ACTIVE]:
            values[layout.BUSY] += max(0.0, values[layout.ACTIVE] * ended - values[layout.STARTS])
        values[layout.ACTIVE] = values[layout.STARTS] = values[layout.SEQUENCE] = 0.0
        for entry in range(layout.FLIGHT_ENTRIES):
            at = layout.FLIGHT_AT + entry * layout.FLIGHT.size + layout.FLIGHT_START_AT
            self.memory[at : at + 8] = bytes(8)

    def begin(self) -> None:
        """Let readers take the slot for a live one, now that nothing in it is the last owner's."""
        layout.ENDED.pack_into(self.memory, layout.ENDED_AT, 0.0)


def claim(directory: Path, role: str = "worker") -> Slot:
    """Claim the lowest free slot of a role; to readers its owner lives from `Slot.begin` on.

    Raises:
        OSError: the directory cannot be written, or is full; or every slot is taken.
    """
    for number in range(1, MAX_SLOTS + 1):
        path = path_of(directory, role, number)
        fd = _open_free(path)
        if fd is None:
            continue
        try:
            return _map(fd, role, number)
        except BaseException:
            os.close(fd)
            raise
    raise OSError(f"all {MAX_SLOTS} slots of {directory} are taken")


def _open_free(path: Path) -> int | None:
    """Open the slot's file and lock it; None where somebody else owns it."""
    for _ in range(10):  # another process may take the file away between two steps here
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            _create(path)
            continue
        except OSError:  # a directory, a symbolic link, somebody else's file: not to be touched, and no slot
            return None
        if not _take(fd) or _awaits_reaping(fd):
            os.close(fd)
            return None
        if _same_file(fd, path) and _sound(fd):
            return fd
        if _same_file(fd, path):  # torn, truncated, or not ours: kept aside, one at most a slot
            path.rename(path.with_name(path.name + ".corrupt"))
        os.close(fd)
    return None


def _awaits_reaping(fd: int) -> bool:
    """Tell whether the last owner is dead but its master has not looked yet: what it left is still to be read."""
    header = os.pread(fd, layout.HEADER_SIZE, 0)
    if len(header) < layout.HEADER_SIZE or ended(header):
        return False
    note = read_note(header)
    try:
        state, parent = Path(f"/proc/{note['pid']}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, KeyError, ValueError):
        return False
    return state == "Z" and int(parent) == note.get("master")


def _create(path: Path) -> None:
    """Make an empty slot file under a name of its own, then link it: no reader sees it half made."""
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, layout.SIZE)
        os.posix_fallocate(fd, 0, layout.VALUES_AT + _CHUNK)
        os.pwrite(fd, layout.IDENTITY.pack(layout.MAGIC, layout.VERSION), 0)
        os.pwrite(fd, layout.USED.pack(0, layout.FIRST_SERIES, 0), layout.USED_AT)
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        os.close(fd)
        new.unlink(missing_ok=True)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _sound(fd: int) -> bool:
    return os.fstat(fd).st_size == layout.SIZE and sound_header(os.pread(fd, layout.HEADER_SIZE, 0))


def sound_header(header: bytes) -> bool:
    """Tell whether a file's first bytes are those of a slot file of this layout."""
    if len(header) < layout.HEADER_SIZE or layout.IDENTITY.unpack_from(header) != (
        layout.MAGIC,
        layout.VERSION,
    ):
        return False
    records, cells, exemplars = layout.USED.unpack_from(header, layout.USED_AT)
    return bool(
        records <= layout.RECORDS_MAX
        and layout.FIRST_SERIES <= cells <= layout.VALUES_MAX
        and exemplars <= layout.EXEMPLARS_MAX
    )


def _map(fd: int, role: str, number: int) -> Slot:
    os.posix_fallocate(fd, 0, layout.VALUES_AT + _CHUNK)
    slot = Slot(mmap(fd, layout.SIZE), role, number, fd)
    slot.adopt()
    slot.write_note(pid=slot.pid, slot=number, role=role, started=time.time())
    return slot


def live_note(path: Path) -> dict[str, Any]:
    """Return the note of a slot whose owner lives; empty for any other.

    Raises:
        OSError: there is no such file.
    """
    with contextlib.closing(Opened(path)) as opened:
        return opened.note() if held(opened.fd) and not ended(opened.header()) else {}


class Opened:
    """A slot file opened for a moment, without owning it."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)

    def header(self) -> bytes:
        """Return the file's first bytes."""
        return os.pread(self.fd, layout.HEADER_SIZE, 0)

    def note(self) -> dict[str, Any]:
        """Return what the owner says of itself."""
        return read_note(self.header())

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def ended(header: bytes) -> float:
    """Return when the owner was seen dead, in monotonic seconds; 0 while it lives.

    A slot that is held and yet ended is being taken over: who asks for its owner looks at the lock before the header.
    """
    return float(layout.ENDED.unpack_from(header, layout.ENDED_AT)[0])


def read_note(header: bytes) -> dict[str, Any]:
    """Read the owner's note from a header; empty while it is being written, or where there is none."""
    crc, length = layout.NOTE.unpack_from(header, layout.NOTE_AT)
    start = layout.NOTE_AT + layout.NOTE.size
    data = header[start : start + length]
    if length > layout.NOTE_MAX or not length or zlib.crc32(data) != crc:
        return {}
    note: dict[str, Any] = orjson.loads(data)
    return note


def master_of(directory: Path) -> dict[str, Any] | None:
    """Return the note of the newest live master that owns the directory, if there is one."""
    owner = None
    for path in files(directory):
        if path.name.startswith("master-"):
            with contextlib.suppress(OSError), contextlib.closing(Opened(path)) as opened:
                if held(opened.fd):
                    owner = opened.note()
    return owner
