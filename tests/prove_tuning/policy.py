"""The tuner itself over the model of a server: its own loop, with the model's signals and the model's clock."""

import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from observability.tuning import reader, trends
from observability.tuning.action import Changed, Refused
from observability.tuning.loop import Loop
from observability.tuning.memory import Memory
from observability.tuning.model import Decision, History, Limits, Mode, Outcome, Signals
from observability.tuning.settings import Settings
from observability.tuning.tally import Tally
from observability.tuning.thresholds import OTHER
from observability.tuning.voice import Voice
from observability.tuning.webhook import Inbox
from tests.prove_tuning.day import MINUTE, STEP, Day, percentile

SERVER: Final = "model:9101"
ALERT_SECONDS: Final = 45.0  # RequestsQueueing: half a minute's mean over the objective, for a quarter of a minute
LOOK_BACK: Final = reader.LOOK_BACK_WINDOWS * MINUTE
RISING_SECONDS: Final = reader.RISING_WINDOWS * MINUTE


@dataclass(frozen=True)
class Decided:
    """One decision, and what it rested on."""

    signals: Signals
    history: History
    decision: Decision


class Record(Voice):
    """Keeps each decision instead of saying it."""

    def __init__(self, memory: Memory, clock: Callable[[], float]) -> None:
        super().__init__(memory, Tally(), LOOK_BACK, clock)
        self.decisions: list[Decided] = []

    def decided(
        self,
        signals: Signals,
        limits: Limits,
        history: History,
        decision: Decision,
        mode: Mode,
        outcome: Outcome,
        kept_from: str = "",
    ) -> None:
        """Keep it."""
        self.decisions.append(Decided(signals, history, decision))

    def judged(self, *_: object, **__: object) -> None:
        """Say nothing: the memory has each step with its outcome."""


class Tuned:
    """Whoever sets the workers of a day is the tuner.

    Args:
        day: the server.
        settings: the tuner's.
        directory: for its memory.
    """

    def __init__(self, day: Day, settings: Settings, directory: Path) -> None:
        self.day, self.settings = day, settings
        self._changed_at = -MINUTE
        self._due = 0.0
        self._busy_minute: deque[float] = deque(maxlen=int(MINUTE / STEP))
        self._in_flight_minute: deque[float] = deque(maxlen=int(MINUTE / STEP))
        self._waits_minute: deque[list[float]] = deque(maxlen=int(MINUTE / STEP))
        self._points: deque[trends.Point] = deque(maxlen=int(LOOK_BACK / STEP) + 1)
        self._over_since: float | None = None
        self._contended: deque[tuple[float, float]] = deque([(0.0, 0.0)], maxlen=int(MINUTE / STEP) + 1)
        memory = Memory(directory, lambda _: None)
        voice = Record(memory, lambda: day.now)
        self.memory, self.decisions, wake = memory, voice.decisions, threading.Event()
        inbox = Inbox(memory, wake.set, clock=lambda: day.now)
        self.loop = Loop(settings, Mode.APPLY, self, self, memory, voice, inbox, wake, clock=lambda: day.now)
        self._wake = wake

    def __call__(self, day: Day) -> None:
        """Look, as often as the tuner does: at its poll, while a step is watched, and when an alert fires."""
        self._follow()
        if day.now < self._due and not self._wake.is_set():
            return
        self._wake.clear()
        self._signals = self._observe()
        self.loop.round()
        watched = day.now - self._changed_at < 2 * MINUTE or self._alert()
        self._due = day.now + (self.settings.watch_seconds if watched else self.settings.poll_seconds)

    def read(self, now: float) -> list[Signals]:
        """Return what the tuner would read."""
        return [self._signals]

    def change(self, server: str, step: int, expected: int) -> Changed | Refused:
        """Do what the agent would do."""
        if expected != self.day.server.workers:
            return Refused(409, "target", f"the target is {self.day.server.workers}", self.day.server.workers)
        (self.day.add if step > 0 else self.day.remove)()
        self._changed_at = self.day.now
        return Changed(self.day.server.workers)

    def _alert(self) -> bool:
        return self._over_since is not None and self.day.now - self._over_since >= ALERT_SECONDS

    def _observe(self) -> Signals:
        """Make the signals of the last minute."""
        day, now, begin = self.day, self.day.now, self.day.now - MINUTE
        ended = [each for each in day.recent if begin < each.end <= now]
        workers, cores = day.server.workers, day.machine.cores
        last, before = self._points[-1], trends.value_before(self._points, now - RISING_SECONDS, MINUTE)
        ago = trends.value_before(self._points, now - MINUTE, MINUTE)
        (cpu_before, waited_before), (cpu, waited) = self._contended[0], self._contended[-1]
        computed, contended = cpu - cpu_before, waited - waited_before
        count = len(ended)
        return Signals(
            server=SERVER,
            time=now,
            age=0.0,
            worker_class="sync",
            workers_target=workers,
            workers_live=workers - (now - self._changed_at < day.boot_seconds),
            slots=1.0,
            cores=cores,
            requests_per_second=count / MINUTE,
            requests=float(count),
            in_flight=last.in_flight or 0.0,
            service_seconds=sum(each.end - each.start for each in ended) / count if count else None,
            cpu_seconds_per_request=computed / count if count else None,
            duration_p99=percentile((each.end - each.start for each in ended), 0.99) if count else None,
            queue_p95=last.queue,
            queue_source="proxy",
            backlog=float(len(day.waiting)),
            backlog_limit=2048.0,
            busy=last.busy,
            busy_by_worker=(last.busy,) * workers,
            busy_rising=before is not None and last.busy - before >= OTHER,
            busy_changing=ago is None or abs(last.busy - ago) >= OTHER,
            cpu_share=computed / MINUTE / cores,
            run_queue=contended / computed if computed else 0.0,
            low_seconds=trends.low_seconds(self._points, MINUTE),
            quiet_peak=trends.quiet_peak(self._points, self.settings.idle_seconds, MINUTE),
            boot_seconds=day.boot_seconds,
        )

    def _follow(self) -> None:
        """Keep up with what the recording rules and the alert look back at."""
        day, now, server = self.day, self.day.now, self.day.server
        self._busy_minute.append(day.step_busy)
        self._in_flight_minute.append(day.step_busy * server.workers)
        self._waits_minute.append(day.step_waits)
        self._contended.append((server.cpu_seconds, server.waited_for_cpu))
        busy, in_flight = fmean(self._busy_minute), fmean(self._in_flight_minute)
        still = [now - arrival for arrival, _ in day.waiting]
        queue = percentile(itertools.chain(still, *self._waits_minute), 0.95)
        self._points.append(trends.Point(now, busy, queue, in_flight))
        if queue <= day.objective:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now
            self._due = min(self._due, now + ALERT_SECONDS)
