"""What the signals amount to: how much work there is, what waits, and how near the CPU is to its end."""

import math

from observability.tuning.model import SLOTTED, THREADED, Signals
from observability.tuning.thresholds import CPU_FULL, HALF, SATURATED, THROTTLED

_LONGEST_LINE = 10_000  # slots; among so many none is short by chance
_FIVE_OF_100 = 0.05
_UNANSWERED = 60.0  # seconds that requests wait, at least, where none was answered in a whole window


def slots(signals: Signals) -> float:
    """Return how many requests all workers can take at a time."""
    return max(1.0, signals.slots) * max(1, signals.workers_target)


def slots_with_one_less(signals: Signals) -> float:
    """Return how many they could take with one worker less."""
    return max(1.0, signals.slots) * (max(1, signals.workers_target) - 1)


def waiting(signals: Signals) -> float:
    """Return how many requests and connections wait for a slot."""
    return signals.queued + signals.backlog


def demand(signals: Signals) -> float:
    """Return how many requests are there at a time, in service or waiting: the slots that they would fill at once.

    The rate answered is only what full workers could take. By Little's law rate x service time is what is in service,
    so what waits is added to it.
    """
    served = signals.requests_per_second * (signals.service_seconds or 0.0)
    return max(signals.in_flight, served) + waiting(signals)


def arrivals(signals: Signals) -> float:
    """Return the requests a second that would be answered if none had to wait."""
    if not signals.service_seconds or not waiting(signals):
        return signals.requests_per_second
    return max(signals.requests_per_second, demand(signals) / signals.service_seconds)


def queue(signals: Signals) -> float:
    """Return Q in seconds; where nobody measured it, from what waits: Little's law gives the mean."""
    if signals.queue_p95 is not None:
        return signals.queue_p95
    if not waiting(signals):
        return 0.0
    rate = signals.requests_per_second
    return waiting(signals) / rate if rate > 0 else _UNANSWERED


def cores_used(signals: Signals) -> float:
    """Return the cores that the workers use."""
    return signals.cpu_share * signals.cores


def whole_cores(signals: Signals) -> int:
    """Return the cores, a part of one counted as one."""
    return max(1, math.ceil(signals.cores))


def cores_beyond(signals: Signals) -> int:
    """Return the most workers that work on the CPU may have: the cores, and one try."""
    return whole_cores(signals) + 1


def computes(signals: Signals) -> bool:
    """Tell whether a request computes, or waits for a CPU to do so, nearly all of its time, as far as one knows."""
    if not signals.service_seconds or signals.cpu_seconds_per_request is None:
        return False
    return (1 + signals.run_queue) * signals.cpu_seconds_per_request >= CPU_FULL * signals.service_seconds


def waits_for_cpu(signals: Signals) -> bool:
    """Tell whether a request spends half of its time and more waiting for a CPU, as far as one knows."""
    if not signals.service_seconds or signals.cpu_seconds_per_request is None:
        return False
    return signals.run_queue * signals.cpu_seconds_per_request >= HALF * signals.service_seconds


def share_of_core(signals: Signals) -> float:
    """Return how much a worker uses of the CPU that it can have at most: one core, or its part of too few."""
    workers = max(1, signals.workers_target)
    return cores_used(signals) / (workers * min(1.0, signals.cores / workers)) if signals.cores > 0 else 0.0


def throttled(signals: Signals) -> bool:
    """Tell whether the quota stops the server often."""
    return signals.throttled >= THROTTLED


def looped(signals: Signals) -> bool:
    """Tell whether the workers are event loops, whose slots do not run out."""
    return signals.worker_class not in SLOTTED


def threaded(signals: Signals) -> bool:
    """Tell whether a worker's slots are threads."""
    return signals.worker_class in THREADED


def slots_taken(signals: Signals) -> bool:
    """Tell whether the slots are what is short, whatever they are."""
    return signals.in_flight >= SATURATED * slots(signals)


def wait_by_chance(slots: float, demand: float, service_seconds: float) -> float:
    """Return the seconds that 95 of 100 requests wait at most, where they come at random moments: Erlang's C formula.

    In a queue M/M/c a share C of the requests has to wait, and exp(-(slots - demand) x t / service time) of these
    longer than t. C follows from Erlang's B, which is reckoned slot by slot: A. K. Erlang, "Solution of some Problems
    in the Theory of Probabilities of Significance in Automatic Telephone Exchanges" (1917); I. Angus, "An Introduction
    to Erlang B and Erlang C" (2001). Where service times vary less than an exponential distribution, waits are shorter.

    Args:
        slots: how many requests are served at the same time.
        demand: how many there are in service, in the mean.
        service_seconds: the mean.
    """
    if demand >= slots:
        return math.inf
    if slots > _LONGEST_LINE:
        return 0.0
    blocked = 1.0
    for slot in range(1, int(slots) + 1):
        blocked = demand * blocked / (slot + demand * blocked)
    waiting = blocked / (1 - demand / slots * (1 - blocked))
    if waiting <= _FIVE_OF_100:
        return 0.0
    return math.log(waiting / _FIVE_OF_100) * service_seconds / (slots - demand)
