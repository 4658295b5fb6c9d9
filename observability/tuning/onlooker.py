"""Signals without Prometheus: one agent is asked again and again, and what it counted between is ours to reckon.

The numbers are those of the recording rules (monitoring/prometheus/rules/recording.yml), by the same formulas.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import inf
from statistics import fmean, median, quantiles
from urllib.parse import urlsplit

from observability import catalogue
from observability.tuning import exposed, trends
from observability.tuning.asking import ask, named
from observability.tuning.exposed import Key, Mark
from observability.tuning.model import Limits, Signals
from observability.tuning.reader import (
    LOOK_BACK_WINDOWS,
    RISING_WINDOWS,
    WHOLE,
    WINDOW_SECONDS,
    Numbers,
    ReadError,
    assemble,
    queue_of,
)

INTERVAL_SECONDS = 5.0
ANSWER_SECONDS = 5.0
_USUAL_WINDOWS = 60  # an hour: of the 99th percentile, one number a window is kept for so long
_USUAL_LEAST = 5
_TEN, _FIVE = 10, 5  # windows
_ENOUGH = 0.5  # of a window: a rate of ours is of the time that was watched, however short
_SLACK = 0.5  # of an interval, by which a look may be late or early
# 14.4 times what an objective of 99.9 % allows, as the first availability alert has it (monitoring/slo.yml). It looks
# at an hour and at five minutes, and asks for 500 requests in the hour: here a quarter of an hour has to do.
_BURNING = 14.4 * 0.001
_BURNING_LEAST = 125


class Onlooker:
    """Watches one agent.

    Args:
        url: of the agent.
        window: seconds that rates are over.
        interval: seconds between two looks, of which a window should hold four or more.
        idle: seconds that `quiet_peak` looks back.
    """

    def __init__(
        self,
        url: str,
        window: float = WINDOW_SECONDS,
        interval: float = INTERVAL_SECONDS,
        idle: float = Limits.idle_seconds,
    ) -> None:
        self.url, self.window, self.interval, self.idle = url.rstrip("/"), window, interval, idle
        self.server = urlsplit(self.url).netloc.rpartition("@")[2]
        self.trouble = ""  # why the last look failed
        most = int(LOOK_BACK_WINDOWS * window / interval) + 2
        self._marks: deque[Mark] = deque(maxlen=most)
        self._points: deque[trends.Point] = deque(maxlen=most)
        self._usual: deque[tuple[float, float]] = deque(maxlen=_USUAL_WINDOWS)
        self._known: tuple[float, Numbers] | None = None

    def look(self) -> None:
        """Ask the agent once.

        Raises:
            ReadError: it does not answer, or something else does.
        """
        try:
            self._take(self._asked())
        except ReadError as error:
            self.trouble = str(error)
            raise
        self.trouble = ""

    def read(self, now: float) -> list[Signals]:
        """Return the signals of the server, as the last look has them.

        Raises:
            ReadError: there is none yet, or the last is older than a window.
        """
        if self._known is None or now - self._known[0] > self.window:
            raise ReadError(self.trouble or f"{named(self.url)}: has not been watched for long enough")
        at, numbers = self._known
        if WHOLE in numbers.missing:
            raise ReadError(f"{named(self.url)}: has not been watched for long enough")
        if numbers.missing:
            raise ReadError(f"{named(self.url)}: does not show {', '.join(numbers.missing)}")
        aged = replace(numbers, values={**numbers.values, "age_samples": max(0.0, now - at)})
        return [assemble(self.server, now, aged, self.window)]

    @contextmanager
    def watching(self) -> Iterator["Onlooker"]:
        """Look at every interval, on a thread beside, while the block runs; a look that fails is told by `trouble`."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), name="onlooker", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join(ANSWER_SECONDS + 1)

    def _watch(self, over: threading.Event) -> None:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            try:
                self.look()
            except ReadError:
                pass  # kept in `trouble`
            except Exception as error:  # a thread that ends would leave old numbers standing
                self.trouble = f"{named(self.url)}: {type(error).__name__}"
            due = max(due + self.interval, time.monotonic())

    def _asked(self) -> Mark:
        status, body = ask(f"{self.url}/metrics", seconds=ANSWER_SECONDS)
        if status != 200:
            raise ReadError(f"{named(self.url)}: answers {status}, so it is no agent")
        try:
            return exposed.read(body.decode("utf-8", "replace"), time.monotonic(), time.time())
        except ValueError as error:
            raise ReadError(f"{named(self.url)}: {error}") from None

    def _take(self, mark: Mark) -> None:
        """Reckon with a new mark."""
        self._marks.append(mark)
        while mark.at - self._marks[0].at > LOOK_BACK_WINDOWS * self.window:
            self._marks.popleft()
        if len(self._marks) > 1:
            self._known = mark.time, self._numbers(mark)

    def _since(self, windows: float) -> list[Mark]:
        """Return the marks of the last windows."""
        earliest = self._marks[-1].at - windows * self.window - _SLACK * self.interval
        return [mark for mark in self._marks if mark.at >= earliest]

    def _numbers(self, mark: Mark) -> Numbers:
        worker_class = max(mark.classes, key=lambda name: mark.classes[name], default="")
        marks = self._since(1)
        values = {**mark.gauges, **_rates(marks), **_levels(marks), **self._events()}
        if mark.at - marks[0].at >= _ENOUGH * self.window:
            values[WHOLE] = 1.0
        self._keep(mark, values, worker_class)
        values |= self._usually()
        busy = _busy(marks)
        return Numbers(
            values,
            worker_class,
            tuple(busy.values()),
            low_seconds=trends.low_seconds(self._points, self.window),
            quiet_peak=trends.quiet_peak(self._points, self.idle, self.window),
            busy_before=trends.value_before(self._points, mark.time - RISING_WINDOWS * self.window, self.window),
            busy_window_ago=self._busy_window_ago(mark.time),
            leak_bytes=trends.leak((each for known in self._marks for each in known.memory), self.window),
        )

    def _busy_window_ago(self, now: float) -> float | None:
        """Return how busy it was a window ago, or at the first look where that is not as long ago."""
        ago = trends.value_before(self._points, now - self.window, self.window)
        first = self._points[0] if self._points else None
        return first.busy if ago is None and first and now - first.time >= _ENOUGH * self.window else ago

    def _events(self) -> dict[str, float]:
        """Return what is counted over more than a window."""
        five, ten = Increases(self._since(_FIVE)), Increases(self._since(_TEN))
        found = {
            "timeouts": five.of(catalogue.EXITS.name, "timeout"),
            "oom_kills": max(ten.of(catalogue.CGROUP_OOM_KILLS.name), ten.of(catalogue.EXITS.name, "oom_killed")),
            "reloads": _reloads(self._since(1)),
        }
        if catalogue.WORKER_BLOCKED.name in five.names:
            found["loop_blocked"] = five.of(catalogue.WORKER_BLOCKED.name)
        return found | {"errors_burning": float(self._burns(five))}

    def _burns(self, five: "Increases") -> bool:
        whole = Increases(self._marks)
        ratios = [_error_ratio(five), _error_ratio(whole)]
        return whole.of(catalogue.WORKER_REQUESTS.name) >= _BURNING_LEAST and min(ratios) > _BURNING

    def _keep(self, mark: Mark, values: dict[str, float], worker_class: str) -> None:
        """Keep what is looked back at."""
        if "busy" in values:
            queue = queue_of(values, worker_class, self.window).seconds
            self._points.append(trends.Point(mark.time, values["busy"], queue, values.get("in_flight")))
        due = not self._usual or mark.at - self._usual[-1][0] >= self.window - _SLACK * self.interval
        if due and "duration_p99" in values:
            self._usual.append((mark.at, values["duration_p99"]))
        while self._usual and mark.at - self._usual[0][0] > _USUAL_WINDOWS * self.window:
            self._usual.popleft()

    def _usually(self) -> dict[str, float]:
        """Return the median of the 99th percentiles, where there are some of more than a few minutes."""
        if len(self._usual) < _USUAL_LEAST:
            return {}
        return {"duration_p99_usual": median(value for _, value in self._usual)}


class Increases:
    """What counters have gained over some marks; one that falls has begun anew at 0.

    A series that is not there at first begins with what it then shows, as Prometheus has it.
    """

    def __init__(self, marks: Iterable[Mark]) -> None:
        self.seconds = 0.0
        self._gained: dict[Key, float] = {}
        for before, after in pairwise(marks):
            self.seconds += after.at - before.at
            for key, value in after.counters.items():
                known = before.counters.get(key, value)
                self._gained[key] = self._gained.get(key, 0.0) + (value - known if value >= known else value)
        self.names = {key[0] for key in self._gained}

    def of(self, *key: str) -> float:
        """Return the sum over all series that begin with a key."""
        return sum(gained for known, gained in self._gained.items() if known[: len(key)] == key)

    def rate(self, *key: str) -> float:
        """Return the same a second."""
        return self.of(*key) / self.seconds if self.seconds > 0 else 0.0

    def buckets(self, metric: catalogue.Metric) -> dict[float, float]:
        """Return what a histogram has gained up to each bound."""
        name = f"{metric.name}_bucket"
        return {_bound(key[1]): gained for key, gained in self._gained.items() if key[0] == name}


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return inf


def _rates(marks: Sequence[Mark]) -> dict[str, float]:
    """Return what is reckoned from counters over one window."""
    gained = Increases(marks)
    found: dict[str, float | None] = {
        "duration_p99": trends.quantile(0.99, gained.buckets(catalogue.REQUEST_DURATION)),
        "queue_p95": trends.quantile(0.95, gained.buckets(catalogue.REQUEST_QUEUE)),
        "loop_lag_p99": trends.quantile(0.99, gained.buckets(catalogue.WORKER_LAG)),
    }
    rate, busy = gained.rate(catalogue.WORKER_REQUESTS.name), gained.rate(catalogue.WORKER_BUSY.name)
    cpu, waited = gained.rate(catalogue.WORKER_CPU.name), gained.rate(catalogue.WORKER_RUN_QUEUE.name)
    periods, stopped = gained.of(catalogue.CGROUP_PERIODS.name), gained.of(catalogue.CGROUP_THROTTLED_PERIODS.name)
    found |= {
        "requests_per_second": rate if catalogue.WORKER_REQUESTS.name in gained.names else None,
        "in_flight": busy if catalogue.WORKER_BUSY.name in gained.names else None,
        "service_seconds": busy / rate if rate > 0 else None,
        "cpu_cores": cpu if catalogue.WORKER_CPU.name in gained.names else None,
        "run_queue": waited / cpu if cpu > 0 and catalogue.WORKER_RUN_QUEUE.name in gained.names else None,
        "throttled": stopped / periods if periods > 0 else None,
        "error_ratio": _error_ratio(gained),
    }
    return {name: value for name, value in found.items() if value is not None}


def _levels(marks: Sequence[Mark]) -> dict[str, float]:
    """Return what is reckoned from gauges: as a mean over the window where it wavers."""
    last = marks[-1]
    found: dict[str, float] = {}
    for name in ("queued", "backlog"):
        if name in last.gauges:
            found[name] = fmean(mark.gauges[name] for mark in marks if name in mark.gauges)
    if busy := _busy(marks):
        found["busy"] = fmean(busy.values())
    if sizes := [worker["size"] for worker in last.workers.values() if "size" in worker]:
        found["worker_memory"] = sum(sizes)
        found["worker_memory_p95"] = quantiles(sizes, n=20, method="inclusive")[-1] if len(sizes) > 1 else sizes[0]
    used, limit = last.gauges.get("memory_used"), last.gauges.get("memory_limit")
    if used is not None and limit:
        found["memory_share"] = used / limit
    return found


def _busy(marks: Sequence[Mark]) -> dict[str, float]:
    """Return the mean busy ratio of each worker that lives."""
    found: dict[str, float] = {}
    for slot, worker in marks[-1].workers.items():
        if "busy" in worker:
            found[slot] = fmean(each.workers[slot]["busy"] for each in marks if "busy" in each.workers.get(slot, ()))
    return found


def _error_ratio(gained: Increases) -> float:
    """Return the share of requests that failed on our side, those that were lost with their worker included."""
    lost = gained.of(catalogue.REQUESTS_LOST.name)
    ended = gained.of(catalogue.WORKER_REQUESTS.name) + lost
    return (gained.of(catalogue.WORKER_ERRORS.name) + lost) / ended if ended > 0 else 0.0


def _reloads(marks: Sequence[Mark]) -> float:
    """Return how many reloads there were; the first one makes the counter."""
    counts = [mark.counters.get((catalogue.RELOADS.name,), 0.0) for mark in marks]
    return sum(after - before if after >= before else after for before, after in pairwise(counts))
