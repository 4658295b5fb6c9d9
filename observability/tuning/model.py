"""What the tuner's parts hand to one another: signals, limits, history, a decision, and what came of it.

All of it is plain data, frozen, and JSON-ready by `dataclasses.asdict`: a decision can be written down with its inputs
and made again from them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

THREADED = frozenset({"gthread"})
SLOTTED = frozenset({"sync", "gthread"})  # a slot is a worker or a thread; event loops run out of time, not of slots


class Mode(StrEnum):
    """How far the tuner goes."""

    OFF = "off"
    RECOMMEND = "recommend"
    APPLY = "apply"


class Action(StrEnum):
    """What is to be done to the number of workers."""

    ADD = "add_worker"
    REMOVE = "remove_worker"
    HOLD = "hold"  # nothing, whether there is advice or not


class Outcome(StrEnum):
    """What became of a decision."""

    RECOMMENDED = "recommended"  # said, and not done: the mode, or the platform, leaves it to people
    APPLIED = "applied"
    REFUSED = "refused"  # the server or the agent would not: a reload under way, say
    FAILED = "failed"  # nobody answered, or the workers never came to the target
    KEPT = "kept"  # of an applied one: it helped, or at least did no harm
    UNDONE = "undone"  # of an applied one: it harmed, or gained nothing
    INCONCLUSIVE = "inconclusive"  # of an applied one: the load changed meanwhile
    NONE = "none"  # nothing was to be done


@dataclass(frozen=True)
class Signals:
    """What the decision table needs of one server at one moment.

    Rates are over the last minute unless said otherwise. None is for what nobody told: no proxy, no control group, no
    request in the window. Times are Unix seconds, durations seconds, memory bytes.

    Args:
        server: what Prometheus calls the instance: the agent's host and port.
        time: when the newest sample was taken.
        age: how long ago that was, for the oldest of the samples that a decision rests on.
        worker_class: as gunicorn names it: sync, gthread, gevent, asgi ...
        workers_target: workers that the master wants.
        workers_live: workers that are alive, and have loaded the app.
        slots: concurrent requests that a worker can take: 1, its threads, its connections.
        cores: the control group's CPU quota, else the host's cores.
        requests_per_second: requests finished.
        requests: requests finished in the window.
        in_flight: requests in flight, as their mean over the window.
        service_seconds: mean time in service, without any queue.
        cpu_seconds_per_request: mean CPU time of the workers for a request.
        duration_p99: 99 of 100 requests were faster.
        duration_p99_usual: the same, as its median over the last hour.
        queue_p95: Q; from the proxy's X-Request-Start, else from what waits (Little's law), as `queue_source` says.
        queue_source: "proxy", "threads", "backlog", or "none".
        queued: requests that wait for a thread.
        backlog: connections that wait to be accepted.
        backlog_limit: how many may.
        busy: U; mean over the workers of the share of time in which each could take no more.
        busy_by_worker: the same of each worker, the busiest first.
        busy_rising: whether U is higher than it was five minutes ago, by a tenth or more.
        busy_changing: whether U is another than it was a window ago, by a tenth or more, or nobody knows what it was.
        cpu_share: C; CPU used by the workers / cores.
        run_queue: R; seconds that threads waited for a CPU / seconds that they had one.
        throttled: share of the quota's periods in which the group was stopped.
        memory_share: M; memory used / the control group's limit.
        memory_limit: the control group's.
        worker_memory_p95: PSS of a large worker.
        master_memory: what the group uses beside the workers.
        oom_kills: kills for want of memory in the last ten minutes.
        timeouts: T; workers that timed out in the last five minutes.
        loop_lag_p99: of the event loops.
        loop_blocked: times that a call blocked an event loop in the last five minutes.
        error_ratio: share of requests that failed on our side.
        errors_burning: whether an availability objective is burning.
        leak_bytes: PSS that a worker gains over its life, over at least three lives in a row; 0 where none does.
        low_seconds: how long U < 0.25 and Q about 0 have lasted, as far as one looked back (15 minutes).
        quiet_peak: the most requests in flight, as a window's mean, in the last ten minutes (`idle_seconds`); None
            where 95 of 100 waited for more than 25 ms meanwhile, or nobody looked for so long.
        boot_seconds: how long a worker takes from its fork to its first heartbeat.
        reloading: whether a reload is under way, or was in the last minute.
        preload: whether the master has loaded the app.
        servers: servers of the same job that are up, this one among them: its replicas.
    """

    server: str
    time: float
    age: float
    worker_class: str
    workers_target: int
    workers_live: int
    slots: float
    cores: float
    requests_per_second: float = 0.0
    requests: float = 0.0
    in_flight: float = 0.0
    service_seconds: float | None = None
    cpu_seconds_per_request: float | None = None
    duration_p99: float | None = None
    duration_p99_usual: float | None = None
    queue_p95: float | None = None
    queue_source: str = "none"
    queued: float = 0.0
    backlog: float = 0.0
    backlog_limit: float | None = None
    busy: float = 0.0
    busy_by_worker: tuple[float, ...] = ()
    busy_rising: bool = False
    busy_changing: bool = False
    cpu_share: float = 0.0
    run_queue: float = 0.0
    throttled: float = 0.0
    memory_share: float | None = None
    memory_limit: float | None = None
    worker_memory_p95: float | None = None
    master_memory: float | None = None
    oom_kills: float = 0.0
    timeouts: float = 0.0
    loop_lag_p99: float | None = None
    loop_blocked: float = 0.0
    error_ratio: float = 0.0
    errors_burning: bool = False
    leak_bytes: float = 0.0
    low_seconds: float = 0.0
    quiet_peak: float | None = None
    boot_seconds: float = 1.0
    reloading: bool = False
    preload: bool = False
    servers: int = 1

    @property
    def settled(self) -> bool:
        """Tell whether as many workers live as are wanted, and none is being replaced."""
        return self.workers_live == self.workers_target and not self.reloading


@dataclass(frozen=True)
class Limits:
    """What people allow.

    Args:
        floor: workers that are never gone below.
        ceiling: workers that are never gone above; 0 leaves it to memory and to what was learned.
        queue_objective: seconds of Q above which requests wait too long.
        actions_per_hour: most changes of one server in an hour.
        fresh_seconds: age above which signals decide nothing: two scrapes.
        grow_seconds: seconds from a change to growth, at least; twice the time to boot where that is more.
        shrink_seconds: seconds from a change to a removal, at least; more where removals had to be taken back.
        idle_seconds: seconds that little must have been to do before a worker is removed.
        window_seconds: seconds that rates are taken over; a step is judged when such a window lies after it.
        learned_seconds: seconds that a learned ceiling holds.
    """

    floor: int = 2
    ceiling: int = 0
    queue_objective: float = 0.05
    actions_per_hour: int = 6
    fresh_seconds: float = 15.0
    grow_seconds: float = 60.0
    shrink_seconds: float = 600.0
    idle_seconds: float = 600.0
    window_seconds: float = 60.0
    learned_seconds: float = 86_400.0


@dataclass(frozen=True)
class Step:
    """One change of the number of workers that was made.

    Args:
        time: when.
        action: add or remove.
        before: workers wanted before.
        after: workers wanted after.
        rule: the row that said so.
        outcome: applied while it is being watched; then kept, undone or inconclusive.
        signals: what the decision rested on, for the comparison.
    """

    time: float
    action: Action
    before: int
    after: int
    rule: str
    outcome: Outcome
    signals: Signals | None = None


@dataclass(frozen=True)
class History:
    """What the tuner remembers of one server, over restarts.

    Args:
        steps: changes made, the oldest first; a day of them at most.
        learned_ceiling: a count beyond which growth did not help; 0 where none is known.
        learned_until: when that is forgotten.
        accepted: the count that the last evaluation left; what a reload loses, and should be set.
    """

    steps: tuple[Step, ...] = ()
    learned_ceiling: int = 0
    learned_until: float = 0.0
    accepted: int = 0


@dataclass(frozen=True)
class Advice:
    """One setting to change, for which a restart is needed.

    Args:
        variable: the environment variable.
        value: what to set it to.
        now: what it is now, as far as one knows.
        why: one sentence.
        expect: what should become of it, one sentence.
    """

    variable: str
    value: str
    now: str
    why: str
    expect: str

    @property
    def line(self) -> str:
        """The line to put into the environment."""
        return f"{self.variable}={self.value}"


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why.

    Args:
        action: what to do to the number of workers.
        rule: the name of the row that matched; "well" where none did.
        diagnosis: what it means, one sentence for a person.
        reason: the numbers that made the row match, one sentence; or what kept the action from being taken.
        workers: the count that is wanted after it.
        ceiling: the count that growth would have ended at.
        vetoes: what forbids growth: memory, cpu, errors, stuck, cool_down, limit, traffic, unsettled, stale.
        advice: settings to change.
        urgency: 0 nothing to do, 1 when there is time, 2 soon, 3 now.
        numbers: the signals that the row looked at.
    """

    action: Action
    rule: str
    diagnosis: str
    reason: str
    workers: int
    ceiling: int
    vetoes: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    urgency: int = 0
    numbers: dict[str, float | str | None] = field(default_factory=dict)
