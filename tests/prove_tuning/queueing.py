"""A server as a queue: workers that take one request at a time, and cores that they share.

Requests are taken in the order of their arrival by whichever worker is free first (Kiefer and Wolfowitz, 1955). What a
request costs depends on how many others compute at the time: on a few cores each of them gets its share, and switching
between many costs something on top. The three numbers that say how much are fitted to measurements: calibration.py.
"""

import heapq
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

IDLE: Final = 0.0


@dataclass(frozen=True)
class Machine:
    """What workers run on.

    Args:
        cores: how many can compute at the same time.
        sharpness: how suddenly computing becomes slower as it reaches the cores; infinity would be at once.
        switching: share of CPU time that each one beyond the cores adds to every request.
    """

    cores: float
    sharpness: float
    switching: float

    @cached_property
    def alone(self) -> float:
        """The same where one computes."""
        return self.slowdown(1.0)

    def slowdown(self, computing: float) -> float:
        """Return how much longer computing takes while so many compute, this one included."""
        shared = (1 + (computing / self.cores) ** self.sharpness) ** (1 / self.sharpness)
        return shared * (1 + self.switching * max(0.0, computing - self.cores))


@dataclass(frozen=True)
class Work:
    """What a request needs: seconds on a CPU, and seconds of waiting for others."""

    cpu: float
    wait: float

    @property
    def alone(self) -> float:
        """Seconds that it takes on a server with nothing else to do."""
        return self.cpu + self.wait


@dataclass
class Server:
    """Workers of one slot each, as a heap of the times at which they are free.

    Args:
        machine: what they share.
        workers: how many there are at first.
    """

    machine: Machine
    workers: int
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited_for_cpu: float = 0.0
    _free: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = [IDLE] * self.workers

    def add(self, ready: float) -> None:
        """Start one more worker, which takes requests from a time on."""
        self.workers += 1
        heapq.heappush(self._free, ready)

    def remove(self) -> None:
        """Let one worker go: the one that is free first takes no further request."""
        self.workers -= 1
        heapq.heappop(self._free)

    def next_free(self) -> float:
        """Return when the next worker is free."""
        return self._free[0]

    def busy(self, now: float) -> int:
        """Return how many workers have a request, or still boot."""
        return sum(each > now for each in self._free)

    def serve(self, arrival: float, work: Work) -> tuple[float, float]:
        """Take one request; arrivals must not go back in time. Returns when it began, and when it ended."""
        start = max(arrival, self._free[0])
        share = work.cpu / work.alone
        computing = 1 + share * sum([each > start for each in self._free])
        cpu = work.cpu * self.machine.alone
        contended = work.cpu * self.machine.slowdown(computing)
        end = start + work.wait + contended
        heapq.heapreplace(self._free, end)
        self.busy_seconds += end - start
        self.cpu_seconds += cpu
        self.waited_for_cpu += contended - cpu
        return start, end


def closed_loop(machine: Machine, workers: int, work: Work, clients: int, requests: int = 4000) -> float:
    """Return the throughput of clients who each send a request as soon as the last is answered, per second."""
    server = Server(machine, workers)
    due = [IDLE] * clients
    for _ in range(requests):
        _, end = server.serve(heapq.heappop(due), work)
        heapq.heappush(due, end)
    return requests / max(due)
