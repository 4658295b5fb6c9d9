"""The decision table: one entry a row, in the order in which they are asked. The first that holds is the diagnosis.

Rows that forbid growth come first, and each of them that holds forbids it, whichever is the diagnosis. Those of event
loops come before the ones that would grow a server whose loop is blocked. docs/decisions.md is written from this table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from observability.tuning import conditions, load, sizing, units, wording
from observability.tuning.model import Action, Advice, Limits, Signals
from observability.tuning.thresholds import (
    BACKLOG_HIGH,
    BLOCKS,
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
    PLANNED,
    QUIET,
    ROOMY,
    SATURATED,
    SLOWER,
    SLOWER_SECONDS,
    STARVED,
    THROTTLED,
    WHOLE_CORE,
)

Explain = Callable[[Signals, Limits], str]


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        name: what metrics and logs call it.
        when: its condition in words, for people.
        signals: the signals that it looks at.
        meaning: the diagnosis, one sentence.
        holds: its condition.
        explain: the numbers that made it hold, one sentence.
        action: what it does to the number of workers, unless a guard rail forbids it.
        does: the same in words, and what it advises.
        advise: settings to change, for a ceiling.
        vetoes: what growth is forbidden by while it holds; empty where it forbids none.
        urgency: 1 when there is time, 2 soon, 3 now.
        relief: whether a removal is to prevent harm, and waits no longer than growth does.
        lowers_ceiling: whether growth is to end below what there is now.
        besides: whether its advice is given under any other diagnosis as well.
    """

    name: str
    when: str
    signals: tuple[str, ...]
    meaning: str
    holds: Callable[[Signals, Limits], bool]
    explain: Explain
    action: Callable[[Signals, Limits], Action] = lambda *_: Action.HOLD
    does: str = "nothing to the workers"
    advise: Callable[[Signals, Limits, int], tuple[Advice, ...]] = lambda *_: ()
    vetoes: str = ""
    urgency: int = 2
    relief: bool = False
    lowers_ceiling: bool = False
    besides: bool = False


def vetoes(signals: Signals, limits: Limits) -> tuple[str, ...]:
    """Name what forbids growth, by every row that holds."""
    return tuple(dict.fromkeys(row.vetoes for row in matching(signals, limits) if row.vetoes))


def matching(signals: Signals, limits: Limits) -> tuple[Row, ...]:
    """Return every row that holds, the diagnosis first."""
    return tuple(row for row in TABLE if row.holds(signals, limits))


def _always(action: Action) -> Callable[[Signals, Limits], Action]:
    return lambda *_: action


def _memory(signals: Signals, _: Limits) -> Action:
    return Action.REMOVE if conditions.workers_hold_memory(signals) else Action.HOLD


def _starved(signals: Signals, _: Limits) -> Action:
    return Action.REMOVE if signals.workers_target > load.cores_beyond(signals) else Action.HOLD


def _bound(signals: Signals, _: Limits) -> Action:
    return Action.ADD if conditions.try_left(signals) else Action.HOLD


def _hub(signals: Signals, _: Limits) -> Action:
    return Action.ADD if conditions.core_left(signals) else Action.HOLD


def _backlog(signals: Signals, _: Limits) -> Action:
    return Action.ADD if conditions.cpu_left(signals) else Action.HOLD


def _few_slots(signals: Signals, limits: Limits) -> Action:
    return Action.ADD if conditions.by_chance(signals, limits, ENOUGH) else Action.HOLD


def _starved_advice(signals: Signals, limits: Limits, _: int) -> tuple[Advice, ...]:
    advice = sizing.more_cpu(signals)
    count = max(limits.floor, load.cores_beyond(signals))
    if signals.workers_target <= count:
        return advice
    why = f"{units.workers(signals.workers_target)} share {units.cores(signals.cores)}, and wait for each other."
    return (*advice, *sizing.workers(signals, count, why, "The same throughput with less waiting for a CPU"))


def _processes_advice(signals: Signals, _: Limits, ceiling: int) -> tuple[Advice, ...]:
    count = max(signals.workers_target, min(ceiling, load.whole_cores(signals)))
    why = f"{units.workers(signals.workers_target)} can use at most as many of {units.cores(signals.cores)}."
    return sizing.workers(signals, count, why, f"Each of {units.cores(signals.cores)} has a worker")


def _hub_advice(signals: Signals, limits: Limits, ceiling: int) -> tuple[Advice, ...]:
    if conditions.core_left(signals):
        return _processes_advice(signals, limits, ceiling)
    instead = sizing.threads_instead(signals, limits, ceiling) if sizing.runs_threads(signals) else ()
    return (*instead, *sizing.more_cpu(signals))


def _slots_advice(signals: Signals, limits: Limits, ceiling: int) -> tuple[Advice, ...]:
    if signals.worker_class == "sync":
        return sizing.threads_instead(signals, limits, ceiling)
    return sizing.more_slots(signals)


def _idle_advice(signals: Signals, _: Limits, __: int) -> tuple[Advice, ...]:
    why = f"{units.workers(signals.workers_target)} are busy {units.percent(signals.busy)} of the time."
    return sizing.workers(signals, signals.workers_target - 1, why, "Less memory at the same speed")


def _backlog_advice(signals: Signals, limits: Limits, ceiling: int) -> tuple[Advice, ...]:
    if signals.cpu_share >= CPU_BOUND:
        return sizing.more_cpu(signals)
    return _slots_advice(signals, limits, ceiling)


_Q = f"Q > objective, U >= {units.percent(SATURATED)}"
_ENOUGH = "the objective" if ENOUGH == 1 else f"{units.percent(ENOUGH)} of the objective"
_LOW_CPU = f"C < {units.percent(CPU_BOUND)}"
_QUEUE = ("queue_p95", "queue_source", "queued", "backlog", "requests_per_second")
_SLOTS = (*_QUEUE, "busy", "cpu_share", "cores", "in_flight", "service_seconds", "workers_target", "slots")
_CPU = ("cpu_share", "run_queue", "throttled", "cores", "workers_target")
_LOOP = ("worker_class", "loop_lag_p99", "loop_blocked", "cpu_share", "run_queue", "cores", "workers_target")

TABLE: tuple[Row, ...] = (
    Row(
        name="memory",
        when=f"M > {units.percent(MEMORY_HIGH)}, or a worker was killed for want of memory",
        signals=("memory_share", "memory_limit", "worker_memory_p95", "oom_kills", "workers_live"),
        meaning="The memory runs out.",
        holds=conditions.memory,
        explain=wording.memory,
        action=_memory,
        does="one worker less, unless the workers have less than half of the memory; a lower ceiling; APP_MEMORY",
        advise=sizing.more_memory,
        vetoes="memory",
        urgency=3,
        relief=True,
        lowers_ceiling=True,
    ),
    Row(
        name="stuck",
        when=f"T > 0 and U rises or is >= {units.percent(SATURATED)}; on sync and gthread also: U that high, and no "
        "request finished in a minute",
        signals=("timeouts", "busy", "busy_rising", "in_flight", "requests"),
        meaning="Requests get stuck; the log has what the workers were doing, and the next worker would get stuck too.",
        holds=conditions.stuck,
        explain=wording.stuck,
        vetoes="stuck",
        urgency=3,
    ),
    Row(
        name="starved",
        when=f"C >= {units.percent(CPU_FULL)} and R >= {STARVED:g}, or the quota stops them in "
        f"{units.percent(THROTTLED)} of its periods",
        signals=_CPU,
        meaning="The workers are starved of CPU; each one more makes the others wait.",
        holds=lambda signals, _: conditions.starved(signals),
        explain=wording.cpu,
        action=_starved,
        does="one worker less, if there are more than cores + 1; APP_CPUS or REPLICAS",
        advise=_starved_advice,
        vetoes="cpu",
    ),
    Row(
        name="errors",
        when="requests fail and an objective of availability burns, or more than "
        f"{units.percent(ERRORS)} of at least {ERRORS_OF:.0f} requests fail, while Q <= objective",
        signals=("errors_burning", "error_ratio", "requests", *_QUEUE),
        meaning="Requests fail, and not for want of workers: a bug, or a dependency; the log and the traces say which.",
        holds=conditions.errors,
        explain=wording.errors,
        vetoes="errors",
        urgency=3,
    ),
    Row(
        name="hub_busy",
        when=f"event loops: lag p99 > {units.duration(LAG)}, each worker uses {units.percent(WHOLE_CORE)} of the core "
        "that it can have",
        signals=_LOOP,
        meaning="The event loops compute all the time; a loop runs on one core only.",
        holds=conditions.hub_busy,
        explain=wording.loop,
        action=_hub,
        does="one worker more, up to the cores; then GUNICORN_WORKER_CLASS=gthread, APP_CPUS or REPLICAS",
        advise=_hub_advice,
    ),
    Row(
        name="hub_blocked",
        when=f"event loops: lag p99 > {units.duration(LAG)} with {_LOW_CPU} and R < {STARVED:g}, or "
        f"{BLOCKS:.0f} blocks in 5 min",
        signals=_LOOP,
        meaning="A call blocks the event loop without computing; the log has its stack (gunicorn.worker.loop_blocked).",
        holds=conditions.hub_blocked,
        explain=wording.loop,
    ),
    Row(
        name="io_wait",
        when=f"{_Q}, {_LOW_CPU}, sync; a request waits for a CPU less than {units.percent(HALF)} of its time, and "
        f"computes or waits for one less than {units.percent(CPU_FULL)}",
        signals=(*_SLOTS, "run_queue", "cpu_seconds_per_request"),
        meaning="All sync workers wait for something else, one request each; waiting wants threads, not processes.",
        holds=conditions.io_wait,
        explain=wording.slots,
        action=_always(Action.ADD),
        does="one worker more meanwhile; GUNICORN_WORKER_CLASS=gthread with GUNICORN_THREADS for what is there",
        advise=sizing.threads_instead,
    ),
    Row(
        name="threads",
        when=f"{_Q}, {_LOW_CPU}, gthread with R < {STARVED:g}, less than {units.percent(WHOLE_CORE)} of the core "
        "that each worker can have; or an event loop whose connections are taken",
        signals=(*_SLOTS, "run_queue"),
        meaning="Every thread (or connection) of every worker is taken, and the CPU is not.",
        holds=conditions.threads,
        explain=wording.slots,
        action=_always(Action.ADD),
        does="one worker more meanwhile; half as many GUNICORN_THREADS (GUNICORN_WORKER_CONNECTIONS) again, or more",
        advise=lambda signals, *_: sizing.more_slots(signals),
    ),
    Row(
        name="processes",
        when=f"{_Q}, {_LOW_CPU}, fewer workers than cores; and requests do not wait for a CPU, as above",
        signals=_SLOTS,
        meaning="There are fewer workers than cores, and each is full.",
        holds=conditions.processes,
        explain=wording.slots,
        action=_always(Action.ADD),
        does="one worker more; WEB_CONCURRENCY",
        advise=_processes_advice,
    ),
    # The facts end at C < 70 % and begin again where workers starve: two workers that compute on two cores are between.
    Row(
        name="cpu_bound",
        when=f"{_Q}; C >= {units.percent(CPU_BOUND)}, or no core is without a worker, R < {STARVED:g}, and a request "
        f"computes or waits for a CPU {units.percent(CPU_FULL)} of its time",
        signals=(*_SLOTS, "run_queue", "cpu_seconds_per_request"),
        meaning="The CPU is what is short: requests compute, and the workers would fill it.",
        holds=conditions.cpu_bound,
        explain=wording.cpu_bound,
        action=_bound,
        does="one worker more, up to cores + 1: one try; APP_CPUS or REPLICAS",
        advise=lambda signals, *_: sizing.more_cpu(signals),
    ),
    # Little's law alone has 65 % of two slots do as well as 65 % of twenty; chance does not.
    Row(
        name="few_slots",
        when=f"Q > objective, U < {units.percent(SATURATED)} and as a minute ago, {_LOW_CPU}, "
        f"R < {STARVED:g}, sync and gthread: requests that come at random moments wait {units.percent(BY_CHANCE)} of "
        "the objective or more for so few slots (Erlang C)",
        signals=(*_SLOTS, "busy_changing", "run_queue"),
        meaning="There are so few slots that requests find all of them taken by chance, and wait.",
        holds=conditions.few_slots,
        explain=wording.few_slots,
        action=_few_slots,
        does=f"one worker more where that wait is {_ENOUGH} or more; on sync GUNICORN_WORKER_CLASS=gthread with "
        "GUNICORN_THREADS, else more GUNICORN_THREADS",
        advise=_slots_advice,
    ),
    # Nor do they say what ails a server whose threads wait for CPUs that it does not use, and CpuStarved fires then.
    Row(
        name="contended",
        when=f"Q > objective, R >= {STARVED:g} or a request waits for a CPU {units.percent(HALF)} of its time, "
        f"C < {units.percent(CPU_FULL)}",
        signals=(*_QUEUE, *_CPU),
        meaning="The workers wait for CPUs that they do not use: others on this machine do.",
        holds=conditions.contended,
        explain=wording.cpu,
        does="nothing to the workers; REPLICAS, on other machines",
        advise=lambda signals, *_: (sizing.more_replicas(signals),),
    ),
    Row(
        name="dependency",
        when=f"p99 >= {SLOWER:g} x usual and {units.duration(SLOWER_SECONDS)} more, Q <= objective, "
        f"U < {units.percent(ROOMY)}",
        signals=("duration_p99", "duration_p99_usual", "service_seconds", "cpu_seconds_per_request", "busy", *_QUEUE),
        meaning="Requests take longer while workers have room: something that they call is slow; the traces say what.",
        holds=conditions.dependency,
        explain=wording.dependency,
    ),
    Row(
        name="skew",
        when=f"one or two of at least three workers busy >= {units.percent(SATURATED)}, all together "
        f"< {units.percent(HALF)}",
        signals=("busy_by_worker", "busy", "in_flight", "workers_target", "slots"),
        meaning="One or two workers have all the work while the others have none.",
        holds=conditions.skew,
        explain=wording.skew,
        does="nothing to the workers; WEB_CONCURRENCY one higher, GUNICORN_WORKER_CONNECTIONS lower",
        advise=lambda signals, _, ceiling: sizing.fewer_connections(signals, ceiling),
        urgency=1,
    ),
    Row(
        name="leak",
        when="PSS grows over at least three lives of a worker",
        signals=("leak_bytes", "worker_memory_p95", "requests_per_second", "workers_target"),
        meaning="The workers keep what they should let go of: a leak.",
        holds=conditions.leak,
        explain=wording.leak,
        does="nothing to the workers; GUNICORN_MAX_REQUESTS with GUNICORN_MAX_REQUESTS_JITTER, under any diagnosis",
        advise=lambda signals, *_: sizing.recycling(signals),
        urgency=1,
        besides=True,
    ),
    Row(
        name="idle",
        when=f"more workers than the floor; on sync and gthread: Q <= {units.percent(QUIET)} of the objective for "
        f"10 min, and one worker less would do the most of that time with {units.percent(PLANNED)} of its slots, "
        f"{_LOW_CPU}, and an expected wait of at most {_ENOUGH} (Erlang C); on event loops, or where that is not "
        f"known: U < {units.percent(IDLE)} and Q about 0 for 10 min",
        signals=("low_seconds", "quiet_peak", *_SLOTS),
        meaning="There are more workers than the work needs.",
        holds=conditions.idle,
        explain=wording.idle,
        action=_always(Action.REMOVE),
        does="one worker less; WEB_CONCURRENCY",
        advise=_idle_advice,
        urgency=1,
    ),
    Row(
        name="backlog",
        when=f"more than {units.percent(BACKLOG_HIGH)} of the listen backlog is taken",
        signals=("backlog_limit", *_SLOTS),
        meaning="The kernel is about to drop connections.",
        holds=lambda signals, _: conditions.backlog_high(signals),
        explain=wording.backlog,
        action=_backlog,
        does=f"one worker more, and another after the cool-down, if C < {units.percent(CPU_FULL)} and memory allow; "
        "else people shed load; slots as above, or APP_CPUS and REPLICAS",
        advise=_backlog_advice,
        urgency=3,
    ),
    # Q is a quantile, and over the objective with a load's first seconds; U is a mean, and takes a minute to get there.
    Row(
        name="changing",
        when="Q > objective, and U is another than a minute ago, or nobody knows what it was then",
        signals=(*_SLOTS, "busy_changing"),
        meaning="Requests wait, and the load has just changed: what it wants, the next minute tells.",
        holds=conditions.changing,
        explain=wording.slots,
        urgency=1,
    ),
    # An alert on waiting requests that met with "nothing is short" would send people away from where they must look.
    Row(
        name="unclear",
        when="Q > objective, and no row above holds",
        signals=(*_SLOTS, "loop_lag_p99"),
        meaning="Requests wait, and not for a worker: compare the proxy's clock, by `python -m observability doctor`.",
        holds=conditions.waits,
        explain=wording.slots,
        urgency=1,
    ),
)

WELL = Row(
    name="well",
    when="no row holds",
    signals=(*_SLOTS, "memory_share"),
    meaning="Nothing is short.",
    holds=lambda *_: True,
    explain=wording.slots,
    urgency=0,
)
