"""What a worker tells its master while it lives, for the time when it does not: marks in memory that both share.

The memory is made before the fork, and is no file: it works where the state directory does not.
"""

import mmap
import os
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson


class Marks:
    """What a worker writes for its master, in memory that both share.

    Args:
        worker: gunicorn's worker object, before its fork.
    """

    BOOTED, BOOT_FAILED, EXITED, RECYCLED = range(4)
    _IDENTITY = struct.Struct("=QQ")  # pid, slot
    _IDENTITY_AT = 8
    _REQUESTS = struct.Struct("=II")  # CRC-32 and length of the JSON that follows
    _REQUESTS_AT = 32
    _SIZE = 4 * mmap.PAGESIZE

    def __init__(self, worker: Any) -> None:
        self.age: int = worker.age
        self.max_requests: int = worker.max_requests
        self.started = time.monotonic()
        self._page = mmap.mmap(-1, self._SIZE)

    def set(self, mark: int) -> None:
        """Leave a mark."""
        self._page[mark] = 1

    def has(self, mark: int) -> bool:
        """Tell whether a mark was left."""
        return self._page[mark] == 1

    def identify(self, slot: int) -> None:
        """Say which process this is, and in which slot."""
        self._IDENTITY.pack_into(self._page, self._IDENTITY_AT, os.getpid(), slot)

    def write_requests(self, total: int, oldest: Sequence[Mapping[str, Any]]) -> None:
        """Write down the requests in flight, since the worker's end ends them; as many as there is room for."""
        start = self._REQUESTS_AT + self._REQUESTS.size
        for count in range(len(oldest), -1, -1):
            data = orjson.dumps((total, oldest[:count]))
            if start + len(data) <= self._SIZE:
                self._page[start : start + len(data)] = data
                self._REQUESTS.pack_into(self._page, self._REQUESTS_AT, zlib.crc32(data), len(data))
                return

    def read_requests(self) -> tuple[int, list[dict[str, Any]]] | None:
        """Return how many requests were in flight, and the oldest; None where the worker wrote none."""
        crc, length = self._REQUESTS.unpack_from(self._page, self._REQUESTS_AT)
        start = self._REQUESTS_AT + self._REQUESTS.size
        data = self._page[start : start + length]
        if not length or zlib.crc32(data) != crc:
            return None
        total, oldest = orjson.loads(data)
        return total, oldest

    @property
    def pid(self) -> int:
        """The worker's pid; 0 before it is known."""
        return int(self._IDENTITY.unpack_from(self._page, self._IDENTITY_AT)[0])

    @property
    def slot(self) -> int:
        """The worker's slot; 0 where it has none."""
        return int(self._IDENTITY.unpack_from(self._page, self._IDENTITY_AT)[1])
