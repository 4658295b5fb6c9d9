"""Lets a day of load pass over a server, under whoever sets the number of its workers."""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.prove_tuning import curve
from tests.prove_tuning.queueing import Machine, Server, Work

STEP: Final = 5.0  # seconds between two looks of whoever sets the workers: a scrape
MINUTE: Final = 60.0


@dataclass(frozen=True)
class Load:
    """What comes.

    Args:
        curve: how much.
        work: what a request needs in the mean.
        seed: of chance; the same seed is the same day.
        start: seconds since midnight at which it begins.
        end: and ends.
    """

    curve: curve.Curve
    work: Work
    seed: int
    start: float = 0.0
    end: float = curve.DAY

    def requests(self) -> Iterator[tuple[float, Work]]:
        """Yield each request: when it comes, and what it needs."""
        when, what = random.Random(self.seed), random.Random(self.seed + 1)
        yield from zip(
            curve.arrivals(self.curve, when, self.start, self.end), curve.works(self.work, what), strict=False
        )


class Served(NamedTuple):
    """One request: when it came, when a worker took it, when it was answered, and what it needed."""

    arrival: float
    start: float
    end: float
    work: Work


@dataclass
class Day:
    """One server on one day.

    Args:
        machine: its cores.
        load: what comes.
        workers: how many there are at the start.
        boot_seconds: how long a new one takes.
        objective: seconds of the queue's 95th percentile that a minute may have.
        keep: seconds for which served requests can be looked back at.
    """

    machine: Machine
    load: Load
    workers: int
    boot_seconds: float = 2.0
    objective: float = 0.05
    keep: float = MINUTE
    now: float = 0.0
    recent: deque[Served] = field(default_factory=deque)
    waiting: deque[tuple[float, Work]] = field(default_factory=deque)
    worker_seconds: float = 0.0
    counts: list[int] = field(default_factory=list)  # of workers, at the end of each minute
    queues: list[float] = field(default_factory=list)  # 95th percentile of each minute, seconds
    step_busy: float = 0.0  # share of the last step in which workers had a request
    step_waits: list[float] = field(default_factory=list)  # seconds, of the requests taken in it
    _minute: list[float] = field(default_factory=list)
    _waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.load.start
        self.server = Server(self.machine, self.workers)

    def add(self) -> None:
        """Start a worker."""
        self.server.add(self.now + self.boot_seconds)

    def remove(self) -> None:
        """Let a worker go."""
        self.server.remove()

    def run(self, look: Callable[["Day"], None] = lambda _: None) -> "Day":
        """Let the day pass; `look` is called at each step, and may add and remove workers."""
        coming = self.load.requests()
        following = next(coming, None)
        while self.now < self.load.end:
            self.now += STEP
            while following and following[0] <= self.now:
                self.waiting.append(following)
                self._take(following[0])
                following = next(coming, None)
            self._take(self.now)
            self._account()
            look(self)
        return self

    def _take(self, now: float) -> None:
        """Give the requests that wait to the workers that are free by now."""
        while self.waiting and self.server.next_free() <= now:
            arrival, work = self.waiting.popleft()
            start, end = self.server.serve(arrival, work)
            self.recent.append(Served(arrival, start, end, work))
            self._waits.append(start - arrival)

    def _account(self) -> None:
        workers, begin = self.server.workers, self.now - STEP
        self.worker_seconds += workers * STEP
        overlaps = (min(each.end, self.now) - max(each.start, begin) for each in self._latest(begin))
        self.step_busy = min(1.0, sum(overlaps) / (workers * STEP))
        self.step_waits, self._waits = self._waits, []
        self._minute += self.step_waits
        while self.recent and self.recent[0].end < self.now - self.keep:
            self.recent.popleft()
        if self.now % MINUTE < STEP:
            oldest = self.now - self.waiting[0][0] if self.waiting else 0.0
            self.queues.append(max(percentile(self._minute, 0.95), oldest if not self._minute else 0.0))
            self.counts.append(self.server.workers)
            self._minute = []

    def _latest(self, begin: float) -> Iterator[Served]:
        """Yield what was in service since a time; no request takes longer than some seconds."""
        for each in reversed(self.recent):
            if each.start < begin - 5 * STEP:
                return
            if each.end > begin:
                yield each

    @property
    def minutes_over(self) -> int:
        """Minutes in which the objective was missed."""
        return sum(each > self.objective for each in self.queues)

    @property
    def worker_hours(self) -> float:
        """Hours of workers, those that boot included."""
        return self.worker_seconds / curve.HOUR


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that so large a share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def ideal_counts(fixed: dict[int, Day]) -> list[int]:
    """Return the fewest workers that would have held each minute's objective; where none would, the most.

    Args:
        fixed: days of fixed counts, by the count.
    """
    counts = []
    for minute in range(len(next(iter(fixed.values())).queues)):
        held = [count for count, day in sorted(fixed.items()) if day.queues[minute] <= day.objective]
        counts.append(held[0] if held else max(fixed))
    return counts


def ideal(fixed: dict[int, Day]) -> tuple[float, int]:
    """Return worker hours and minutes over of one who knew each minute beforehand, from days of fixed counts."""
    counts = ideal_counts(fixed)
    over = sum(fixed[count].queues[minute] > fixed[count].objective for minute, count in enumerate(counts))
    return sum(counts) / 60, over
