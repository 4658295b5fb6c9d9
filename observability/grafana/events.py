"""What is worth an annotation: reloads, deploys, deaths of workers, decisions of the tuner, each window by itself.

A window is a stretch of time of fixed length, aligned to the epoch. All events of a kind and a job in it make one
annotation, however many they are, deploys one for each environment; and whoever looks at the same window finds the
same.
"""

import html
import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from observability import catalogue
from observability.grafana.prometheus import Prometheus, Series
from observability.top.cells import printable

LOOK_BACK = 300.0  # seconds in which a series' sample before the window is found: Prometheus' own lookback delta
TAG = "sightline"
RELOAD, DEPLOY, DEATH, TUNER = "reload", "deploy", "worker-death", "tuner"
MOST_JOBS = 50  # annotations of a kind in a window; more are counted in the last one's place
_MOST_NAMED = 5
_LONGEST_TAG = 90  # Grafana's column takes 100
_LONGEST_NAME = 120
_MOST_VERSIONS = 50
_MOST_JOBS_KNOWN = 500  # each environment of a job counts
_EXPECTED = "|".join(sorted(catalogue.EXPECTED_CAUSES))
_UP = "up"  # Prometheus' own: when it scraped which target, and whether that answered
_MOST_NEW = 100  # targets with a new counter whose scrapes are asked for at once: their names are in the address
_MOST_ASKED = 10  # times that scrapes are asked for in a stretch of time
_SELECTORS = {
    RELOAD: catalogue.RELOADS.name,
    DEATH: f'{catalogue.EXITS.name}{{cause!~"{_EXPECTED}"}}',
    TUNER: f'{catalogue.TUNER_DECISIONS.name}{{outcome!="none"}}',
    DEPLOY: f'{catalogue.TARGET_INFO.name}{{service_version!=""}}',
}


class Annotation(msgspec.Struct, frozen=True):
    """One annotation, as it waits and as it is sent.

    Args:
        kind: reload, deploy, worker-death, or tuner.
        window: Unix time in milliseconds at which the window begins.
        window_end: likewise, its end.
        start: when the first of the events may have begun.
        end: when the last of them was seen; within the window.
        tags: by which it is found; with the window, they are its key.
        text: what happened.
    """

    kind: str
    window: int
    window_end: int
    start: int
    end: int
    tags: list[str]
    text: str

    @property
    def key(self) -> tuple[int, int, tuple[str, ...]]:
        """What no two annotations share."""
        return self.window, self.window_end, tuple(sorted(self.tags))


Place = tuple[str, str]  # job and environment; no environment where it does not matter, or none is known
# By place, each version with the Unix time at which it was last seen.
Versions = dict[Place, dict[str, float]]


@dataclass(frozen=True)
class Record:
    """What Prometheus has of a stretch of time and some minutes before it.

    Args:
        series: by kind.
        left_out: targets whose first counts are not taken for events, since there were more than can be asked for.
    """

    series: dict[str, list[Series]]
    left_out: int = 0

    @classmethod
    def of(cls, prometheus: Prometheus, start: float, end: float) -> "Record":
        """Read it; scrapes only of targets with a counter that begins in it, since a fleet has very many of them.

        Raises:
            PrometheusError: Prometheus does not answer, or with more than is taken at once.
        """
        found = {kind: prometheus.series(each, start - LOOK_BACK, end) for kind, each in _SELECTORS.items()}
        counters = [each for kind in (RELOAD, DEATH, TUNER) for each in found[kind]]
        new = sorted({_target(each) for each in counters if each.samples and each.samples[0][0] > start})
        groups = [new[first : first + _MOST_NEW] for first in range(0, len(new), _MOST_NEW)]
        asked = [prometheus.series(_scrapes_of(each), start - LOOK_BACK, end) for each in groups[:_MOST_ASKED]]
        found[_UP] = [series for answer in asked for series in answer]
        return cls(found, sum(map(len, groups[_MOST_ASKED:])))

    def annotations(self, start: float, end: float, versions: Versions) -> list[Annotation]:
        """Return what happened in one window, (start, end], and bring the versions up to date."""
        made: list[Annotation] = []
        seen = _answered(self.series[_UP])
        for kind, say in ((RELOAD, _reloads), (DEATH, _deaths), (TUNER, _decisions)):
            made += _of_counters(kind, self.series[kind], seen, start, end, say)
        return made + _deploys(self.series[DEPLOY], start, end, versions)


@dataclass(frozen=True)
class _Event:
    labels: dict[str, str]
    begun: float
    seen: float
    number: int


Target = tuple[str, str]  # job and instance


def _target(series: Series) -> Target:
    return series.labels.get("job", ""), series.labels.get("instance", "")


def _scrapes_of(targets: list[Target]) -> str:
    jobs, instances = ("|".join(sorted({re.escape(each) for each in part})) for part in zip(*targets, strict=True))
    return f"{_UP}{{job=~{_quoted(jobs)},instance=~{_quoted(instances)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _answered(up: list[Series]) -> dict[Target, list[float]]:
    """Return by target when it answered a scrape."""
    return {_target(each): [time for time, value in each.samples if value == 1] for each in up}


def _of_counters(
    kind: str,
    series: list[Series],
    answered: dict[Target, list[float]],
    start: float,
    end: float,
    say: Callable[[list[_Event]], str],
) -> list[Annotation]:
    by_job: dict[Place, list[_Event]] = defaultdict(list)
    for each in series:
        if kind == TUNER and _goes_on(each, start):
            continue
        for begun, seen, more in [*_appearance(each, answered, start, end), *each.increases(start, end)]:
            if more >= 0.5:
                by_job[each.labels.get("job", ""), ""].append(_Event(each.labels, begun, seen, round(more)))
    return [_annotation(kind, start, end, job, found, say(found)) for job, found in _bounded(by_job)]


def _appearance(
    series: Series, answered: dict[Target, list[float]], start: float, end: float
) -> Iterator[tuple[float, float, float]]:
    """Yield a counter's first value as an increase, where its target answered before without having that counter."""
    if not series.samples or not start < series.samples[0][0] <= end:
        return
    time, value = series.samples[0]
    before = [each for each in answered.get(_target(series), ()) if each < time]
    if before and math.isfinite(value):
        yield before[-1], time, value


def _bounded(by_place: dict[Place, list[_Event]]) -> Iterator[tuple[Place, list[_Event]]]:
    places = sorted(by_place)
    for place in places[: MOST_JOBS - 1]:
        yield place, by_place[place]
    if rest := places[MOST_JOBS - 1 :]:
        yield _together(rest), [each for place in rest for each in by_place[place]]


def _together(places: list[Place]) -> Place:
    """Name several places as one."""
    if len(places) == 1:
        return places[0]
    jobs = {job for job, _ in places}
    return (f"{len(jobs)} jobs", "") if len(jobs) > 1 else (jobs.pop(), f"{len(places)} environments")


def _goes_on(series: Series, start: float) -> bool:
    """Tell whether advice that nobody takes is said again and again: once is enough."""
    advised = series.labels.get("outcome") == "recommended"
    return advised and any(True for _ in series.increases(start - LOOK_BACK, start))


def _annotation(kind: str, start: float, end: float, place: Place, found: list[_Event], text: str) -> Annotation:
    tags = [TAG, kind, *(tag(name, value) for name, value in zip(("job", "environment"), place, strict=True) if value)]
    begun, seen = min(each.begun for each in found), max(each.seen for each in found)
    return Annotation(kind, _ms(start), _ms(end), _ms(begun), _ms(seen), tags, text)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def tag(name: str, value: str) -> str:
    """Make a tag that Grafana keeps as it is: printable, on one line, not too long; another value has another one."""
    plain = f"{name}:{' '.join(printable(value).split())}"
    if plain == f"{name}:{value}" and len(plain) <= _LONGEST_TAG:
        return plain
    return f"{plain[: _LONGEST_TAG - 10]}~{sha256(value.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def _name(text: str) -> str:
    """Make a label's value safe to stand in a text, which Grafana shows as HTML."""
    return html.escape(printable(text)[:_LONGEST_NAME], quote=False)


def _counted(found: Counter[str]) -> str:
    """Write numbers by name, the largest first, as "timeout 3, killed 1"."""
    named = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    parts = [f"{_name(name)} {number}" for name, number in named[:_MOST_NAMED]]
    if rest := named[_MOST_NAMED:]:
        parts.append(f"{len(rest)} others {sum(number for _, number in rest)}")
    return ", ".join(parts)


def _by(label: str, found: list[_Event]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for each in found:
        counted[each.labels.get(label, "")] += each.number
    return counted


def _several(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _reloads(found: list[_Event]) -> str:
    by = _by("instance", found)
    return f"{_several(by.total(), 'reload', 'reloads')}: {_counted(by)}"


def _deaths(found: list[_Event]) -> str:
    by = _by("cause", found)
    return f"{_several(by.total(), 'worker', 'workers')} died: {_counted(by)}; on {_counted(_by('instance', found))}"


def _decisions(found: list[_Event]) -> str:
    counted: Counter[str] = Counter()
    for each in found:
        server, action, reason, outcome = (each.labels.get(x, "") for x in ("server", "action", "reason", "outcome"))
        counted[f"{action} for {reason} at {server}: {outcome}"] += each.number
    return f"{_several(counted.total(), 'decision', 'decisions')} of the tuner: {_counted(counted)}"


def _deploys(series: list[Series], start: float, end: float, versions: Versions) -> list[Annotation]:
    """Find versions of a job that are new to an environment, and remember which it has.

    A job that is seen there for the first time has deployed nothing. After a gap, what counts is what ran before it.
    """
    by_place: dict[Place, list[_Event]] = {}
    texts: dict[Place, str] = {}
    times = _times(series)
    _remember(series, start, versions)
    for place, by_version in _first_seen(series, start, end).items():
        before = set(versions.get(place, {}))
        new = {version: first for version, first in by_version.items() if version not in before}
        if before and new:
            texts[place] = _deploy(new, place[1], before)
            by_place[place] = [
                _Event({"job": place[0]}, _before(times[place], first), first, 1) for first in new.values()
            ]
    _remember(series, end, versions)
    return [
        _annotation(DEPLOY, start, end, place, found, texts.get(place) or f"Deploys of {_counted(_by('job', found))}")
        for place, found in _bounded(by_place)
    ]


def _deploy(new: Iterable[str], environment: str, before: Iterable[str]) -> str:
    now = " and ".join(map(_name, sorted(new)[:_MOST_NAMED]))
    where = f" to {_name(environment)}" if environment else ""
    return f"Deploy of {now}{where}, after {', '.join(map(_name, sorted(before)[:_MOST_NAMED]))}"


def _place(series: Series) -> Place:
    return series.labels.get("job", ""), series.labels.get("deployment_environment_name", "")


def _first_seen(series: list[Series], start: float, end: float) -> dict[Place, dict[str, float]]:
    """Return by place and version when it was first seen in the window."""
    found: dict[Place, dict[str, float]] = defaultdict(dict)
    for each in series:
        for time, _ in each.samples:
            if start < time <= end:
                there = found[_place(each)]
                version = each.labels.get("service_version", "")
                there[version] = min(time, there.get(version, time))
                break
    return found


def _times(series: list[Series]) -> dict[Place, list[float]]:
    """Return by place when any version was seen there, the earliest first."""
    found: dict[Place, set[float]] = defaultdict(set)
    for each in series:
        found[_place(each)].update(time for time, _ in each.samples)
    return {place: sorted(times) for place, times in found.items()}


def _before(times: list[float], first: float) -> float:
    """Return the last time before one; after a gap, that one itself, or a night without servers were a deploy."""
    at = bisect_left(times, first)
    return times[at - 1] if at and times[at - 1] > first - LOOK_BACK else first


def _remember(series: list[Series], end: float, versions: Versions) -> None:
    """Keep of each place the versions that it had lately, where "lately" ends with its own last sample."""
    for each in series:
        if times := [time for time, _ in each.samples if time <= end]:
            there = versions.setdefault(_place(each), {})
            version = each.labels.get("service_version", "")
            there[version] = max(times[-1], there.get(version, 0.0))
    for place, there in list(versions.items()):
        last = max(there.values())
        kept = sorted(there, key=lambda version: there[version])[-_MOST_VERSIONS:]
        versions[place] = {version: there[version] for version in kept if there[version] > last - LOOK_BACK}
    for place in sorted(versions, key=lambda place: max(versions[place].values()))[:-_MOST_JOBS_KNOWN]:
        del versions[place]
