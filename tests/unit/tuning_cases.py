"""Servers as the tuner may find them, one for each row of its table, and servers that nobody would think of."""

from dataclasses import replace

from hypothesis import strategies as st

from observability.tuning.model import Action, History, Outcome, Signals, Step

NOW = 1_795_000_000.0
MIB = 2**20

WELL = Signals(
    server="127.0.0.1:9101",
    time=NOW - 3,
    age=3.0,
    worker_class="sync",
    workers_target=2,
    workers_live=2,
    slots=1,
    cores=2.0,
    requests_per_second=20.0,
    requests=1200.0,
    in_flight=1.0,
    service_seconds=0.05,
    cpu_seconds_per_request=0.002,
    duration_p99=0.1,
    duration_p99_usual=0.1,
    backlog_limit=2048.0,
    busy=0.5,
    busy_by_worker=(0.5, 0.5),
    cpu_share=0.02,
    run_queue=0.05,
    memory_share=0.2,
    memory_limit=768.0 * MIB,
    worker_memory_p95=45.0 * MIB,
    master_memory=60.0 * MIB,
)
# 32 clients, each of whom asks again when it is answered; 2 ms of CPU and some waiting for each request.
WAITING = replace(
    WELL,
    requests_per_second=25.0,
    requests=1500.0,
    in_flight=2.0,
    service_seconds=0.08,
    queue_p95=1.2,
    queue_source="backlog",
    backlog=30.0,
    busy=1.0,
    busy_by_worker=(1.0, 1.0),
    cpu_share=0.035,
)
THREADS = replace(
    WAITING,
    worker_class="gthread",
    slots=4,
    requests_per_second=80.0,
    requests=4800.0,
    service_seconds=0.1,
    in_flight=8.0,
    backlog=0.0,
    queued=24.0,
    queue_p95=0.3,
    queue_source="threads",
)
# The same clients, 20 ms of CPU for each request, as it was measured with two workers.
COMPUTING = replace(
    WAITING,
    requests_per_second=81.0,
    requests=4860.0,
    service_seconds=0.0245,
    cpu_seconds_per_request=0.02,
    queue_p95=0.37,
    cpu_share=0.85,
)
LOOPS = replace(
    WELL,
    worker_class="gevent",
    slots=1000,
    in_flight=30.0,
    loop_lag_p99=0.01,
    requests_per_second=100.0,
    requests=6000.0,
    busy=0.6,
)

# A server for each row, in which the row is the diagnosis.
CASES: dict[str, Signals] = {
    "memory": replace(WELL, workers_target=5, workers_live=5, memory_share=0.93, worker_memory_p95=120.0 * MIB),
    "stuck": replace(WAITING, timeouts=2.0, busy_rising=True),
    "starved": replace(COMPUTING, workers_target=4, workers_live=4, cpu_share=1.0, run_queue=1.06),
    "errors": replace(WELL, errors_burning=True, error_ratio=0.3),
    "hub_busy": replace(LOOPS, loop_lag_p99=0.3, cpu_share=0.95, run_queue=0.4, busy=1.0),
    "hub_blocked": replace(LOOPS, loop_lag_p99=0.3, cpu_share=0.1, busy=0.9, loop_blocked=6.0),
    "io_wait": WAITING,
    "threads": THREADS,
    "processes": replace(LOOPS, cores=4.0, busy=0.9, queue_p95=0.2, queue_source="proxy"),
    "cpu_bound": COMPUTING,
    "few_slots": replace(WELL, queue_p95=0.09, queue_source="proxy"),
    "contended": replace(THREADS, run_queue=1.5, cpu_share=0.4),
    "dependency": replace(WELL, worker_class="gthread", slots=16, duration_p99=1.2, busy=0.4),
    "skew": replace(LOOPS, workers_target=4, workers_live=4, busy_by_worker=(0.95, 0.2, 0.1, 0.1), busy=0.34),
    "leak": replace(WELL, leak_bytes=30.0 * MIB),
    "idle": replace(WELL, workers_target=5, workers_live=5, busy=0.1, low_seconds=700.0),
    "backlog": replace(WELL, backlog=1900.0, queue_p95=0.01),
    "changing": replace(WELL, queue_p95=0.3, queue_source="proxy", busy=0.3, busy_changing=True),
    "unclear": replace(WELL, queue_p95=0.3, queue_source="proxy", in_flight=0.2, busy=0.1),
}


def live(signals: Signals, workers: int, **changes: object) -> Signals:
    """Return the same server with so many workers."""
    return replace(signals, workers_target=workers, workers_live=workers, **changes)


def step(
    before: Signals,
    after: int,
    ago: float = 100.0,
    rule: str = "io_wait",
    outcome: Outcome = Outcome.APPLIED,
) -> Step:
    """Return a change of a server that was made so many seconds ago."""
    action = Action.ADD if after > before.workers_target else Action.REMOVE
    return Step(NOW - ago, action, before.workers_target, after, rule, outcome, before)


def kept(*changes: tuple[float, int, int], accepted: int = 0) -> History:
    """Return a history of changes that were kept: seconds ago, from, to."""
    steps = (step(live(WELL, before), after, ago, "io_wait", Outcome.KEPT) for ago, before, after in changes)
    return History(tuple(steps), accepted=accepted)


def _some(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


_MAYBE = {
    "requests_per_second": _some(0, 1000),
    "requests": _some(0, 60_000),
    "in_flight": _some(0, 2000),
    "service_seconds": st.none() | _some(0, 60),
    "cpu_seconds_per_request": st.none() | _some(0, 5),
    "duration_p99": st.none() | _some(0, 60),
    "queue_p95": st.none() | _some(0, 60),
    "queued": _some(0, 500),
    "backlog": _some(0, 2048),
    "busy": _some(0, 1),
    "busy_rising": st.booleans(),
    "busy_changing": st.booleans(),
    "cpu_share": _some(0, 1.2),
    "run_queue": _some(0, 20),
    "throttled": _some(0, 1),
    "cores": _some(0.1, 64),
    "memory_share": st.none() | _some(0, 1),
    "memory_limit": st.none() | _some(64 * MIB, 1e12),
    "worker_memory_p95": st.none() | _some(0, 1e10),
    "master_memory": st.none() | _some(0, 1e9),
    "oom_kills": _some(0, 3),
    "timeouts": _some(0, 5),
    "loop_lag_p99": st.none() | _some(0, 5),
    "loop_blocked": _some(0, 20),
    "error_ratio": _some(0, 1),
    "errors_burning": st.booleans(),
    "leak_bytes": _some(0, 1e9),
    "low_seconds": _some(0, 900),
    "quiet_peak": st.none() | _some(0, 2000),
    "boot_seconds": _some(0, 300),
    "reloading": st.booleans(),
    "slots": _some(0, 1000),
    "worker_class": st.sampled_from(["sync", "gthread", "gevent", "asgi", "tornado", "unheard-of"]),
    "servers": st.integers(1, 50),
    "busy_by_worker": st.lists(_some(0, 1), max_size=6).map(lambda each: tuple(sorted(each, reverse=True))),
}


@st.composite
def servers(draw: st.DrawFn) -> Signals:
    """Draw one of the cases above with some of its signals changed to anything that they may be."""
    base = draw(st.sampled_from([WELL, *CASES.values()]))
    names = draw(st.lists(st.sampled_from(sorted(_MAYBE)), max_size=5, unique=True))
    workers = draw(st.integers(1, 40))
    return live(base, workers, **{name: draw(_MAYBE[name]) for name in names})
