"""The numbers at which alerts fire, read out of Prometheus' rules: a changed rule changes the line in the graph."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from pathlib import Path
from typing import Any, Final

import yaml

from scripts import objectives

RULES: Final = Path(__file__).parents[1] / "monitoring/prometheus/rules"
PROMISED: Final = {each.name: each for each in objectives.load(RULES.parents[1] / "slo.yml").objectives}
AVAILABILITY: Final = PROMISED["availability"]
LATENCY: Final = PROMISED["latency"]
PROBES: Final = AVAILABILITY.leave_out  # routes whose requests are nobody's
# Grafana colours a value that meets a threshold, and a rule that says `> 0` fires for one that exceeds it.
JUST_ABOVE_ZERO: Final = 0.001
WHOLE: Final = 1.0  # a share of those of whom an alert misses a single one

_NO_CODE = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]')  # strings, selectors, windows
_COMPARISON = re.compile(r"(?:[<>]=?|[!=]=)\s*(?:bool\s+)?(\d[\d.]*(?:\s*\*\s*\d[\d.]*)*)(?![\w.])")


class Ambiguous(ValueError):
    """A rule's expression has not exactly one number that fits."""


@dataclass(frozen=True)
class Limits:
    """From where on a value is worth a warning, and from where on it is bad."""

    warning: float | None = None
    critical: float | None = None
    below: bool = False


def above(warning: float | None = None, critical: float | None = None) -> Limits:
    """Bound a value from above."""
    return Limits(warning, critical)


def below(warning: float | None = None, critical: float | None = None) -> Limits:
    """Bound a value from below."""
    return Limits(warning, critical, below=True)


def limit(alert: str, severity: str, of: str = "", rules: Path = RULES) -> float:
    """Return the number with which an alert compares.

    Args:
        alert: its name.
        severity: that of the rule, if the alert has several.
        of: part of what is compared; empty for a comparison that stands in no parentheses.
        rules: the directory of the rules.

    Raises:
        Ambiguous: there is not exactly one.
    """
    found = limits(alert, severity, of, rules)
    if len(found) != 1:
        raise Ambiguous(f"{alert} ({severity}) compares {of or 'what it says'} with {sorted(found) or 'no number'}")
    return found.pop()


def failed(severity: str, window: str) -> float:
    """Return the share of failed requests at which the objective's budget burns so fast that its alert fires.

    Args:
        severity: that of the rule.
        window: over which it looks, such as 1h.
    """
    factor = limit("SloAvailabilityBurning", severity, f"slo_burn:rate{window}")
    return float(Decimal(str(factor)) * AVAILABILITY.budget)


def slow() -> float:
    """Return the seconds that the objective of latency allows."""
    if not isinstance(LATENCY, objectives.Latency):
        raise Ambiguous("the objective of latency has no threshold")
    return LATENCY.threshold


def limits(alert: str, severity: str, of: str = "", rules: Path = RULES) -> set[float]:
    """Return all numbers with which an alert compares what `of` names."""
    return {
        number
        for rule in _rules(rules)
        if rule.get("alert") == alert and rule["labels"]["severity"] == severity
        for left, depth, number in _comparisons(rule["expr"])
        if (of in left if of else depth == 0)
    }


def _rules(directory: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(directory.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def _comparisons(expression: str) -> Iterator[tuple[str, int, float]]:
    """Yield the text before each comparison with a number, how deep in parentheses it stands, and the number."""
    code = _NO_CODE.sub(lambda found: " " * len(found[0]), expression)
    start = 0
    for found in _COMPARISON.finditer(code):
        before = code[: found.start()]
        number = prod(float(factor) for factor in found[1].split("*"))
        yield expression[start : found.start()], before.count("(") - before.count(")"), number
        start = found.end()
