"""A worker's flight record: the requests in flight, in shared memory, readable however the worker ended."""

import threading
from collections.abc import Iterator
from mmap import mmap
from typing import Any

from observability import layout


class Flight:
    """The requests in flight of one process, in shared memory, so that they outlive it.

    Args:
        memory: the mapped slot file.
    """

    def __init__(self, memory: mmap) -> None:
        self._memory = memory
        self._numbers = memoryview(memory).cast("d")
        first = layout.FLIGHT_AT
        self._free = list(
            range(first + (layout.FLIGHT_ENTRIES - 1) * layout.FLIGHT.size, first - 1, -layout.FLIGHT.size)
        )

    def enter(self, method: str, path: str, trace_id: str, start: float, ident: int = 0) -> int:
        """Write an entry and return it; 0 where all are taken, so that the oldest are kept.

        `ident` is the thread's or greenlet's by default; for asyncio, the task's.
        """
        try:
            entry = self._free.pop()
        except IndexError:
            return 0
        layout.FLIGHT.pack_into(
            self._memory,
            entry,
            ident or threading.get_ident(),  # looked up at each call: gevent's, once it has patched
            trace_id.encode(),
            method.encode("latin-1", "replace"),
            path.encode("utf-8", "replace"),
            start,
        )
        return entry

    def leave(self, entry: int) -> None:
        """Free an entry."""
        if entry:
            self._numbers[(entry + layout.FLIGHT_START_AT) // 8] = 0.0
            self._free.append(entry)

    def close(self) -> None:
        """Let go of the memory."""
        self._numbers.release()


def copy(memory: mmap) -> bytes:
    """Return the flight record of a mapped slot."""
    return memory[layout.FLIGHT_AT : layout.FLIGHT_AT + layout.FLIGHT_SIZE]


def read(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the requests in flight of a record, the oldest first; `start` in monotonic seconds."""
    width = layout.FLIGHT.size // 8
    starts = memoryview(data[: len(data) // 8 * 8]).cast("d")[width - 1 :: width].tolist()
    for _, entry in sorted((begun, entry) for entry, begun in enumerate(starts) if begun > 0.0):
        ident, trace_id, method, path, start = layout.FLIGHT.unpack_from(data, entry * layout.FLIGHT.size)
        yield {
            "method": _text(method),
            "path": _text(path),
            "trace_id": _text(trace_id),
            "ident": ident,
            "start": start,
        }


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
