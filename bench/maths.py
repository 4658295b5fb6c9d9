"""The few formulas that raw rounds become results by."""

import math
import statistics
from collections.abc import Mapping, Sequence


def ratios(rounds: Sequence[Mapping[str, float]], name: str, base: str) -> list[float]:
    """Return one variant's number divided by another's of the same round, for each round that has both."""
    return [each[name] / each[base] for each in rounds if each.get(base) and name in each]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each variant's median over the rounds that have it."""
    names = dict.fromkeys(name for each in rounds for name in each)
    return {name: statistics.median(each[name] for each in rounds if name in each) for name in names}


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the quartiles; of fewer than two values, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the exponent k of the power law y = c * x^k that fits best: least squares on logarithms.

    0 says that y does not depend on x, and 1 that it grows as x does.

    Raises:
        ValueError: fewer than two different x, or one that has no logarithm.
    """
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    return float(statistics.linear_regression(xs, ys).slope)
