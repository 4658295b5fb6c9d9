"""How late an event loop runs: a timer on the loop itself, and the longest lag of the last seconds."""

import time
from math import inf

from observability import catalogue, runtime, store

TICK_SECONDS = 0.25  # each wakes the worker: ten a second cost an idle one 0.2 % of a core, four 0.1 %
RECENT_SECONDS = 5.0


class Longest:
    """The longest lag of the last seconds, at least `RECENT_SECONDS` and at most half as many more.

    One thread asks, and any may note: what they share is replaced whole.
    """

    def __init__(self) -> None:
        self._since = self._now = self._before = self._earlier = 0.0

    def note(self, seconds: float) -> None:
        """Take one lag."""
        if seconds > self._now:
            self._now = seconds

    def longest(self, now: float) -> float:
        """Return the longest, and begin a new span of time where one is over; `now` in monotonic seconds."""
        if now - self._since >= RECENT_SECONDS / 2:
            self._earlier, self._before, self._now = self._before, self._now, 0.0
            self._since = now
        return max(self._now, self._before, self._earlier)


class Clock:
    """A timer that the loop runs again and again; how late it is, is the loop's lag."""

    def __init__(self) -> None:
        self.due = inf  # monotonic seconds; no tick is awaited before the loop runs
        self.longest = Longest()
        self._ended = False
        self._lags = store.child(catalogue.WORKER_LAG)
        self._lags.bind()  # shows 0 from the start: a loop may be blocked before its first tick
        self._late = store.child(catalogue.WORKER_LATE)

    def begin(self) -> None:
        """Await the first tick; the loop runs."""
        self.due = time.monotonic() + TICK_SECONDS

    def tick(self) -> None:
        """Take one tick, on the loop. Never raises."""
        if self._ended:
            return
        now = time.monotonic()
        lag, self.due = max(0.0, now - self.due), now + TICK_SECONDS
        try:
            self.longest.note(lag)
            self._lags.observe(lag)
            self._late.set(0.0)
        except Exception as error:
            runtime.failed("probes", error)

    def show_late(self, now: float) -> None:
        """Show how late the loop is; called beside it, so that a tick in between has the last word."""
        due = self.due
        self._late.set(max(0.0, now - due))
        if self.due != due:
            self._late.set(0.0)

    def end(self) -> None:
        """Await no more ticks: a worker that leaves stops its loop."""
        self._ended = True
        self.due = inf
