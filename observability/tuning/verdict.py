"""What became of a step: kept, undone or inconclusive, by what was measured before and after it.

The rate answered is no measure of the load where workers are full: then it is what they could take, and clients who
wait for an answer send more as soon as they get one. There the demand, what is in service and what waits, tells whether
the load is alike, and a higher rate is the gain.
"""

from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt

from observability.tuning import bounds, load, table, units
from observability.tuning.conditions import memory_high
from observability.tuning.model import Action, History, Limits, Outcome, Signals, Step
from observability.tuning.thresholds import CPU_BOUND, HALF, REQUESTS

Numbers = dict[str, float | str | None]

LOOKS = 3  # windows after a step until what is inconclusive stays so
SETTLE_SECONDS = 5.0  # a scrape: until then the first window may have begun before the step
ALIKE = 0.10  # loads that differ by no more are alike
GAIN = 0.05  # less is none: the universal scalability law's stop rule
SHORTER = 0.10  # a queue that lost as much is shorter; with one slot more, one of thirty who wait is served: no news
SLOWER = 0.15
P99_REQUESTS = REQUESTS  # of fewer, a p99 stands on less than two requests
_P99_NOISE = 2.16  # standard error of the p99 of an exponential distribution x sqrt(requests) / p99
_EDGE = 2.5  # times: a p99 can move so far within one bucket of OpenTelemetry's (0.1 to 0.25 s), and mean nothing
_ERRORS_MORE = 0.01  # of the requests
_ERRORS_LEAST = 5.0  # and so many requests: of fewer nobody can tell chance
_ONE_MORE = 0.5  # Prometheus' increase() extrapolates: one is 0.9 now and 1.1 later
_DAY = 86_400.0


def due(step: Step, signals: Signals, limits: Limits, now: float) -> bool:
    """Tell whether a step can be judged: the workers have settled, and the signals' window lies after that."""
    begins = step.time + _settle_seconds(step, signals)
    fresh = not bounds.stale(signals, limits)
    return signals.settled and fresh and now - abs(signals.age) >= begins + limits.window_seconds


def last_look(step: Step, limits: Limits, now: float) -> bool:
    """Tell whether a step that is inconclusive now stays so: three windows have passed."""
    return now >= step.time + _settle_seconds(step, step.signals) + LOOKS * limits.window_seconds


def _settle_seconds(step: Step, signals: Signals | None) -> float:
    boots = [each.boot_seconds for each in (step.signals, signals) if each is not None]
    return max([SETTLE_SECONDS, *(2 * min(boot, bounds.LONGEST_BOOT) for boot in boots)])


def judge(before: Signals, after: Signals, step: Step, limits: Limits | None = None) -> tuple[Outcome, str, Numbers]:
    """Compare the windows before and after a step.

    Returns:
        KEPT, UNDONE (take it back) or INCONCLUSIVE (look again, until `last_look`); why; and the numbers.
    """
    limits = limits or Limits()
    change = _Change(before, after, limits.queue_objective)
    outcome, why = _outcome(change, step, limits)
    return outcome, f"{why} {change.text}", change.numbers


@dataclass(frozen=True)
class _Change:
    """Two windows, and what differs."""

    before: Signals
    after: Signals
    objective: float

    @property
    def rate(self) -> float:
        return _ratio(self.before.requests_per_second, self.after.requests_per_second)

    @property
    def capacity(self) -> float:
        """The rate, beside what workers would have answered before if all of their slots had been taken.

        That is the rate / U, by the utilization law: a window that was half over when the load came has half of its
        rate, and half of its U. U says so of slots only, where at least half of them were taken.
        """
        slotted = not load.looped(self.before) and self.before.busy >= HALF
        return self.rate * min(1.0, self.before.busy) if slotted else self.rate

    @property
    def demand(self) -> float:
        return _ratio(load.demand(self.before), load.demand(self.after))

    @property
    def queue(self) -> float:
        return _ratio(load.queue(self.before), load.queue(self.after))

    @property
    def full_before(self) -> bool:
        return load.queue(self.before) > self.objective

    @property
    def full_after(self) -> bool:
        return load.queue(self.after) > self.objective

    @property
    def noise(self) -> float:
        """Standard error of the ratio of two counts, relative to it."""
        return sqrt(1 / max(1.0, self.before.requests) + 1 / max(1.0, self.after.requests))

    @property
    def numbers(self) -> Numbers:
        found: Numbers = {}
        for when, signals in (("before", self.before), ("after", self.after)):
            found |= {
                f"workers_{when}": signals.workers_target,
                f"requests_per_second_{when}": _finite(signals.requests_per_second),
                f"demand_{when}": _finite(load.demand(signals)),
                f"queue_seconds_{when}": _finite(load.queue(signals)),
                f"duration_p99_{when}": _finite(signals.duration_p99),
                f"cpu_share_{when}": _finite(signals.cpu_share),
                f"memory_share_{when}": _finite(signals.memory_share),
                f"error_ratio_{when}": _finite(signals.error_ratio),
                f"timeouts_{when}": _finite(signals.timeouts),
                f"requests_{when}": _finite(signals.requests),
            }
        return found

    @property
    def text(self) -> str:
        b, a = self.before, self.after
        parts = [
            f"{units.rate(b.requests_per_second)} became {units.rate(a.requests_per_second)}",
            f"{units.requests(load.demand(b))} at a time became {load.demand(a):.0f}",
            f"the queue {units.duration(load.queue(b))} became {units.duration(load.queue(a))}",
        ]
        if b.duration_p99 is not None and a.duration_p99 is not None:
            parts.append(f"p99 {units.duration(b.duration_p99)} became {units.duration(a.duration_p99)}")
        return f"From {b.workers_target} to {units.workers(a.workers_target)}: {', '.join(parts)}."


def _outcome(change: _Change, step: Step, limits: Limits) -> tuple[Outcome, str]:
    after, grew = change.after, step.action is Action.ADD
    if after.workers_target != step.after:
        return Outcome.INCONCLUSIVE, f"Somebody else has set {units.workers(after.workers_target)}, a reload perhaps."
    if grew and (memory_high(after) or after.oom_kills >= change.before.oom_kills + _ONE_MORE):
        share = units.percent(after.memory_share or 0.0)
        return Outcome.UNDONE, f"The memory does not hold another worker: {share} of it is used."
    if not grew and step.rule == "memory":
        return Outcome.KEPT, "It was done to save memory, whatever else it did."
    if moved := _moved(change):
        return Outcome.INCONCLUSIVE, f"The load has changed meanwhile: {moved}."
    harm = _harm(change, grew)
    if not grew:
        if not harm:
            return Outcome.KEPT, "Nobody feels it."
        if forbidden := _no_way_back(after, step, limits):
            return Outcome.KEPT, f"It harms, {harm}; but it cannot be taken back: {forbidden}."
        return Outcome.UNDONE, f"It harms: {harm}."
    if harm:
        return Outcome.UNDONE, f"It harms: {harm}."
    if gain := _gain(change):
        return Outcome.KEPT, f"It helps: {gain}."
    return Outcome.UNDONE, f"It gains less than {units.percent(GAIN)}, and the queue is no shorter."


def _moved(change: _Change) -> str:
    """Say how the load differs; "" where it is alike.

    Full workers answer what they can, whatever comes: there a rate says nothing of the load.
    """
    rate = f"the rate by {_signed(change.rate)}"
    if change.rate > 1 + ALIKE and not change.full_before:
        return rate
    if change.rate < 1 - ALIKE and not change.full_after:
        return rate
    if change.full_before and change.full_after and not _alike(change.demand) and abs(change.rate - 1) < GAIN:
        return f"requests that are there at a time by {_signed(change.demand)}, with all slots taken before and after"
    return ""


def _harm(change: _Change, grew: bool) -> str:
    """Say what is worse; "" for nothing."""
    before, after = change.before, change.after
    if after.timeouts >= before.timeouts + _ONE_MORE:
        return f"{after.timeouts:.0f} workers were killed by the timeout in 5 min, {before.timeouts:.0f} before"
    errors = after.error_ratio - before.error_ratio
    if errors >= _ERRORS_MORE and after.error_ratio * after.requests >= _ERRORS_LEAST:
        return f"{after.error_ratio * 100:.3g} % of the requests fail, {before.error_ratio * 100:.3g} % before"
    # Where fewer are there at a time, the window before had a backlog to answer beside what came.
    if change.full_after and change.demand >= 1 - ALIKE and change.rate <= 1 - max(GAIN, change.noise):
        return f"full workers answer {_signed(change.rate)} requests"
    if not grew and change.full_after and not change.full_before:
        return f"requests wait {units.duration(load.queue(after))}, longer than {units.duration(change.objective)}"
    return _slower(change)


def _slower(change: _Change) -> str:
    """Say how much slower 99 of 100 requests are than before; "" where they are not, or too few to tell.

    What a user feels is the queue and the time in service. Where the CPU is full, one more worker only moves the wait
    from the one to the other, so that time in service counts alone.
    """
    before, after = change.before, change.after
    if before.duration_p99 is None or after.duration_p99 is None:
        return ""
    if min(before.requests, after.requests) < P99_REQUESTS:
        return ""
    if change.full_before and change.full_after and not _alike(change.demand):
        return ""
    cpu = after.cpu_share >= CPU_BOUND or load.throttled(after)
    was = before.duration_p99 + (0.0 if cpu else load.queue(before))
    now = after.duration_p99 + (0.0 if cpu else load.queue(after))
    ratio = _ratio(was, now)
    if ratio <= 1 + max(SLOWER, 2 * _P99_NOISE * change.noise) or not _confirmed(change):
        return ""
    what = "" if cpu else " with the queue"
    return f"p99{what} is {units.duration(now)} instead of {units.duration(was)} ({_signed(ratio)})"


def _confirmed(change: _Change) -> bool:
    """Tell whether a slower p99 is more than a bucket's edge: by the mean, which is exact, or by the queue."""
    before, after = change.before, change.after
    if _ratio(before.duration_p99 or 0.0, after.duration_p99 or 0.0) > _EDGE:
        return True
    if load.queue(after) - load.queue(before) > change.objective:
        return True
    if before.service_seconds is None or after.service_seconds is None:
        return True
    return _ratio(before.service_seconds, after.service_seconds) >= 1 + GAIN


def _gain(change: _Change) -> str:
    """Say what growth gained; "" for nothing.

    Where the CPU is full, a queue that is shorter is no gain: the wait is in the service then.
    """
    if change.full_before and change.capacity >= 1 + max(GAIN, change.noise):
        return f"full workers answer {_signed(change.capacity)} requests"
    if change.full_before and change.queue <= 1 - SHORTER and change.after.cpu_share < CPU_BOUND:
        return f"the queue is shorter by {units.percent(1 - change.queue)}"
    before, after = change.before.loop_lag_p99, change.after.loop_lag_p99
    if before and after is not None and _ratio(before, after) <= 1 - SHORTER:
        return f"event loops are {units.duration(after)} late instead of {units.duration(before)}"
    return ""


def _no_way_back(after: Signals, step: Step, limits: Limits) -> str:
    """Say what forbids to add the removed worker again; "" for nothing."""
    if vetoes := table.vetoes(after, limits):
        return f"{', '.join(vetoes)} forbids growth"
    least = bounds.ceilings(after, limits, History(), after.time)
    source = min(least, key=lambda each: least[each])
    return f"{units.workers(least[source])} are the most, by {source}" if least[source] < step.before else ""


def remember(history: History, step: Step, outcome: Outcome, now: float, limits: Limits | None = None) -> History:
    """Return the history with a step's outcome, the step that took it back if it was undone, and what was learned.

    Args:
        history: what was known, with the step in it.
        step: as it is there.
        outcome: what became of it; where it was undone, that has been done.
        now: Unix seconds.
        limits: what people allow.
    """
    limits = limits or Limits()
    steps = tuple(replace(step, outcome=outcome) if each == step else each for each in history.steps)
    learned, until = history.learned_ceiling, history.learned_until
    if outcome is Outcome.UNDONE:
        back = Action.REMOVE if step.action is Action.ADD else Action.ADD
        steps = (*steps, Step(now, back, step.after, step.before, bounds.UNDO, Outcome.KEPT))
    if outcome is Outcome.UNDONE and step.action is Action.ADD:
        learned, until = step.before, now + limits.learned_seconds
    elif outcome is Outcome.KEPT and step.action is Action.REMOVE and step.rule == "memory":
        learned = min(step.after, learned) if learned > 0 and now < until else step.after
        until = now + limits.learned_seconds
    left = {Outcome.KEPT: step.after, Outcome.INCONCLUSIVE: step.after, Outcome.UNDONE: step.before}
    return History(
        steps=tuple(each for each in steps if now - each.time <= _DAY),
        learned_ceiling=learned,
        learned_until=until,
        accepted=left.get(outcome, history.accepted),
    )


def _alike(ratio: float) -> bool:
    return abs(ratio - 1) <= ALIKE


def _ratio(before: float, after: float) -> float:
    """Return after / before; what comes from nothing is infinitely more."""
    if before <= 0:
        return inf if after > 0 else 1.0
    return after / before


def _signed(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.0f} %" if isfinite(ratio) else "from none to some"


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
