"""Signals from Prometheus' HTTP API: of now, of a moment, or of a recorded range.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite

import msgspec

from observability.tuning import promql, trends
from observability.tuning.asking import ANSWER_SECONDS, ask, named
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

LEAK_WINDOWS = 180  # three hours of the rules' minutes
_LEAK_STEP_WINDOWS = 2
_TREND_STEPS = 4  # a window
_LONGEST_ERROR = 200
MOST_STEPS = 1000  # of a range; Prometheus itself takes 11,000 points


class Row(msgspec.Struct):
    """One series of an answer: a sample, or several; their values are text, as numbers of JSON know no NaN."""

    metric: dict[str, str]
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []

    @property
    def samples(self) -> Iterator[tuple[float, float]]:
        """Yield times and values, but for those that are no number."""
        for time, text in [self.value] if self.value else self.values:
            value = _number(text)
            if value is not None:
                yield time, value


class _Data(msgspec.Struct):
    result: list[Row]


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


@dataclass
class _Moment:
    """What one moment's answer says of one server."""

    values: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    busy: list[float] = field(default_factory=list)

    def take(self, metric: Mapping[str, str], value: float) -> None:
        """Take one number."""
        name = metric.get(promql.SIGNAL, "")
        if name == "worker_class":
            self.classes[metric.get("worker_class", "")] = value
        elif name == "busy_by_worker":
            self.busy.append(value)
        else:
            self.values[name] = value


@dataclass(frozen=True)
class _Past:
    """What is known of one server's past."""

    points: Sequence[trends.Point] = ()
    memory: Sequence[trends.Memory] = ()


class Prometheus:
    """Reads signals of all servers of a job.

    Args:
        url: of Prometheus, whatever stands before /api/v1 included.
        job: of the servers.
        window: seconds of the rules' minute.
        seconds: until an answer has to be there.
        idle: seconds that `quiet_peak` looks back.
    """

    def __init__(
        self,
        url: str,
        job: str = "sightline",
        window: float = WINDOW_SECONDS,
        seconds: float = ANSWER_SECONDS,
        idle: float = Limits.idle_seconds,
    ) -> None:
        self.url, self.job, self.window, self.seconds, self.idle = url.rstrip("/"), job, window, seconds, idle

    def read(self, now: float) -> list[Signals]:
        """Return the signals of now, by Prometheus' own clock: only the ages that it tells are believed.

        Raises:
            ReadError: nobody answers, or there is nothing of this job.
        """
        return self._one(self._ask("query", query=promql.numbers(self.job, self.window)), now)

    def at(self, moment: float) -> list[Signals]:
        """Return the signals of a recorded moment.

        Raises:
            ReadError: nobody answers, or there is nothing of this job.
        """
        asked = promql.numbers(self.job, self.window)
        return self._one(self._ask("query", query=asked, time=f"{moment:.3f}"), moment)

    def range(self, start: float, end: float, step: float) -> dict[float, list[Signals]]:
        """Return the signals of a recorded range, at each step at which there are some.

        Raises:
            ReadError: nobody answers, or there is nothing of this job.
        """
        step = max(step, (end - start) / MOST_STEPS)
        rows = self._between(promql.numbers(self.job, self.window), start, end, step)
        past = self._past(start, end)
        found: dict[float, list[Signals]] = {}
        for time, servers in sorted(_moments(rows).items()):
            if signals := self._assembled(servers, past, time, time)[0]:
                found[time] = signals
        if not found:
            raise ReadError(f"{named(self.url)}: has nothing of the job {self.job!r} in that range")
        return found

    def _one(self, rows: Sequence[Row], now: float) -> list[Signals]:
        moments = _moments(rows)
        theirs = max(moments, default=0.0)
        servers = moments.get(theirs, {})
        if not any("workers_live" in server.values for server in servers.values()):
            raise ReadError(f"{named(self.url)}: knows no server of the job {self.job!r} that is up")
        found, missing = self._assembled(servers, self._past(theirs, theirs), theirs, now)
        if not found:
            raise ReadError(f"{named(self.url)}: {self._why_not(missing)}")
        return found

    def _why_not(self, missing: Sequence[str]) -> str:
        lacking = [name for name in missing if name != WHOLE]
        if not lacking:
            return f"has known the servers for less than {self.window:g} s"
        return f"does not know {', '.join(lacking)} yet: are the rules of monitoring/prometheus/rules loaded?"

    def _assembled(
        self, servers: Mapping[str, _Moment], past: Mapping[str, _Past], theirs: float, now: float
    ) -> tuple[list[Signals], list[str]]:
        """Make signals of each server of which enough is known; return them, and what others lack."""
        found: list[Signals] = []
        missing: dict[str, None] = {}
        everywhere = servers[""].values if "" in servers else {}
        # what is the job's own is under no name, and a server that has gone shows no workers
        up = {name: moment for name, moment in servers.items() if name and "workers_live" in moment.values}
        for server, moment in sorted(up.items()):
            numbers = self._numbers(moment, everywhere, past.get(server, _Past()), theirs)
            if numbers.missing:
                missing |= dict.fromkeys(numbers.missing)
            else:
                found.append(assemble(server, now, numbers, self.window, len(up)))
        return found, list(missing)

    def _numbers(self, moment: _Moment, everywhere: Mapping[str, float], past: _Past, theirs: float) -> Numbers:
        window, lives = self.window, theirs - LEAK_WINDOWS * self.window
        points = [each for each in past.points if theirs - LOOK_BACK_WINDOWS * window <= each.time <= theirs]
        return Numbers(
            {**everywhere, **moment.values},
            max(moment.classes, key=lambda name: moment.classes[name], default=""),
            tuple(moment.busy),
            low_seconds=trends.low_seconds(points, window),
            quiet_peak=trends.quiet_peak(points, self.idle, window),
            busy_before=trends.value_before(points, theirs - RISING_WINDOWS * window, window),
            busy_window_ago=trends.value_before(points, theirs - window, window),
            leak_bytes=trends.leak((each for each in past.memory if lives <= each.time <= theirs), window),
        )

    def _past(self, start: float, end: float) -> dict[str, _Past]:
        """Ask for all that signals between two moments look back at."""
        window = self.window
        back = start - LOOK_BACK_WINDOWS * window
        rows = self._between(promql.trend(self.job), back, end, window / _TREND_STEPS)
        points: dict[str, list[trends.Point]] = defaultdict(list)
        for time, servers in sorted(_moments(rows).items()):
            for server, moment in servers.items():
                if "busy" in moment.values:
                    queue = queue_of(moment.values, "", window).seconds
                    known = moment.values
                    points[server].append(trends.Point(time, known["busy"], queue, known.get("in_flight")))
        memory = self._memory(start - LEAK_WINDOWS * window, end)
        return {server: _Past(points[server], memory.get(server, ())) for server in points.keys() | memory.keys()}

    def _memory(self, start: float, end: float) -> dict[str, list[trends.Memory]]:
        rows = self._between(promql.memory(self.job), start, end, _LEAK_STEP_WINDOWS * self.window)
        by: dict[tuple[str, str, str], dict[float, float]] = {}
        for row in rows:
            key = (row.metric.get("instance", ""), row.metric.get("worker", ""), row.metric.get(promql.SIGNAL, ""))
            by[key] = dict(row.samples)
        found: dict[str, list[trends.Memory]] = defaultdict(list)
        for (server, slot, signal), sizes in by.items():
            if signal == "size":
                started = by.get((server, slot, "started"), {})
                found[server] += [trends.Memory(slot, started[at], at, sizes[at]) for at in sizes if at in started]
        return found

    def _between(self, query: str, start: float, end: float, step: float) -> list[Row]:
        """Ask for a range whose steps end at its end."""
        steps = ceil((end - start) / step)
        times = {"start": f"{end - steps * step:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return self._ask("query_range", query=query, **times)

    def _ask(self, path: str, **form: str) -> list[Row]:
        """Ask the API.

        Raises:
            ReadError: there is no such answer.
        """
        form["timeout"] = f"{self.seconds:g}s"
        status, body = ask(f"{self.url}/api/v1/{path}", form, self.seconds)
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ReadError(f"{named(self.url)}: {_no_prometheus(status)}") from None
        if status != 200 or answer.status != "success" or answer.data is None:
            told = " ".join(answer.error.split())[:_LONGEST_ERROR] or "without a reason"
            raise ReadError(f"{named(self.url)}: refuses with {status}: {ascii(told)[1:-1]}")
        return answer.data.result


def _no_prometheus(status: int) -> str:
    return f"answers {status}, and nothing that Prometheus would" if status != 200 else "answers, but is no Prometheus"


def _moments(rows: Sequence[Row]) -> dict[float, dict[str, _Moment]]:
    """Sort an answer by time and by server; what is the whole job's is under no name."""
    found: dict[float, dict[str, _Moment]] = {}
    for row in rows:
        server = row.metric.get("instance", "")
        for time, value in row.samples:
            found.setdefault(time, {}).setdefault(server, _Moment()).take(row.metric, value)
    return found
