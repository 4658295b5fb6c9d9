"""What a worker more must not be made against, by the facts alone: the guard rails, written out a second time."""

import math

from observability.tuning.model import Limits, Signals


def against(signals: Signals, limits: Limits, *, decided: bool = True) -> list[str]:
    """Return what one worker more was made against, by the facts alone and not by the code that decides.

    Args:
        decided: whether it was a decision. What takes a removal back needs neither many requests nor a queue, and
            may be for workers that time out with room to spare.
    """
    queue, late = signals.queue_p95 or 0.0, (signals.loop_lag_p99 or 0.0) > 0.1
    full = decided or signals.busy_rising or signals.busy >= 0.8
    failing = signals.error_ratio > (0.0 if signals.errors_burning else 0.05)
    found = {
        "stale": abs(signals.age) > limits.fresh_seconds,
        "unsettled": signals.workers_live != signals.workers_target or signals.reloading,
        "memory": (signals.memory_share or 0.0) > 0.9 or signals.oom_kills > 0,
        "starved": signals.cpu_share >= 0.85 and signals.run_queue >= 1,
        "throttled": signals.throttled >= 0.25,
        "cores": signals.cpu_share >= 0.7 and signals.workers_target > math.ceil(signals.cores),
        "ceiling": 0 < limits.ceiling <= signals.workers_target,
        "stuck": signals.timeouts > 0 and full,
        "errors": failing and (signals.errors_burning or signals.requests >= 20) and queue <= limits.queue_objective,
        "traffic": decided and signals.requests < 10,
        "no queue": decided and queue <= limits.queue_objective and not late,
    }
    return [name for name, is_so in found.items() if is_so]
