"""Fits the model of a server to what real ones did, and says how well it fits.

Measured on two cores with 32 clients who each send the next request as soon as the last is answered, gunicorn's sync
workers. The first table fits the model; the second, of requests that wait, is only compared with it.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.prove_tuning.queueing import Machine, Work, closed_loop

CORES: Final = 2.0
CLIENTS: Final = 32
# workers -> requests a second
COMPUTING: Final = {1: 52.0, 2: 81.0, 4: 97.0, 8: 93.0, 16: 90.0}  # 20 ms of CPU each
WAITING: Final = {2: 25.0, 16: 158.0, 32: 284.0}  # 2 ms of CPU and 98 ms of waiting each
WAITING_WORK: Final = Work(cpu=0.002, wait=0.098)


@dataclass(frozen=True)
class Fit:
    """What was fitted.

    Args:
        cpu: seconds that the request of nominally 20 ms takes.
        machine: two cores with the other two numbers.
        error: mean of the relative errors of the throughputs that it was fitted to.
    """

    cpu: float
    machine: Machine
    error: float

    def on(self, cores: float) -> Machine:
        """Return a machine of the same kind with so many cores."""
        return Machine(cores, self.machine.sharpness, self.machine.switching)

    def table(self) -> list[dict[str, float | str]]:
        """Return each measurement beside what the model says."""
        rows = [("computing", workers, seen, Work(self.cpu, 0.0)) for workers, seen in COMPUTING.items()]
        rows += [("waiting", workers, seen, WAITING_WORK) for workers, seen in WAITING.items()]
        return [
            {
                "load": load,
                "workers": workers,
                "measured": seen,
                "model": round(closed_loop(self.machine, workers, work, CLIENTS), 1),
            }
            for load, workers, seen, work in rows
        ]


def fit() -> Fit:
    """Search for the numbers with the least error, on a grid and then on two finer ones around the best."""
    cpu, sharpness, switching = 0.020, 4.0, 0.02
    for width in (1.0, 0.3, 0.1):
        grid = itertools.product(_around(cpu, 0.2 * width), _around(sharpness, 0.7 * width), _around(switching, width))
        cpu, sharpness, switching = min(grid, key=lambda point: _error(*point))
    return Fit(cpu, Machine(CORES, sharpness, switching), _error(cpu, sharpness, switching))


def _around(middle: float, width: float) -> Iterable[float]:
    return [middle * (1 + width * step / 3) for step in range(-3, 4)]


def _error(cpu: float, sharpness: float, switching: float) -> float:
    machine = Machine(CORES, sharpness, switching)
    found = [
        abs(closed_loop(machine, workers, Work(cpu, 0.0), CLIENTS, requests=400) / seen - 1)
        for workers, seen in COMPUTING.items()
    ]
    return sum(found) / len(found)
