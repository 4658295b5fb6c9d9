"""The tuner itself over the model of a server: its own loop, with the model's signals and the model's clock."""

import threading
from collections import deque
from pathlib import Path
from typing import Final

from observability.tuning.action import Changed, Refused
from observability.tuning.loop import Loop
from observability.tuning.memory import Memory
from observability.tuning.model import Mode, Signals
from observability.tuning.settings import Settings
from observability.tuning.tally import Tally
from observability.tuning.voice import Voice
from observability.tuning.webhook import Inbox
from tests.prove_tuning.day import MINUTE, STEP, Day, percentile

SERVER: Final = "model:9101"
ALERT_SECONDS: Final = 45.0  # RequestsQueueing: half a minute's mean over the objective, for a quarter of a minute
IDLE: Final = 0.25  # U below which, with no queue, there is little to do
LOOK_BACK: Final = 15 * MINUTE


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
        self._busy: deque[float] = deque(maxlen=int(5 * MINUTE / STEP))
        self._busy_minute: deque[float] = deque(maxlen=int(MINUTE / STEP))
        self._over_minute: deque[float] = deque(maxlen=int(MINUTE / STEP))
        self._quiet_since = day.now
        self._over_since: float | None = None
        self._contended: deque[tuple[float, float]] = deque([(0.0, 0.0)], maxlen=int(MINUTE / STEP) + 1)
        memory, tally = Memory(directory, lambda _: None), Tally()
        voice = Voice(memory, tally, LOOK_BACK, clock=lambda: day.now)
        self.memory, wake = memory, threading.Event()
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
        started = [each for each in day.recent if begin < each.start <= now]
        ended = [each for each in day.recent if begin < each.end <= now]
        oldest = now - day.waiting[0][0] if day.waiting else 0.0
        p95 = max(percentile((each.start - each.arrival for each in started), 0.95), oldest)
        workers, cores = day.server.workers, day.machine.cores
        busy = sum(self._busy_minute) / len(self._busy_minute)
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
            in_flight=busy * workers,
            service_seconds=sum(each.end - each.start for each in ended) / count if count else None,
            cpu_seconds_per_request=computed / count if count else None,
            duration_p99=percentile((each.end - each.start for each in ended), 0.99) if count else None,
            queue_p95=p95,
            queue_source="proxy",
            backlog=float(len(day.waiting)),
            backlog_limit=2048.0,
            busy=busy,
            busy_by_worker=(busy,) * workers,
            busy_rising=busy - self._busy[0] >= 0.1,
            cpu_share=computed / MINUTE / cores,
            run_queue=contended / computed if computed else 0.0,
            low_seconds=min(LOOK_BACK, now - self._quiet_since),
            boot_seconds=day.boot_seconds,
        )

    def _follow(self) -> None:
        """Keep up with what the recording rules and the alert look back at."""
        day, now, server = self.day, self.day.now, self.day.server
        self._busy.append(day.step_busy)
        self._busy_minute.append(day.step_busy)
        self._over_minute.append(day.step_over)
        self._contended.append((server.cpu_seconds, server.waited_for_cpu))
        busy, over = sum(self._busy_minute) / len(self._busy_minute), sum(self._over_minute) / len(self._over_minute)
        if busy >= IDLE or over > 0.05:
            self._quiet_since = now
        if over <= 0.05:  # the 95th percentile is within the objective
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now
            self._due = min(self._due, now + ALERT_SECONDS)
