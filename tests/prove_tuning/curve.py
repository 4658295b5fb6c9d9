"""A day of load: quiet nights, two humps and an evening, and bursts that nobody announced."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.prove_tuning.queueing import Work

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
_HUMPS: Final = ((10.5, 2.0, 1.0), (15.5, 2.2, 0.9), (20.5, 1.5, 0.7))  # hour, width in hours, height


@dataclass(frozen=True)
class Burst:
    """More load than the hour has, for some minutes."""

    start: float
    seconds: float
    factor: float


@dataclass(frozen=True)
class Curve:
    """Requests a second over a day.

    Args:
        low: at night.
        high: at the highest hump, without bursts.
        bursts: what comes on top.
    """

    low: float
    high: float
    bursts: tuple[Burst, ...]

    def rate(self, time: float) -> float:
        """Return the requests a second at a time in seconds since midnight."""
        hour = time / HOUR
        humps = max(height * math.exp(-(((hour - at) / width) ** 2)) for at, width, height in _HUMPS)
        factor = max((each.factor for each in self.bursts if 0 <= time - each.start < each.seconds), default=1.0)
        return (self.low + (self.high - self.low) * humps) * factor


def bursts(chance: random.Random, count: int) -> tuple[Burst, ...]:
    """Return bursts of 3 to 15 minutes, of 1.3 to 1.8 times the load, at any time."""
    return tuple(
        Burst(chance.uniform(0, DAY), chance.uniform(180, 900), chance.uniform(1.3, 1.8)) for _ in range(count)
    )


def arrivals(curve: Curve, chance: random.Random, start: float = 0.0, end: float = DAY) -> Iterator[float]:
    """Yield the times of a Poisson process whose rate is the curve's, taken anew each second."""
    begin = start
    while begin < end:
        rate, limit = curve.rate(begin), min(math.floor(begin) + 1.0, end)
        now = begin + chance.expovariate(rate)
        while now < limit:
            yield now
            now += chance.expovariate(rate)
        begin = limit  # without memory: begin anew at the second's end


def works(mean: Work, chance: random.Random) -> Iterator[Work]:
    """Yield what each request needs: half of it always, the other half as an exponential distribution has it."""
    while True:
        factor = 0.5 + 0.5 * chance.expovariate(1.0)
        yield Work(mean.cpu * factor, mean.wait * factor)
