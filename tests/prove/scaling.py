"""The shipped rules and routes with shorter durations, so that an hour passes in a minute.

One factor holds for all: a duration becomes a sixtieth, but never shorter than 20 s, and what is that short already
stays as it is. So 15 s stay 15 s, 30 s to 20 min become 20 s, an hour becomes a minute. Below 20 s a window would hold
too few scrapes for a rate to mean anything, and a `for` would no longer outlast a single bad scrape.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

FACTOR: Final = 60
FLOOR_SECONDS: Final = 20
EVERY: Final = "1s"  # scrapes and evaluations
SLO: Final = "slo.yml"  # has durations of its own for this, in the demo set of its data file

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION: Final = re.compile(r"(\d+)(ms|[smhdwy])")
_WHOLE: Final = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_IN_PROMQL: Final = re.compile(r"\[[^\]]+\]|\boffset\s+\w+")  # windows, subqueries' steps, offsets
_TEXT: Final = re.compile(r'("[^"]*")')

# Seconds that an expression compares with are numbers, and no pattern finds those that are durations. What is not here
# stays as it is: ages of a request or a heartbeat, which a fault has to reach in earnest; times of an answer; dates.
AGES: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "MemoryLeaking": (
        ("6 * 3600 *", "6 * 60 *", "the time ahead, as far as the window behind it is"),
        ("> 3600", "> 60", "the age at which a worker had been warm for a whole window"),
    ),
    "ServerEndedUnasked": (("< 300", "< 20", "how long the end is told of: a window in all but its form"),),
}


def seconds(duration: str) -> float:
    """Return a duration of Prometheus, such as 1h30m, in seconds."""
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def scaled(duration: str) -> str:
    """Return a duration by the one rule."""
    length = seconds(duration)
    shorter = max(length / FACTOR, min(length, FLOOR_SECONDS))
    return f"{round(shorter * 1000)}ms" if shorter % 1 else f"{round(shorter)}s"


def promql(expression: str) -> str:
    """Scale the windows, steps and offsets of an expression, and nothing within quotes."""
    parts = _TEXT.split(expression)
    return "".join(part if part.startswith('"') else _IN_PROMQL.sub(_scaled_within, part) for part in parts)


def durations(expression: str) -> list[str]:
    """Return the windows, steps and offsets of an expression."""
    parts = [part for part in _TEXT.split(expression) if not part.startswith('"')]
    return [each for part in parts for found in _IN_PROMQL.findall(part) for each in _WHOLE.findall(found)]


def _scaled_within(found: re.Match[str]) -> str:
    return _WHOLE.sub(lambda each: scaled(each[0]), found[0])


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    expression = promql(rule["expr"])
    for old, new, _ in AGES.get(rule.get("alert", ""), ()):
        if old not in expression:
            raise ValueError(f"the rule {rule['alert']} no longer has {old!r}, which is scaled to {new!r}")
        expression = expression.replace(old, new)
    return {**rule, "expr": expression, **({"for": scaled(rule["for"])} if "for" in rule else {})}


def rules(source: Path, target: Path, demo: Path) -> None:
    """Write scaled copies of a directory's rules; the objectives come as their demo set."""
    target.mkdir(parents=True)
    for path in sorted(source.glob("*.yml")):
        if path.name == SLO:
            (target / SLO).write_text(demo.read_text())
            continue
        groups = yaml.safe_load(path.read_text())["groups"]
        found = [{**group, "interval": EVERY, "rules": [_rule(rule) for rule in group["rules"]]} for group in groups]
        (target / path.name).write_text(yaml.safe_dump({"groups": found}, sort_keys=False))


def route(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Scale how long Alertmanager waits and repeats, in a route and those below it."""
    waits = {key: scaled(value) for key, value in tree.items() if key.endswith(("_wait", "_interval"))}
    below = {"routes": [route(each) for each in tree["routes"]]} if "routes" in tree else {}
    return {**tree, **waits, **below}
