"""How busy a worker is: one number that means the same for every worker class.

    busy = the largest of
        slots   request seconds / (seconds x capacity)   sync, gthread: every slot taken; gevent: nominal
        CPU     CPU seconds / seconds                    a worker's Python code runs on one core at a time
        loop    seconds the event loop was late / seconds    a call that blocks it uses no slot and perhaps no CPU

Each is the share of the time in which the worker could have taken no more work, by one thing that it can run out of;
the worker is as busy as its scarcest. docs/saturation.md says what the number cannot tell.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

WINDOW_SECONDS = 5.0
_LEAST_SECONDS = 1.0  # CPU time comes in hundredths of a second: of less time a ratio would be noise
_EVERY_SECONDS = 0.9


@dataclass(frozen=True)
class Mark:
    """What a worker had counted at a moment; None where it is not known, or does not apply.

    Args:
        pid: whose counts they are: a slot's next worker is not compared with its last.
        busy: request seconds.
        capacity: requests that it can run at the same time.
        cpu: CPU seconds.
        late: seconds that the event loop was late, as its timer has counted them.
        late_now: seconds that it is late now, which `late` lacks as long as it is not over.
    """

    pid: int
    busy: float
    capacity: float | None
    cpu: float | None
    late: float | None
    late_now: float | None

    @property
    def lateness(self) -> float:
        """Seconds that the loop has been late up to now; a series that is not there yet begins at 0."""
        return (self.late or 0.0) + (self.late_now or 0.0)


def ratio(before: Mark, after: Mark, seconds: float) -> float:
    """Return how busy the worker was between two marks, from 0 to 1."""
    shares = [0.0]
    if after.capacity:
        shares.append((after.busy - before.busy) / (seconds * after.capacity))
    if after.cpu is not None and before.cpu is not None:
        shares.append((after.cpu - before.cpu) / seconds)
    if after.late is not None:
        shares.append((after.lateness - before.lateness) / seconds)
    return min(1.0, max(shares))


class Window:
    """The marks of the last seconds, from which the present ratio is taken."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Mapping[str, Mark]]] = deque()

    def ratios(self, now: float, marks: Mapping[str, Mark]) -> dict[str, float]:
        """Take the present marks, and return the ratio of each worker that was there before.

        Args:
            now: monotonic seconds.
            marks: by slot.
        """
        past = self._past
        while len(past) > 1 and past[1][0] <= now - WINDOW_SECONDS:
            past.popleft()
        found = {}
        for slot, mark in marks.items():
            for at, earlier in past:
                before = earlier.get(slot)
                if before is not None and before.pid == mark.pid and now - at >= _LEAST_SECONDS:
                    found[slot] = ratio(before, mark, now - at)
                    break
        if not past or now - past[-1][0] >= _EVERY_SECONDS:
            past.append((now, marks))
        return found
