"""The thread beside a worker's own: it samples what waits, and sees the event loop stand still while it does.

A timer on the loop can tell of a blocking call only when it is over. This thread runs beside it, and so sees the very
line: `sys._current_frames` has the stack of the loop's thread. A look takes some microseconds of the GIL. Where a call
holds the GIL throughout, nothing here runs either: then the heartbeat's age tells, which the agent sees.
"""

import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

from observability import catalogue, context, logs, runtime, store
from observability.probes import native
from observability.probes.inside import Inside
from observability.probes.loop import Clock
from observability.redact import LONGEST

QUEUE_SECONDS = 0.25  # between two looks at a thread pool's queue
LOOP_SECONDS = 0.5  # between two looks at a loop that runs; one that is late is looked at when it is late enough
AGAIN_SECONDS = 0.05  # between the two looks of which both must find the loop late
LOGGED_SECONDS = 10.0  # a loop that blocks again and again is logged at most so often, and counted each time
_MOST_FRAMES = 50
_MOST_STACK = LONGEST // 4


class Watch:
    """Watches one worker until its process ends.

    Args:
        inside: what the worker can tell of itself.
        blocked_seconds: lag at which the event loop counts as blocked.
        clock: the loop's timer; None where there is no loop.
        runs: tells whether the loop runs: one that has ended is not late.
    """

    def __init__(
        self,
        inside: Inside,
        blocked_seconds: float,
        clock: Clock | None = None,
        runs: Callable[[], bool] = lambda: True,
    ) -> None:
        self.inside = inside
        self.blocked_seconds = blocked_seconds
        self.clock = clock
        self.runs = runs
        self.loop_thread = native.original("_thread", "get_ident")()  # this is made on the loop's thread
        self._missed = 0.0  # the tick that was missed at the last look
        self._blocked_at = 0.0  # the tick that was missed, so that an episode is told once
        self._logged = -LOGGED_SECONDS
        self._not_logged = 0
        self._samples = (
            (store.child(catalogue.WORKER_QUEUED), inside.queued),
            (store.child(catalogue.WORKER_GREENLETS), inside.greenlets),
            (store.child(catalogue.WORKER_KEPT), inside.kept),
        )
        if clock is not None:
            store.child(catalogue.WORKER_BLOCKED).bind()  # shows 0 from the start

    def run(self) -> None:
        """Look again and again; what goes wrong is counted, and the worker never sees it."""
        sleep = native.original("time", "sleep")
        while True:
            pause = LOOP_SECONDS
            try:
                pause = self.look(time.monotonic())
            except Exception as error:
                runtime.failed("probes", error)
            sleep(pause)

    def look(self, now: float) -> float:
        """Look once, and return the seconds until the next look is due."""
        for gauge, read in self._samples:
            value = read()
            if value is not None:
                gauge.set(value)
        if self.clock is None or not self.runs():
            return QUEUE_SECONDS
        pause = self._judge(self.clock, now)
        self.clock.show_late(now)
        store.child(catalogue.WORKER_LAG_MAX).set(self.clock.longest.longest(now))
        return min(LOOP_SECONDS, max(pause, 0.001))

    def _judge(self, clock: Clock, now: float) -> float:
        """Tell of a loop that was late at two looks in a row, and return the seconds until the next look is due.

        Where the whole process stood still (stopped, throttled, its machine paused), this thread may be the first to
        run again: the loop is late then, and nothing blocks it. Between two looks it has the time to tick.
        """
        due = clock.due
        lag, missed = now - due, self._missed
        if lag < self.blocked_seconds - AGAIN_SECONDS:
            return self.blocked_seconds - AGAIN_SECONDS - lag
        self._missed = due
        if due != missed:
            return AGAIN_SECONDS
        if lag < self.blocked_seconds:
            return self.blocked_seconds - lag
        clock.longest.note(lag)
        self._blocked(due, lag)
        return LOOP_SECONDS / 2

    def _blocked(self, due: float, lag: float) -> None:
        """Note that the loop is late now, and tell of each episode once."""
        if due == self._blocked_at:
            return
        self._blocked_at = due
        store.child(catalogue.WORKER_BLOCKED).inc()
        now = time.monotonic()
        frame = sys._current_frames().get(self.loop_thread)
        if now - self._logged < LOGGED_SECONDS or frame is None:
            self._not_logged += 1
            return
        self._logged = now
        _tell(frame, lag, self._not_logged)
        self._not_logged = 0


def _tell(frame: FrameType, lag: float, not_logged: int) -> None:
    """Write the one line that says what blocks the loop, with the trace of the request that it belongs to."""
    code = frame.f_code
    fields = {
        "lag_seconds": round(lag, 3),
        "code.file.path": code.co_filename,
        "code.line.number": frame.f_lineno,
        "code.function.name": code.co_qualname,
        "code.stacktrace": "".join(traceback.format_stack(frame, _MOST_FRAMES))[-_MOST_STACK:],
    }
    if not_logged:
        fields["episodes_not_logged"] = not_logged
    logs.emit("warning", "gunicorn.worker.loop_blocked", fields, request_of(frame), "event loop blocked")


def request_of(frame: FrameType | None) -> context.RequestContext | None:
    """Return the request in which a stack stands: the one that a frame of the middleware's holds."""
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("observability."):
            for value in frame.f_locals.values():
                found = getattr(value, "_request", value)
                if isinstance(found, context.RequestContext):
                    return found
        frame = frame.f_back
    return None
