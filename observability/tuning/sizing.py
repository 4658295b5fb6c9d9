"""What a setting should be: each value computed from the signals, with why, and what is to be expected of it."""

import math

from observability.tuning import load, units
from observability.tuning.model import Advice, Limits, Signals
from observability.tuning.thresholds import CPU_BOUND, CPU_FULL, MEMORY_HIGH, PLANNED
from observability.worker_classes import WORKER_CLASSES

MOST_THREADS = 128  # a worker; beyond that greenlets cost less than threads, which the interpreter switches every 5 ms
_MOST = 1024  # what GUNICORN_THREADS and WEB_CONCURRENCY take
_MOST_CONNECTIONS = 100_000
_MORE_THREADS = 1.5
_MIB = 2**20
_MEMORY_STEP = 64 * _MIB
_LIFE_SECONDS = 7200.0  # a third of the six hours that the alert MemoryLeaking looks ahead
_LIFE_REQUESTS = (1000, 1_000_000)
_UNKNOWN = "not known here"
_CONNECTIONS = "GUNICORN_WORKER_CONNECTIONS"


def useful_threads(signals: Signals, workers: int) -> int:
    """Return the threads that a worker can keep at work: service time / CPU per request, for the core that it has."""
    if not signals.service_seconds or not signals.cpu_seconds_per_request:
        return MOST_THREADS
    core = min(1.0, signals.cores / workers)  # Python code of one process runs on one core at a time
    useful = core * signals.service_seconds / signals.cpu_seconds_per_request
    return max(1, math.ceil(min(useful, MOST_THREADS)))


def threaded(signals: Signals, limits: Limits, ceiling: int) -> tuple[int, int]:
    """Return how many workers, and threads of each, take the demand: processes for the cores, threads for the rest."""
    needed, cores = load.demand(signals) / PLANNED, load.whole_cores(signals)
    workers = max(limits.floor, 1, min(signals.workers_target, cores))
    useful = useful_threads(signals, workers)
    if needed > workers * useful:
        workers = max(workers, min(cores, ceiling, math.ceil(needed / useful)))
        useful = useful_threads(signals, workers)
    threads = math.ceil(min(needed / workers, useful, MOST_THREADS))
    return workers, max(2, threads)


def threads_instead(signals: Signals, limits: Limits, ceiling: int) -> tuple[Advice, ...]:
    """Advise gthread, with as many threads as the demand wants."""
    workers, threads = threaded(signals, limits, ceiling)
    there, most = load.demand(signals), workers * threads
    now = signals.worker_class
    service, cpu = signals.service_seconds or 0.0, signals.cpu_seconds_per_request
    idle = max(0.0, service - (cpu or 0.0))
    waits = f", and each spends {units.duration(idle)} of {units.duration(service)} waiting" if cpu else ""
    advice = [
        Advice(
            "GUNICORN_WORKER_CLASS",
            "gthread",
            now,
            f"{units.requests(there)} are there at a time for {_slots(signals)}{waits}.",
            f"A worker runs {threads} requests at a time, whatever library they wait in.",
        ),
        Advice(
            "GUNICORN_THREADS",
            str(threads),
            _UNKNOWN if load.looped(signals) else f"{signals.slots:.0f}",
            f"{there:.0f} requests at a time / ({PLANNED} x {units.workers(workers)}) = "
            f"{math.ceil(there / PLANNED / workers)} threads{_capped(there / PLANNED / workers, threads)}.",
            _effect(signals, most),
        ),
    ]
    if workers != signals.workers_target:
        why = f"With {threads} threads each, {units.workers(workers)} take {most} requests at a time on "
        effect = "Less memory" if workers < signals.workers_target else "Another core for each"
        advice.append(_workers(signals, workers, f"{why}{units.cores(signals.cores)}.", effect))
    return tuple(advice)


def runs_threads(signals: Signals) -> bool:
    """Tell whether what a worker on greenlets runs could run in threads as well."""
    known = WORKER_CLASSES.get(signals.worker_class)
    return known is not None and known.greenlets


def _slots(signals: Signals) -> str:
    return f"{load.slots(signals):.0f} slots of {units.workers(signals.workers_target)}"


def _capped(needed: float, threads: int) -> str:
    return "" if needed <= threads else f"; more than {threads} are of no use to a worker"


def _expected(signals: Signals, slots: int) -> float:
    """Return the requests a second to be expected: what comes, bounded by slots and CPU."""
    bounds = [load.arrivals(signals)]
    if signals.service_seconds:
        bounds.append(slots / signals.service_seconds)
    if signals.cpu_seconds_per_request:
        bounds.append(CPU_FULL * signals.cores / signals.cpu_seconds_per_request)
    return max(signals.requests_per_second, min(bounds))


def _effect(signals: Signals, slots: int) -> str:
    """Say what becomes of the throughput, and of the CPU, with so many slots."""
    now, then = signals.requests_per_second, _expected(signals, slots)
    used = max(then * (signals.cpu_seconds_per_request or 0.0), load.cores_used(signals))
    rate = f"about {units.rate(then)} instead of {units.rate(now)}" if then > now else f"{units.rate(now)} as before"
    return f"Room for {slots} requests at a time: {rate}, on {used:.2g} of {units.cores(signals.cores)}."


def more_slots(signals: Signals) -> tuple[Advice, ...]:
    """Advise half as many threads (or connections) again, or as many as the demand wants."""
    now = max(1, round(signals.slots))
    each = load.demand(signals) / PLANNED / max(1, signals.workers_target)
    least = math.ceil(_MORE_THREADS * now)
    if load.threaded(signals):
        useful = useful_threads(signals, max(1, signals.workers_target))
        value, variable, what = min(_MOST, max(least, math.ceil(min(each, useful)))), "GUNICORN_THREADS", "threads"
    else:
        value, variable, what = min(_MOST_CONNECTIONS, max(least, math.ceil(each))), _CONNECTIONS, "connections"
    most = value * signals.workers_target
    return (
        Advice(
            variable,
            str(value),
            str(now),
            f"{units.requests(load.demand(signals))} are there at a time for {_slots(signals)}: "
            f"half as many {what} again, and at least what {PLANNED} busy slots ask for.",
            _effect(signals, most),
        ),
    )


def workers(signals: Signals, count: int, why: str, expect: str) -> tuple[Advice, ...]:
    """Advise a number of workers, unless it is the one that there is."""
    return (_workers(signals, count, why, expect),) if count != signals.workers_target else ()


def _workers(signals: Signals, count: int, why: str, expect: str) -> Advice:
    memory = signals.worker_memory_p95
    change = (count - signals.workers_target) * (memory or 0.0)
    each = f": {'+' if change > 0 else '-'}{units.size(abs(change))}" if memory else ""
    return Advice("WEB_CONCURRENCY", str(count), str(signals.workers_target), why, f"{expect}{each}.")


def fewer_connections(signals: Signals, ceiling: int) -> tuple[Advice, ...]:
    """Advise one worker more, and that none takes connections which others have room for."""
    more = min(signals.workers_target + 1, max(ceiling, signals.workers_target))
    each = max(1, math.ceil(2 * load.demand(signals) / PLANNED / more))
    advice = workers(
        signals,
        more,
        f"The busiest of {units.workers(signals.workers_target)} is busy {units.percent(signals.busy_by_worker[0])} "
        f"of the time, all together {units.percent(signals.busy)}.",
        f"The same {units.requests(load.demand(signals))} at a time on {units.workers(more)}",
    )
    known = WORKER_CLASSES.get(signals.worker_class)
    if known is None or known.capacity != "worker_connections" or each >= signals.slots:
        return advice
    line = Advice(
        _CONNECTIONS,
        str(each),
        f"{signals.slots:.0f}",
        f"2 x {load.demand(signals):.0f} requests at a time / ({PLANNED} x {units.workers(more)}) = {each}: "
        "connections that are kept open count too.",
        f"A worker with {each} connections leaves the next one to others; {each * more} fit in all.",
    )
    return (*advice, line)


def more_cpu(signals: Signals) -> tuple[Advice, ...]:
    """Advise cores for what runs and for what waits to run, at most twice what there is; or replicas with as many."""
    wanted = load.cores_used(signals) * (1 + signals.run_queue) / CPU_BOUND
    cores = math.ceil(2 * min(2 * signals.cores, max(1.25 * signals.cores, wanted))) / 2
    share = units.percent(min(1.0, wanted / cores * CPU_BOUND))
    expect = f"CPU at about {share} of {cores:g} cores."
    line = Advice("APP_CPUS", f"{cores:.1f}", f"{signals.cores:.3g}", f"{_cpu_use(signals)}.", expect)
    return line, more_replicas(signals, cores / signals.cores)


def more_replicas(signals: Signals, factor: float = 1.0) -> Advice:
    """Advise replicas on other machines: so many times as many, and one more at least."""
    servers = max(signals.servers + 1, math.ceil(signals.servers * min(factor, _MOST)))
    share = units.percent(signals.servers / servers)
    expect = f"Each of {servers} servers gets {share} of what each has now."
    return Advice(
        "REPLICAS", str(servers), str(signals.servers), f"{_cpu_use(signals)}; other machines have more.", expect
    )


def _cpu_use(signals: Signals) -> str:
    used, waited = load.cores_used(signals), units.duration(signals.run_queue)
    uses = f"The workers use {used:.2g} of {units.cores(signals.cores)}"
    return f"{uses}, and a second of running comes with {waited} of waiting for a CPU"


def more_memory(signals: Signals, limits: Limits, fitting: int) -> tuple[Advice, ...]:
    """Advise memory for the workers that there are, or as many workers as fit."""
    advice: tuple[Advice, ...] = ()
    if signals.memory_limit and signals.memory_share:
        used = signals.memory_share * signals.memory_limit
        wanted = math.ceil(max(used / CPU_BOUND, used + _MEMORY_STEP) / _MEMORY_STEP) * _MEMORY_STEP
        advice = (
            Advice(
                "APP_MEMORY",
                f"{wanted // _MIB}m",
                f"{signals.memory_limit / _MIB:.0f}m",
                f"{units.size(used)} of {units.size(signals.memory_limit)} are used; at the limit the kernel kills.",
                f"{units.percent(used / wanted)} of {units.size(wanted)} are used, by the same workers.",
            ),
        )
    fewer = max(limits.floor, min(fitting, signals.workers_target - 1))
    if fewer >= signals.workers_target:
        return advice
    why = (
        f"{units.workers(signals.workers_target)} of up to {units.size(signals.worker_memory_p95 or 0.0)} are too many."
    )
    expect = f"Memory stays below {units.percent(MEMORY_HIGH)} of its limit"
    return (*advice, *workers(signals, fewer, why, expect))


def recycling(signals: Signals) -> tuple[Advice, ...]:
    """Advise that workers are replaced after the requests of two hours, at random moments."""
    each = signals.requests_per_second / max(1, signals.workers_target) * _LIFE_SECONDS
    low, high = _LIFE_REQUESTS
    count = min(high, max(low, _rounded(each)))
    gains = f"A worker gains {units.size(signals.leak_bytes)} over its life, at least three times in a row"
    return (
        Advice(
            "GUNICORN_MAX_REQUESTS",
            str(count),
            _UNKNOWN,
            f"{gains}; {count} requests are about {units.duration(_LIFE_SECONDS)} of its share. If it is set to less "
            "already, halve it.",
            f"Each worker is replaced after {count} requests, before it has gained much; find what it keeps.",
        ),
        Advice(
            "GUNICORN_MAX_REQUESTS_JITTER",
            str(count // 10),
            _UNKNOWN,
            f"{gains}; without jitter all {signals.workers_target} would be replaced at the same moment.",
            f"They leave up to {count // 10} requests apart.",
        ),
    )


def _rounded(number: float) -> int:
    """Round to two digits: more would pretend to know."""
    if number < 1:
        return 0
    digits = math.floor(math.log10(number)) - 1
    return int(round(number / 10**digits) * 10**digits) if digits >= 0 else round(number)
