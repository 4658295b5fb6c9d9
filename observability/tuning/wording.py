"""What a row of the decision table says of its numbers: one sentence, with units, for somebody who is tired."""

from observability.tuning import conditions, load, units
from observability.tuning.model import Limits, Signals
from observability.tuning.thresholds import IDLE


def _sentence(parts: list[str]) -> str:
    text = "; ".join(part.removesuffix(".") for part in parts)
    return f"{text[:1].upper()}{text[1:]}."


def memory(signals: Signals, _: Limits) -> str:
    """Say how much memory is used, and by whom."""
    parts = []
    if signals.memory_share is not None and signals.memory_limit:
        used = signals.memory_share * signals.memory_limit
        parts.append(
            f"{units.percent(signals.memory_share)} of the memory is used, {units.size(used)} of "
            f"{units.size(signals.memory_limit)}"
        )
    elif signals.memory_share is not None:
        parts.append(f"{units.percent(signals.memory_share)} of the memory is used")
    if signals.worker_memory_p95:
        parts.append(f"a large worker has {units.size(signals.worker_memory_p95)}")
    if signals.oom_kills > 0:
        parts.append(f"the kernel killed for want of memory {signals.oom_kills:.0f} times in 10 min")
    if not conditions.workers_hold_memory(signals):
        parts.append(f"the {units.workers(signals.workers_live)} have less than half of it, so one less would not help")
    return _sentence(parts)


def cpu(signals: Signals, _: Limits) -> str:
    """Say how much CPU is used, and waited for."""
    parts = [
        f"{units.percent(signals.cpu_share)} of {units.cores(signals.cores)} are used",
        f"threads waited {units.duration(signals.run_queue)} for each second that they ran",
    ]
    if signals.throttled > 0:
        parts.append(f"the quota stopped them in {units.percent(signals.throttled)} of its periods")
    return _sentence([*parts, units.workers(signals.workers_target)])


def stuck(signals: Signals, _: Limits) -> str:
    """Say what was killed, and what is in flight."""
    return _sentence(
        [
            f"{signals.timeouts:.0f} workers were killed by the timeout in 5 min",
            f"slots are busy {units.percent(signals.busy)} of the time"
            + (", a tenth more than 5 min ago" if signals.busy_rising else ""),
            f"{units.requests(signals.in_flight)} in flight, {signals.requests:.0f} finished in the last minute",
        ]
    )


def errors(signals: Signals, limits: Limits) -> str:
    """Say what fails."""
    burning = ["the error budget is burning"] if signals.errors_burning else []
    failed = f"{signals.error_ratio * 100:.3g} % of {units.rate(signals.requests_per_second)} fail"
    return _sentence([failed, *burning, _queue_text(signals, limits)])


def dependency(signals: Signals, limits: Limits) -> str:
    """Say how long requests take."""
    now, usual = signals.duration_p99 or 0.0, signals.duration_p99_usual or 0.0
    parts = [f"99 of 100 requests take up to {units.duration(now)}, usually {units.duration(usual)}"]
    if signals.service_seconds and signals.cpu_seconds_per_request is not None:
        cpu, mean = units.duration(signals.cpu_seconds_per_request), units.duration(signals.service_seconds)
        parts.append(f"a request computes for {cpu} of {mean}")
    return _sentence([*parts, _busy_text(signals), _queue_text(signals, limits)])


def _busy_text(signals: Signals) -> str:
    return f"slots are busy {units.percent(signals.busy)} of the time"


def _queue_text(signals: Signals, limits: Limits) -> str:
    who = "95 of 100 requests wait up to" if signals.queue_source == "proxy" else "requests wait"  # by Little: the mean
    source = {"threads": "a thread", "backlog": "being accepted"}.get(signals.queue_source, "a worker")
    objective = f"(objective {units.duration(limits.queue_objective)})"
    return f"{who} {units.duration(load.queue(signals))} for {source} {objective}"


def slots(signals: Signals, limits: Limits) -> str:
    """Say what waits, for which slots, and what the CPU does."""
    waiting = f"{units.requests(load.waiting(signals))} waiting, {units.requests(signals.in_flight)} in service"
    return _sentence(
        [
            _queue_text(signals, limits),
            f"{units.workers(signals.workers_target)} with {load.slots(signals):.0f} slots: {waiting}",
            _busy_text(signals),
            f"CPU {units.percent(signals.cpu_share)} of {units.cores(signals.cores)}",
            f"{units.rate(signals.requests_per_second)} answered",
        ]
    )


def few_slots(signals: Signals, limits: Limits) -> str:
    """Say the same, and what chance makes of it."""
    expected = load.wait_by_chance(load.slots(signals), signals.in_flight, signals.service_seconds or 0.0)
    wait = units.duration(expected) if expected < limits.fresh_seconds else "ever longer"
    return f"{slots(signals, limits)} At random moments 95 of 100 would wait up to {wait} for so few slots."


def cpu_bound(signals: Signals, limits: Limits) -> str:
    """Say the same, and whether a worker more may be tried."""
    last = (
        ""
        if conditions.try_left(signals)
        else f" No worker more: {units.workers(signals.workers_target)} for {units.cores(signals.cores)} is enough."
    )
    return slots(signals, limits) + last


def loop(signals: Signals, _: Limits) -> str:
    """Say how late the event loops are, and what they use."""
    each = load.cores_used(signals) / max(1, signals.workers_target)
    return _sentence(
        [
            f"the event loops are up to {units.duration(signals.loop_lag_p99 or 0.0)} late in 99 of 100 looks",
            f"calls blocked one {signals.loop_blocked:.0f} times in 5 min",
            f"each of {units.workers(signals.workers_target)} uses {each:.2g} of a core, "
            f"all {units.percent(signals.cpu_share)} of {units.cores(signals.cores)}",
        ]
    )


def skew(signals: Signals, _: Limits) -> str:
    """Say how busy each worker is."""
    each = ", ".join(units.percent(share) for share in signals.busy_by_worker[:8])
    return _sentence([f"the workers are busy {each} of the time", f"{units.requests(signals.in_flight)} in flight"])


def leak(signals: Signals, _: Limits) -> str:
    """Say what a worker gains."""
    gains = f"a worker gains {units.size(signals.leak_bytes)} over its life, in at least 3 lives in a row"
    return _sentence([gains, f"a large one has {units.size(signals.worker_memory_p95 or 0.0)}"])


def idle(signals: Signals, limits: Limits) -> str:
    """Say how little there is to do, and since when."""
    return _sentence(
        [
            _busy_text(signals),
            *_little(signals, limits),
            _queue_text(signals, limits),
            f"{units.workers(signals.workers_target)}, floor {limits.floor}",
        ]
    )


def _little(signals: Signals, limits: Limits) -> list[str]:
    """Say what makes it little: the most that there was, or how long it has been."""
    if signals.quiet_peak is None or load.looped(signals):
        return [f"below {units.percent(IDLE)} for {units.duration(signals.low_seconds)}"]
    left = load.slots_with_one_less(signals)
    expected = load.wait_by_chance(left, conditions.peak(signals), signals.service_seconds or 0.0)
    return [
        f"in the last {units.duration(limits.idle_seconds)} there were never more than {conditions.peak(signals):.2g} "
        "requests at a time in a minute's mean",
        f"at random moments 95 of 100 would wait up to {units.duration(expected)} for {left:.0f} slots",
    ]


def backlog(signals: Signals, limits: Limits) -> str:
    """Say how full the backlog is."""
    parts = [f"{signals.backlog:.0f} of {signals.backlog_limit or 0:.0f} places in the listen backlog are taken"]
    if not conditions.cpu_left(signals):
        parts.append("the CPU allows no worker more: shed load before the server")
    rest = slots(signals, limits)
    return _sentence([*parts, f"{rest[:1].lower()}{rest[1:]}"])
