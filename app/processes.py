"""What each process must make for itself: connections may not be shared over a fork."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value made on first use in each process.

    With preload, the app is built in the master, before the fork and maybe before gevent's patch. A pool made
    there would share its sockets between the workers, and its locks would block a whole gevent worker. The
    parent's value stays referenced, so that the child never closes what belongs to the parent.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """Return this process's value."""
        pid = os.getpid()
        made = self._made.get(pid)
        return self._made.setdefault(pid, self._make()) if made is None else made
