"""The service level objectives' data file, read and checked: a bad value is one line that names its key.

docs/slo.md says what the keys mean.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from observability.catalogue import DURATION_BUCKETS
from scripts.problem import Problem

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_INTERVAL = 120  # Prometheus forgets a series that is not written for five minutes

# What a key takes; of one that holds others, which those are.
TAKES = {
    "": "job, objectives, production and demo",
    "job": "the job's name in Prometheus",
    "objectives": "a list, of each: name, kind, objective, leave_out, and for latency threshold",
    "name": "small letters, digits and dashes, unlike any other objective's",
    "kind": "availability or latency",
    "objective": "a percentage above 0 and below 100, such as 99.9",
    "threshold": "seconds, one of the buckets' bounds " + ", ".join(f"{bound:g}" for bound in DURATION_BUCKETS),
    "leave_out": "a list of routes, as the label http_route has them",
    "production": "period, interval and windows",
    "demo": "period, interval and windows",
    "period": "a duration such as 30d, at least the longest window",
    "interval": "a duration such as 15s, at most 2m and half the shortest window",
    "windows": "a list, of each: severity, long, short, factor, for and requests",
    "severity": "critical or warning",
    "long": "a duration such as 1h, longer than short, and unlike any other window's",
    "short": "a duration such as 5m",
    "factor": "a number above 0, such as 14.4, that leaves factor x (100 % - objective) below 100 %",
    "for": "a duration such as 2m",
    "requests": "a whole number from 0: the fewest requests in the long window",
}

Duration = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,5}[smhd]\Z")]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Objective(_Part, frozen=True, tag_field="kind"):
    """So many percent of the requests are good."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*\Z")]
    objective: Annotated[float, Meta(gt=0, lt=100)]
    leave_out: tuple[str, ...] = ()

    @property
    def budget(self) -> Decimal:
        """The share of requests that may be bad, without the noise of binary fractions."""
        return (100 - Decimal(str(self.objective))) / 100


class Availability(Objective, frozen=True, tag="availability"):
    """A request is good if it does not fail."""


class Latency(Objective, frozen=True, kw_only=True, tag="latency"):
    """A request that does not fail is good if it takes at most `threshold` seconds."""

    threshold: float


class Window(_Part, frozen=True, rename={"hold": "for"}):
    """Two windows over which the budget has to burn `factor` times too fast for an alert."""

    severity: Literal["critical", "warning"]
    long: Duration
    short: Duration
    factor: Annotated[float, Meta(gt=0)]
    hold: Duration
    requests: Annotated[int, Meta(ge=0)]


class Policy(_Part, frozen=True):
    """How long a budget is to last, and when it is told that it will not."""

    period: Duration
    interval: Duration
    windows: Annotated[tuple[Window, ...], Meta(min_length=1)]

    @property
    def spans(self) -> list[str]:
        """All windows, the shortest first."""
        return sorted({each for window in self.windows for each in (window.short, window.long)}, key=seconds)


class Data(_Part, frozen=True):
    """What the data file says."""

    job: Annotated[str, Meta(min_length=1)]
    objectives: Annotated[tuple[Availability | Latency, ...], Meta(min_length=1)]
    production: Policy
    demo: Policy


def seconds(duration: str) -> int:
    """Return a duration in seconds."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


def load(path: Path) -> Data:
    """Read the data file.

    Raises:
        Problem: it cannot be read, or a value makes no sense.
    """
    try:
        raw = yaml.safe_load(path.read_text())
        data = msgspec.convert(raw, Data)
    except OSError as error:
        raise Problem(f"{path.name} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise Problem(f"{path.name} is no YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise Problem(f"{path.name}: {_explain(str(error), raw)}") from None
    for key in _senseless(data):
        raise Problem(f"{path.name}: {_refuse(key, raw)}")
    return data


def _explain(message: str, raw: object) -> str:
    """Say in the file's terms what msgspec found."""
    what, _, place = message.partition(" - at `$")
    place = place.strip("`.")
    field = re.search(r"field `(.+)`", what)
    if field and "missing" in what:
        return f"{f'{place}.{field[1]}'.strip('.')} is missing; it takes {TAKES[field[1]]}"
    if field:
        return f"{f'{place}.{field[1]}'.strip('.')} is not known here; {place or 'the file'} takes {TAKES[_key(place)]}"
    return _refuse(place, raw)


def _refuse(place: str, raw: Any) -> str:
    for name, index in re.findall(r"([a-z_]+)|\[(\d+)\]", place):
        raw = raw[name] if name else raw[int(index)]
    got = "empty" if raw in (None, "", [], {}) else repr(raw) if not isinstance(raw, dict | list) else "not that"
    return f"{place or 'the file'} is {got}, but takes {TAKES[_key(place)]}"


def _key(place: str) -> str:
    return re.sub(r"\[\d+\]", "", place).rpartition(".")[2]


def _senseless(data: Data) -> Iterator[str]:
    """Yield the place of each value that makes no sense beside the others."""
    names: set[str] = set()
    for index, objective in enumerate(data.objectives):
        if objective.name in names:
            yield f"objectives[{index}].name"
        if isinstance(objective, Latency) and objective.threshold not in DURATION_BUCKETS:
            yield f"objectives[{index}].threshold"
        names.add(objective.name)
    most = max(objective.budget for objective in data.objectives)
    for name, policy in (("production", data.production), ("demo", data.demo)):
        yield from _senseless_windows(name, policy, most)


def _senseless_windows(name: str, policy: Policy, budget: Decimal) -> Iterator[str]:
    longs: set[int] = set()
    for index, window in enumerate(policy.windows):
        long = seconds(window.long)
        if long <= seconds(window.short) or long in longs:
            yield f"{name}.windows[{index}].long"
        if not Decimal(str(window.factor)) * budget < 1:  # else no share of requests could exceed it
            yield f"{name}.windows[{index}].factor"
        longs.add(long)
    if seconds(policy.period) < max(longs):
        yield f"{name}.period"
    if seconds(policy.interval) > min(LONGEST_INTERVAL, seconds(policy.spans[0]) // 2):
        yield f"{name}.interval"
