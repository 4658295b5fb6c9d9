"""Each worker apart: what it does, what it waits for, and how it ends."""

from typing import Final

from dashboards import palette
from dashboards.events import DEATHS, DEPLOYS, RELOADS, WORKER_DEATHS
from dashboards.frame import SERVICE, WORKER, Dashboard
from dashboards.panels import Panel, Query, graph, query, slots, stat, table
from dashboards.thresholds import above, limit, limits

OF: Final = '@,worker=~"$worker"'
BY: Final = ("instance", "worker")
MOST: Final = 40
NAME: Final = "{{instance}} worker {{worker}}"
NO_SERVER: Final = "no server is seen"
HERE: Final = (
    "Only this worker",
    "/d/sightline-workers?${__url_time_range}&${datasource:queryparam}&${environment:queryparam}&${job:queryparam}"
    "&var-instance=${__field.labels.instance}&var-worker=${__field.labels.worker}",
)
STUCK: Final = max(limits("WorkerStuck", "warning", "oldest_request"))
CAUSES: Final = {
    "timeout": palette.VERMILION,
    "oom_killed": palette.WINE,
    "killed": palette.ORANGE,
    "crashed": palette.PURPLE,
    "boot_failed": palette.YELLOW,
    "recycled": palette.SKY,
    "reloaded": palette.BLUE,
    "scaled_down": palette.GREY,
    "shutdown": palette.SAND,
}


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-workers",
        "Sightline / Workers",
        "What does each worker do, and why did its predecessor end?",
        variables=(*SERVICE, WORKER),
        annotations=(DEPLOYS, RELOADS, WORKER_DEATHS),
        rows=[
            ("Now", [_now()]),
            ("How busy", [_busy()]),
            ("Requests", [_requests()]),
            ("Stuck or waiting", [_waiting(), _loops()]),
            ("What they use", [_resources()]),
            ("How they end", [_ends()]),
        ],
    )


def _each(metric: str, needs: str = "") -> Query:
    """Ask for a gauge of each worker."""
    return query(f"max by (instance, worker) ({metric}{{{OF}}})", NAME, by=BY, most=MOST, needs=needs)


def _rate(metric: str) -> Query:
    """Ask for a counter of each worker, per second."""
    return query(f"sum by (instance, worker) (rate({metric}{{{OF}}}[$__rate_interval]))", NAME, by=BY, most=MOST)


def _now() -> list[Panel]:
    return [
        stat(
            "Workers",
            "Workers that live, and that are wanted. Fewer live for longer than a boot takes: see how they end, below.",
            "short",
            [
                query('sum(gunicorn_workers{@,state="live"})', "live", most=1),
                query('sum(gunicorn_workers{@,state="target"})', "wanted", most=1),
            ],
            alerts=["WorkersBelowTarget"],
            empty=NO_SERVER,
            width=6,
        ),
        stat(
            "In flight",
            "Requests that are being answered at this moment. Compare it with the workers: as many on sync workers "
            "means that the next one waits: raise WEB_CONCURRENCY, or take threads.",
            "short",
            [query(f"sum(gunicorn_worker_active_requests{{{OF}}})", "in flight", most=1)],
            empty=NO_SERVER,
        ),
        stat(
            "Oldest request",
            "Age of the oldest request in flight. Above the limit its worker is stuck: "
            "`python -m observability top` shows the line where it stands.",
            "s",
            [query(f"max(gunicorn_worker_oldest_request_age_seconds{{{OF}}})", "oldest", most=1)],
            limits=above(STUCK),
            alerts=["WorkerStuck"],
            empty=NO_SERVER,
        ),
        stat(
            "Died unasked",
            "Workers that ended in five minutes, as the alerts count them, without being asked to: killed, crashed, "
            "timed out, or not booted. Any is worth a look at its cause below.",
            "short",
            [
                query(
                    f'sum(instance_cause:gunicorn_worker_exits:increase5m{{@,cause=~"{DEATHS}"}})',
                    "died",
                    most=1,
                )
            ],
            limits=above(limit("WorkerTimeouts", "warning"), limit("WorkerCrashLoop", "critical")),
            decimals=0,
            alerts=["WorkerCrashLoop", "WorkerTimeouts", "WorkerOutOfMemoryKills", "WorkerBootFailing"],
            empty=NO_SERVER,
        ),
        stat(
            "Requests lost",
            "Requests in this period that ended with their worker, and that no other metric counts. "
            "Their clients saw an error: the log names each, under the worker's exit.",
            "short",
            [query("sum(increase(gunicorn_requests_lost_total{@}[$__range]))", "lost", most=1)],
            decimals=0,
            alerts=["SloAvailabilityBurning"],
            empty=NO_SERVER,
        ),
    ]


def _busy() -> list[Panel]:
    full = limit("LoadUneven", "warning", "max by")
    return [
        slots(
            "Busy by worker",
            "A row is a worker, a cell a moment: blue has room, yellow is half full, red can take no more. All red: "
            "the server is full. One red row among blue ones: the load is uneven, or that worker is stuck.",
            "percentunit",
            [_each("gunicorn_worker_busy_ratio")],
            high=1,
            alerts=["WorkersSaturated", "LoadUneven"],
            links=[HERE],
            height=10,
            width=14,
        ),
        graph(
            "Spread of the load",
            "How busy the busiest, the mean and the idlest worker of each server are. Far apart, with the busiest at "
            "the line: some users wait although there is room. Fewer kept connections, or more workers, spread it.",
            "percentunit",
            [
                query(
                    f"{of} by (instance) (gunicorn_worker_busy_ratio{{{OF}}})",
                    f"{{{{instance}}}} {name}",
                    by=["instance"],
                    most=10,
                )
                for of, name in (("max", "busiest"), ("avg", "mean"), ("min", "idlest"))
            ],
            high=1,
            limits=above(full),
            alerts=["LoadUneven"],
            height=10,
            width=10,
        ),
    ]


def _requests() -> list[Panel]:
    return [
        graph(
            "Requests by worker",
            "Requests finished each second. A flat zero beside busy others is a stuck worker. "
            "A worker has the same colour in all graphs below; the pointer names it.",
            "reqps",
            [_rate("gunicorn_worker_requests_total")],
            stacked=True,
            colours=palette.WORKERS,
            legend="right",
            links=[HERE],
            alerts=["WorkerStuck"],
            width=12,
        ),
        graph(
            "In flight by worker",
            "Requests that each worker is answering. One line far above the others is skew; all at their capacity, "
            "and the next request waits.",
            "short",
            [_each("gunicorn_worker_active_requests")],
            stacked=True,
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["LoadUneven"],
        ),
        graph(
            "Failed by worker",
            "Requests that failed each second. One worker alone points to that process, all of them to the code "
            "or to a dependency.",
            "reqps",
            [_rate("gunicorn_worker_errors_total")],
            stacked=True,
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["SloAvailabilityBurning"],
        ),
    ]


def _waiting() -> list[Panel]:
    return [
        graph(
            "Oldest request by worker",
            "How long the oldest request of each worker has been running. A line that climbs without end is a request "
            "that hangs: `python -m observability top` shows where it stands.",
            "s",
            [_each("gunicorn_worker_oldest_request_age_seconds")],
            colours=palette.WORKERS,
            legend=False,
            limits=above(STUCK),
            links=[HERE],
            alerts=["WorkerStuck"],
        ),
        graph(
            "Heartbeat age",
            "Time since each worker last told the master that it lives. At GUNICORN_TIMEOUT it is killed, with all of "
            "its requests; idle sync workers beat as seldom as every 15 s.",
            "s",
            [_each("gunicorn_worker_heartbeat_age_seconds")],
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["WorkerStuck", "WorkerTimeouts"],
        ),
        graph(
            "Queued inside workers",
            "Requests that a gthread worker has accepted and that wait for one of its threads; no timeout covers them. "
            "Above nothing for long: raise GUNICORN_THREADS, while CPU allows.",
            "short",
            [_each("gunicorn_worker_queued_requests", needs="gthread")],
            stacked=True,
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["WorkerThreadsExhausted"],
            empty="no server has gthread workers",
        ),
    ]


def _loops() -> list[Panel]:
    lag = f"sum by (instance, worker, le) (rate(gunicorn_worker_loop_lag_seconds_bucket{{{OF}}}[$__rate_interval]))"
    return [
        graph(
            "Loop lag p99",
            "How late a timer on the event loop runs in 99 of 100 cases: every request of the worker waits that long. "
            "Above some milliseconds, calls block the loop, or there are too many for one core.",
            "s",
            [query(f"histogram_quantile(0.99, {lag}) >= 0", NAME, by=BY, most=MOST, needs="loop")],
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["WorkerLoopBlocked"],
            empty="no server has an event loop (gevent, asgi)",
        ),
        graph(
            "Loop late now",
            "How late each event loop is at this moment. A line that climbs is a call that still blocks it; "
            "the log has its stack, under event.name gunicorn.worker.loop_blocked.",
            "s",
            [_each("gunicorn_worker_loop_late_seconds", needs="loop")],
            colours=palette.WORKERS,
            legend=False,
            limits=above(limit("WorkerLoopBlocked", "warning", "loop_late")),
            links=[HERE],
            alerts=["WorkerLoopBlocked"],
            empty="no server has an event loop (gevent, asgi)",
        ),
    ]


def _resources() -> list[Panel]:
    cpu = "instance_worker:gunicorn_worker_cpu_cores:rate5m"
    return [
        graph(
            "CPU by worker",
            "Cores that each worker uses, over five minutes. At 1, its Python code has no more to get: "
            "more workers help, if there are cores.",
            "none",
            [query(f"{cpu}{{{OF}}}", NAME, by=("job", *BY), most=MOST)],
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["CpuStarved"],
        ),
        graph(
            "Memory by worker",
            "Memory of each worker, with shared pages divided among those who share them, so that it adds up. "
            "A saw-tooth is recycling; a line that climbs for hours is a leak: set GUNICORN_MAX_REQUESTS, and find it.",
            "bytes",
            [_each("gunicorn_worker_proportional_memory_bytes")],
            stacked=True,
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["MemoryLeaking", "MemoryNearLimit"],
        ),
        graph(
            "Age by worker",
            "Time since each worker was forked. A fall to zero is a new worker: asked for if all fall together, "
            "and else to be found among the ends.",
            "s",
            [
                query(
                    f"time() - max by (instance, worker) (gunicorn_worker_start_time_seconds{{{OF}}})",
                    NAME,
                    by=BY,
                    most=MOST,
                )
            ],
            colours=palette.WORKERS,
            legend=False,
            links=[HERE],
            alerts=["WorkerCrashLoop"],
        ),
    ]


def _ends() -> list[Panel]:
    ended = "sum by (cause) (increase(gunicorn_worker_exits_total{@}[$__rate_interval]))"
    return [
        graph(
            "Ends by cause",
            "Workers that ended, by cause. Recycled, reloaded, scaled down and shut down are meant, the others not: "
            "docs/causes.md says what to do about each.",
            "short",
            [query(ended, "{{cause}}", by=["cause"], most=10)],
            stacked=True,
            colours=CAUSES,
            alerts=["WorkerCrashLoop", "WorkerTimeouts", "WorkerOutOfMemoryKills", "WorkerBootFailing"],
            width=14,
        ),
        table(
            "What they are",
            "The workers and their class, which says what runs out first: docs/saturation.md. "
            "Two classes in one job: a setting reached only some of the servers.",
            "short",
            [
                query(
                    f"max by (instance, worker, worker_class) (gunicorn_worker_info{{{OF}}})",
                    "",
                    by=[*BY, "worker_class"],
                    most=MOST,
                )
            ],
            {"instance": "Instance", "worker": "Worker", "worker_class": "Class"},
            width=10,
        ),
    ]
