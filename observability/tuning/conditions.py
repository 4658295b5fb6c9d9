"""The conditions of the decision table's rows, each a pure function of signals and limits."""

from observability.tuning import load
from observability.tuning.model import Limits, Signals
from observability.tuning.thresholds import (
    BACKLOG_HIGH,
    BLOCKS,
    BUSY_CORES,
    BY_CHANCE,
    CPU_BOUND,
    CPU_FULL,
    ENOUGH,
    ERRORS,
    ERRORS_OF,
    HALF,
    IDLE,
    LAG,
    MEMORY_HIGH,
    NO_QUEUE,
    PLANNED,
    QUIET,
    ROOMY,
    SATURATED,
    SLOWER,
    SLOWER_SECONDS,
    STARVED,
    WHOLE_CORE,
)


def waits(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests wait longer than the objective allows."""
    return load.queue(signals) > limits.queue_objective


def no_queue(signals: Signals, limits: Limits) -> bool:
    """Tell whether Q is about 0."""
    return load.queue(signals) <= NO_QUEUE * limits.queue_objective


def crowded(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests wait because every slot is taken."""
    return waits(signals, limits) and signals.busy >= SATURATED


def backlog_high(signals: Signals) -> bool:
    """Tell whether the kernel will soon drop connections."""
    return bool(signals.backlog_limit) and signals.backlog > BACKLOG_HIGH * (signals.backlog_limit or 0.0)


def memory_high(signals: Signals) -> bool:
    """Tell whether the memory in use is near its limit."""
    return signals.memory_share is not None and signals.memory_share > MEMORY_HIGH


def memory(signals: Signals, _: Limits) -> bool:
    """Tell whether memory runs out, or ran out."""
    return memory_high(signals) or signals.oom_kills > 0


def workers_hold_memory(signals: Signals) -> bool:
    """Tell whether a worker less would help: they have at least half of what is used, as far as one knows."""
    if not (signals.worker_memory_p95 and signals.memory_limit and signals.memory_share):
        return True
    theirs = signals.worker_memory_p95 * signals.workers_live
    return theirs >= HALF * signals.memory_share * signals.memory_limit


def starved(signals: Signals) -> bool:
    """Tell whether the workers want more CPU than there is."""
    waiting = signals.cpu_share >= CPU_FULL and signals.run_queue >= STARVED
    return waiting or (load.throttled(signals) and load.cores_used(signals) > BUSY_CORES)


def contended(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests wait while the workers wait for CPUs that they do not use."""
    late = signals.run_queue >= STARVED or load.waits_for_cpu(signals)
    some = late and load.cores_used(signals) > BUSY_CORES
    return waits(signals, limits) and some and signals.cpu_share < CPU_FULL


def stuck(signals: Signals, _: Limits) -> bool:
    """Tell whether requests get stuck: killed by the timeout, or none of them finished."""
    full = signals.busy >= SATURATED  # at its top it cannot rise
    if signals.timeouts > 0:
        return signals.busy_rising or full
    return full and signals.in_flight >= 1 and signals.requests < 1 and not load.looped(signals)


def errors(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests fail, and not for want of workers."""
    many = signals.error_ratio > ERRORS and signals.requests >= ERRORS_OF
    burning = signals.errors_burning and signals.error_ratio > 0  # the alert holds on for minutes after the last one
    return (burning or many) and not waits(signals, limits)


def dependency(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests take longer than usual while workers have room."""
    now, usual = signals.duration_p99, signals.duration_p99_usual
    if now is None or usual is None:
        return False
    slower = now >= SLOWER * usual and now - usual >= SLOWER_SECONDS
    return slower and not waits(signals, limits) and signals.busy < ROOMY


def io_wait(signals: Signals, limits: Limits) -> bool:
    """Tell whether sync workers wait for something else than the CPU."""
    waiting = signals.cpu_share < CPU_BOUND and not load.waits_for_cpu(signals) and not load.computes(signals)
    return crowded(signals, limits) and waiting and signals.worker_class == "sync"


def threads(signals: Signals, limits: Limits) -> bool:
    """Tell whether threads or connections are what is short."""
    if load.threaded(signals):
        # Python computes in one thread of a process at a time: one that has its core wants no more of them
        short = signals.run_queue < STARVED and load.share_of_core(signals) < WHOLE_CORE
    else:
        short = load.looped(signals) and load.slots_taken(signals)
    return crowded(signals, limits) and signals.cpu_share < CPU_BOUND and short


def processes(signals: Signals, limits: Limits) -> bool:
    """Tell whether there are too few workers for the cores."""
    few = signals.workers_target < signals.cores and not load.waits_for_cpu(signals)
    return crowded(signals, limits) and signals.cpu_share < CPU_BOUND and few


def cpu_bound(signals: Signals, limits: Limits) -> bool:
    """Tell whether the CPU is what is short.

    Where requests do nothing but compute, and no core is without a worker, threads would not help, however much of the
    CPU others on this machine use.
    """
    full = load.computes(signals) and signals.run_queue < STARVED and signals.workers_target >= signals.cores
    return crowded(signals, limits) and (signals.cpu_share >= CPU_BOUND or full)


def by_chance(signals: Signals, limits: Limits, share: float = BY_CHANCE) -> bool:
    """Tell whether requests that come at random moments would wait that share of the objective for so few slots."""
    if load.looped(signals) or not signals.service_seconds:
        return False
    expected = load.wait_by_chance(load.slots(signals), signals.in_flight, signals.service_seconds)
    return expected >= share * limits.queue_objective


def few_slots(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests wait because there are few slots, though none is always taken.

    While U changes, a minute's mean tells nothing of chance: half of that minute was before the load.
    """
    idle = signals.cpu_share < CPU_BOUND and signals.run_queue < STARVED
    steady = signals.busy < SATURATED and not signals.busy_changing
    return waits(signals, limits) and idle and steady and by_chance(signals, limits)


def changing(signals: Signals, limits: Limits) -> bool:
    """Tell whether requests wait, and it is too early to say for what."""
    return waits(signals, limits) and signals.busy_changing


def late(signals: Signals) -> bool:
    """Tell whether the event loops are late."""
    return load.looped(signals) and signals.loop_lag_p99 is not None and signals.loop_lag_p99 > LAG


def hub_busy(signals: Signals, _: Limits) -> bool:
    """Tell whether the event loops compute all the time."""
    return late(signals) and load.share_of_core(signals) >= WHOLE_CORE


def hub_blocked(signals: Signals, _: Limits) -> bool:
    """Tell whether a call blocks the event loops."""
    idle = signals.cpu_share < CPU_BOUND and signals.run_queue < STARVED
    return load.looped(signals) and ((late(signals) and idle) or signals.loop_blocked >= BLOCKS)


def skew(signals: Signals, _: Limits) -> bool:
    """Tell whether one or two workers have all the work."""
    each = signals.busy_by_worker
    return len(each) > 2 and each[0] >= SATURATED and each[2] < SATURATED and sum(each) / len(each) < HALF


def leak(signals: Signals, _: Limits) -> bool:
    """Tell whether workers keep memory over their lives."""
    return signals.leak_bytes > 0


def idle(signals: Signals, limits: Limits) -> bool:
    """Tell whether there are more workers than the work needs."""
    if signals.workers_target <= limits.floor:
        return False
    if signals.quiet_peak is None or load.looped(signals):
        return signals.busy < IDLE and no_queue(signals, limits) and signals.low_seconds >= limits.idle_seconds
    return load.queue(signals) <= QUIET * limits.queue_objective and holds_with_one_less(signals, limits)


def peak(signals: Signals) -> float:
    """Return the most requests in flight of the last ten minutes, or of now."""
    return max(signals.quiet_peak or 0.0, signals.in_flight)


def holds_with_one_less(signals: Signals, limits: Limits) -> bool:
    """Tell whether one worker less would do the most of the last ten minutes: by its slots, the CPU, and by chance."""
    left = load.slots_with_one_less(signals)
    expected = load.wait_by_chance(left, peak(signals), signals.service_seconds or 0.0)
    short = peak(signals) > PLANNED * left or expected > ENOUGH * limits.queue_objective
    return not short and signals.cpu_share < CPU_BOUND


def try_left(signals: Signals) -> bool:
    """Tell whether work on the CPU may have a worker more: there is one try beyond the cores."""
    return signals.workers_target < load.cores_beyond(signals)


def core_left(signals: Signals) -> bool:
    """Tell whether a core has no worker yet."""
    return signals.workers_target < load.whole_cores(signals)


def cpu_left(signals: Signals) -> bool:
    """Tell whether the CPU allows anything more."""
    return signals.cpu_share < CPU_FULL
