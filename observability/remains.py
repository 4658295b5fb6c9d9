"""What a dead worker left in its slot."""

import contextlib
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from observability import flight, layout, slots


@dataclass(frozen=True)
class Remains:
    """What a dead worker left in its slot.

    Args:
        note: what it said of itself.
        requests: how many it served.
        lost: how many it died with; they are in no other count.
        flights: the requests that were in flight, as `flight.read` has them.
    """

    note: dict[str, Any]
    requests: int
    lost: int
    flights: list[dict[str, Any]]


def bury(directory: Path, number: int, pid: int) -> Remains | None:
    """Read what a dead worker left in its slot, and say there that it was seen dead.

    Its requests stop counting as busy then, and another worker may have the slot. None where the slot is not that
    worker's, or cannot be read.
    """
    try:
        with contextlib.closing(slots.Opened(slots.path_of(directory, "worker", number))) as opened:
            note = opened.note()
            if note.get("pid") != pid or slots.held(opened.fd):
                return None
            values = struct.unpack(
                f"={layout.FIRST_SERIES}d", os.pread(opened.fd, layout.FIRST_SERIES * 8, layout.VALUES_AT)
            )
            flights = list(flight.read(os.pread(opened.fd, layout.FLIGHT_SIZE, layout.FLIGHT_AT)))
            os.pwrite(opened.fd, layout.ENDED.pack(time.monotonic()), layout.ENDED_AT)
    except (OSError, struct.error):
        return None
    served = values[layout.REQUESTS] - note.get("requests_before", 0)
    return Remains(note, int(served), int(values[layout.ACTIVE]), flights)
