"""What keeps a change from being made: ceilings, cool-downs, and signals that are no ground to stand on."""

import itertools
from dataclasses import dataclass

from observability.tuning import conditions, load, table, units
from observability.tuning.model import SLOTTED, Action, History, Limits, Outcome, Signals, Step
from observability.tuning.thresholds import (
    CPU_BOUND,
    HALF,
    MEMORY_HIGH,
    MEMORY_PLANNED,
    REQUESTS,
    REQUESTS_LEAST,
    SATURATED,
    TURNS,
)

UNDO = "undo"  # the rule of a step that took another back
MOST_WORKERS = 1024  # what WEB_CONCURRENCY takes
_HOUR = 3600.0
LONGEST_BOOT = 600.0
_OOM_SECONDS = 600.0  # how long a kill is seen in the signals: it is to cost one worker, not one a minute
LEARNED_FOR = 1.25  # times the demand: a worker too many for a small load may be one too few for a larger
_DOUBLINGS = 4  # of the cool-down: 10 min become 160 at most
_TAKEN_BACK_WITHIN = 3.0  # cool-downs: half an hour; a load that grows later is another
_TAKEN_BACK_FOR = 18.0  # cool-downs: three hours

VETOES = {
    "memory": "The row `memory` holds.",
    "cpu": "The row `starved` holds.",
    "errors": "The row `errors` holds.",
    "stuck": "The row `stuck` holds.",
    "cool_down": "The last change was less than 60 s ago, or less than twice what a worker takes to boot.",
    "limit": "There are as many workers as the least of all ceilings, or so many changes in the last hour that none "
    "would be left to take this one back.",
    "traffic": f"Fewer than {REQUESTS:.0f} requests in a minute (where slots are taken {units.percent(SATURATED)} of "
    f"the time: fewer than {TURNS:.0f} for each slot, or than {REQUESTS_LEAST:.0f}); or half the slots free, unless "
    "the row `few_slots` holds.",
    "unsettled": "Not as many workers live as are wanted, a reload is under way, or the last change is not judged yet.",
    "stale": "The signals are older than two scrapes, or make no sense.",
}


@dataclass(frozen=True)
class Hold:
    """One thing that keeps a change from being made.

    Args:
        veto: its name, one of VETOES.
        why: half a sentence with its numbers.
    """

    veto: str
    why: str


def ceiling(signals: Signals, limits: Limits, history: History, now: float) -> int:
    """Return the count that growth ends at: the least of all bounds."""
    return min(ceilings(signals, limits, history, now).values())


def ceilings(signals: Signals, limits: Limits, history: History, now: float) -> dict[str, int]:
    """Return every bound by what sets it."""
    bounds = {"what gunicorn takes": MOST_WORKERS}
    if limits.ceiling > 0:
        bounds["TUNER_MAX_WORKERS"] = limits.ceiling
    if (memory := _by_memory(signals)) is not None:
        bounds["memory"] = memory
    if (learned := _learned(signals, history, now)) > 0:
        bounds["what was learned"] = learned
    if signals.cpu_share >= CPU_BOUND or load.throttled(signals):
        bounds["the cores and one try"] = load.cores_beyond(signals)
    return bounds


def _by_memory(signals: Signals) -> int | None:
    """Return how many workers fit: by their size, and by what is in use now."""
    limit, each = signals.memory_limit, signals.worker_memory_p95
    if not limit or not each:
        return None
    by_size = (MEMORY_PLANNED * limit - (signals.master_memory or 0.0)) / each
    by_use = by_size
    if signals.memory_share is not None:
        by_use = max(0.0, (MEMORY_HIGH - signals.memory_share) * limit // each) + signals.workers_live
    return max(1, int(min(by_size, by_use, MOST_WORKERS)))


def _learned(signals: Signals, history: History, now: float) -> int:
    """Return the learned ceiling while it lasts, for workers of the same kind; 0 for none."""
    if now >= history.learned_until:
        return 0
    for step in reversed(history.steps):
        if step.signals is not None and step.outcome is Outcome.UNDONE and step.before == history.learned_ceiling:
            then = step.signals
            more = signals.cpu_share < CPU_BOUND and load.demand(signals) > LEARNED_FOR * load.demand(then)
            return history.learned_ceiling if alike(then, signals) and not more else 0
    return history.learned_ceiling


def alike(one: Signals, other: Signals) -> bool:
    """Tell whether workers are of one kind: what was learned of another says nothing of these."""
    return (one.worker_class, one.slots) == (other.worker_class, other.slots)


def growth(signals: Signals, limits: Limits, history: History, now: float) -> tuple[Hold, ...]:
    """Return everything that forbids one worker more."""
    holds = [Hold(each, _because(each)) for each in table.vetoes(signals, limits)]
    holds += _ground(signals, limits, history)
    if not _watched(history):  # then nothing is done anyway, and what takes the step back asks for none of these
        holds += _pace(Action.ADD, signals, limits, history, now)
    least = ceilings(signals, limits, history, now)
    source = min(least, key=lambda each: least[each])
    if signals.workers_target >= least[source]:
        holds.append(Hold("limit", f"{units.workers(least[source])} are the most, by {source}"))
    return (*holds, *_traffic(signals, limits))


def removal(signals: Signals, limits: Limits, history: History, now: float, relief: bool = False) -> tuple[Hold, ...]:
    """Return everything that forbids one worker less.

    Args:
        relief: whether it is to prevent harm, such as the kernel's.
    """
    holds = [*_ground(signals, limits, history), *_pace(Action.REMOVE, signals, limits, history, now, relief)]
    if signals.workers_target <= limits.floor:
        holds.append(Hold("limit", f"{units.workers(limits.floor)} are the floor"))
    return tuple(holds)


def stale(signals: Signals, limits: Limits) -> bool:
    """Tell whether the signals are too old, or from the future."""
    return not abs(signals.age) <= limits.fresh_seconds


def _because(veto: str) -> str:
    row = next(row for row in table.TABLE if row.vetoes == veto)
    return f"{row.meaning[:1].lower()}{row.meaning[1:].rstrip('.')}"


def _watched(history: History) -> bool:
    return bool(history.steps) and history.steps[-1].outcome is Outcome.APPLIED


def _ground(signals: Signals, limits: Limits, history: History) -> list[Hold]:
    """Return what makes the signals no ground for any change."""
    holds = []
    if stale(signals, limits):
        age = units.duration(abs(signals.age))
        holds.append(Hold("stale", f"the signals are {age} old, and may be {units.duration(limits.fresh_seconds)}"))
    if not signals.settled:
        what = "a reload is under way" if signals.reloading else "the rest boots or leaves"
        holds.append(
            Hold("unsettled", f"{signals.workers_live} of {units.workers(signals.workers_target)} live, {what}")
        )
    if _watched(history):
        step = history.steps[-1]
        holds.append(Hold("unsettled", f"the change from {step.before} to {step.after} workers is still being watched"))
    return holds


def _pace(
    action: Action, signals: Signals, limits: Limits, history: History, now: float, relief: bool = False
) -> list[Hold]:
    """Return what makes a change too soon."""
    holds = []
    left = cool_down(action, signals, limits, history, now, relief)
    if left > 0:
        what = "growth" if action is Action.ADD else "a removal"
        holds.append(Hold("cool_down", f"{what} waits another {units.duration(left)} after the last change"))
    taken = sum(1 for step in history.steps if now - step.time < _HOUR)
    # One is kept back, to undo what did not help; someone who allows a single change wants that one nevertheless.
    if taken + 2 > max(limits.actions_per_hour, 2) or limits.actions_per_hour < 1:
        holds.append(
            Hold("limit", f"{taken} of {limits.actions_per_hour} changes in an hour are made, one is kept back")
        )
    return holds


def cool_down(
    action: Action, signals: Signals, limits: Limits, history: History, now: float, relief: bool = False
) -> float:
    """Return the seconds until the action may be taken: after the last change, whichever way it went.

    Growth, and a removal that prevents harm, wait for `grow_seconds` or twice the boot. Any other removal waits for
    `shrink_seconds`, and twice as long for each removal of the last three hours that growth took back within half of
    one.
    """
    if not history.steps:
        return 0.0
    last = history.steps[-1]
    wait = max(limits.grow_seconds, 2 * min(signals.boot_seconds, LONGEST_BOOT))
    if action is Action.REMOVE and not relief:
        wait = max(wait, limits.shrink_seconds * 2 ** min(_DOUBLINGS, _taken_back(history.steps, limits, now)))
    elif action is Action.REMOVE and last.action is Action.REMOVE and not conditions.memory_high(signals):
        wait = max(wait, _OOM_SECONDS)  # the kill is the one that the last removal was for
    return max(0.0, last.time + wait - now)


def _taken_back(steps: tuple[Step, ...], limits: Limits, now: float) -> int:
    """Count removals that were wrong: growth followed soon."""
    return sum(
        1
        for step, following in itertools.pairwise(steps)
        if step.action is Action.REMOVE
        and step.rule != UNDO
        and following.action is Action.ADD
        and following.time - step.time <= _TAKEN_BACK_WITHIN * limits.shrink_seconds
        and now - following.time <= _TAKEN_BACK_FOR * limits.shrink_seconds
    )


def _traffic(signals: Signals, limits: Limits) -> list[Hold]:
    """Return what makes the traffic too little to grow for.

    Slow requests cannot come to 200 in a minute however full the server is: 2 slots with requests of 5 s finish 24.
    Where the slots were taken nearly all the time, what finished is all that there was to see; two for each slot show
    that they go on at all, and are not stuck. Where half the slots are free something else is short, as a rule; but of
    two or three slots chance takes all now and then, and Erlang's formula tells whether that is what is seen.
    """
    slots, window = load.slots(signals), units.duration(limits.window_seconds)
    needed = REQUESTS
    if signals.worker_class in SLOTTED and signals.busy >= SATURATED:
        needed = min(needed, max(REQUESTS_LEAST, TURNS * slots))
    holds = []
    if not signals.requests >= needed:
        holds.append(
            Hold("traffic", f"{signals.requests:.0f} requests in {window}, and {needed:.0f} would tell enough")
        )
    if signals.worker_class in SLOTTED:
        in_use, what = signals.in_flight / slots, f"{signals.in_flight:.1f} of {slots:.0f} slots"
    else:
        in_use, what = signals.busy, f"{units.percent(signals.busy)} of the workers' time"
    if not in_use >= HALF and not conditions.few_slots(signals, limits):
        holds.append(Hold("traffic", f"{what} are in use, less than half"))
    return holds
