"""Time spent in Python's garbage collector, which stops every thread, greenlet and task of a worker."""

import gc
import time
from typing import Any

from observability import catalogue
from observability.store import STORE


class Collector:
    """Adds up the collector's time by generation.

    It runs wherever an object is made, a lock of ours held or not, so it takes none: only one collection runs at a
    time in a process, and nothing else writes these values.
    """

    def __init__(self) -> None:
        places = [STORE.child(catalogue.WORKER_GC, str(each)).bind()[0] for each in range(len(gc.get_stats()))]
        self._places = places
        self._epoch = STORE.epoch
        self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """Take one call of `gc.callbacks`."""
        if phase == "start":
            self._begun = time.perf_counter()
        elif self._epoch is STORE.epoch:  # else this is a forked child, whose time is not the worker's
            STORE.cells[self._places[info["generation"]]] += time.perf_counter() - self._begun
