"""Whether the server needs other settings: what is full, what waits, and what the tuner makes of it."""

from typing import Any, Final

from dashboards import palette, tuning
from dashboards.events import DEPLOYS, RELOADS, TUNED, WORKER_DEATHS
from dashboards.frame import SERVICE, Dashboard
from dashboards.panels import Panel, Query, graph, query, stat
from dashboards.thresholds import Limits, above, limit

BY: Final = ("job", "instance")  # as the recorded rules have it
MOST: Final = 10
QUEUEING: Final = above(
    limit("RequestsQueueing", "warning", "queue_seconds:p95"),
    limit("RequestsQueueing", "critical", "queue_seconds:p95"),
)
FULL: Final = above(limit("WorkersSaturated", "warning"))
STARVED: Final = above(limit("CpuStarved", "warning", "run_queue"))
THROTTLED: Final = above(limit("CpuStarved", "warning", "throttled"))
CORES: Final = limit("CpuStarved", "warning", "cpu_cores")  # from where on waiting counts
NEAR: Final = above(limit("MemoryNearLimit", "warning"))
WORKERS: Final = {
    "/ live$/": palette.BLUE,
    "/ set$/": palette.ORANGE,
    "/ tuner$/": palette.VERMILION,
    "/ ceiling$/": palette.GREY,
}
MAY_RECOMMEND: Final = 'tuner_mode{job="tuner",mode="recommend"}'
MAY_APPLY: Final = 'tuner_mode{job="tuner",mode="apply"}'
UNTIMED: Final = "nobody asks for anything, or no proxy sets X-Request-Start"
NO_QUOTA: Final = "no control group has a limit that the agent can read"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-saturation",
        "Sightline / Saturation and tuning",
        "Does it need other settings?",
        variables=SERVICE,
        annotations=(DEPLOYS, RELOADS, TUNED, WORKER_DEATHS),
        rows=[
            ("Now", [_now()]),
            ("What waits", [_waiting()]),
            ("Workers", [_workers(), [*_wanted(), *tuning.advice()]]),
            ("CPU and memory", [_cpu(), [*_throttled(), *_memory()]]),
            ("The tuner", [tuning.decisions(), tuning.effect()]),
        ],
        period="now-1h",
    )


def _recorded(name: str, legend: str = "{{instance}}", needs: str = "") -> Query:
    """Ask for a recorded number of each server."""
    return query(f"{name}{{@}}", legend, by=BY, most=MOST, needs=needs)


def _worst(
    title: str, description: str, unit: str, name: str, limits: Limits, alert: str, needs: str = "", **more: Any
) -> Panel:
    """Show the worst server's recorded number."""
    return stat(
        title,
        description,
        unit,
        [query(f"max({name}{{@}})", "worst server", most=1, needs=needs)],
        limits=limits,
        alerts=[alert],
        **more,
    )


def _now() -> list[Panel]:
    return [
        _worst(
            "Queue time p95",
            "What 95 of 100 requests waited at most before the app, on the worst server. Above the limit something "
            "below is full: more workers, threads, or CPU.",
            "s",
            "instance:http_server_request_queue_seconds:p95_rate1m",
            QUEUEING,
            "RequestsQueueing",
            empty=UNTIMED,
        ),
        _worst(
            "Busy",
            "Share of the time in which the workers of the worst server could take no more work. "
            "Above the limit: raise WEB_CONCURRENCY or GUNICORN_THREADS while CPU and memory allow.",
            "percentunit",
            "instance:gunicorn_worker_busy_ratio:avg",
            FULL,
            "WorkersSaturated",
            empty="no server is seen",
        ),
        _worst(
            "Memory used",
            "Share of its memory limit that the worst server uses. Near the limit the kernel kills workers: "
            "fewer workers, or more memory.",
            "percentunit",
            "instance:cgroup_memory:ratio",
            NEAR,
            "MemoryNearLimit",
            needs="quota",
            empty=NO_QUOTA,
        ),
        stat(
            "Mode of the tuner",
            "What the tuner may do: nothing, recommend, or apply. TUNER_MODE sets it; docs/decisions.md explains it.",
            "short",
            [query(f"max({MAY_RECOMMEND} or 2 * {MAY_APPLY})", "mode", most=1, needs="tuner")],
            states={0: ("off", palette.GREY), 1: ("recommend", palette.SKY), 2: ("apply", palette.BLUE)},
            empty=tuning.NO_TUNER,
        ),
    ]


def _waiting() -> list[Panel]:
    dropped = "sum by (instance) (increase(gunicorn_listen_drops_total{@}[$__rate_interval]))"
    return [
        graph(
            "Queue time by server",
            "What 95 of 100 requests waited at most between the proxy and the app. On a server with room it is a few "
            "milliseconds; above the lines, users feel it.",
            "s",
            [_recorded("instance:http_server_request_queue_seconds:p95_rate1m")],
            limits=QUEUEING,
            alerts=["RequestsQueueing"],
            empty=UNTIMED,
        ),
        graph(
            "Listen backlog used",
            "Connections that wait to be accepted, as a share of the places. Where it is full the kernel drops them. "
            "A longer backlog only makes the wait longer: more workers drain it.",
            "percentunit",
            [
                query(
                    "sum by (instance, listener) (gunicorn_listen_backlog{@})"
                    " / sum by (instance, listener) (gunicorn_listen_backlog_limit{@})",
                    "{{instance}} {{listener}}",
                    by=["instance", "listener"],
                    most=MOST,
                )
            ],
            limits=above(critical=limit("ListenBacklogGrowing", "critical")),
            alerts=["ListenBacklogGrowing"],
        ),
        graph(
            "Connections dropped",
            "Connections that the kernel dropped at a full backlog. Their clients saw seconds of delay, or an error: "
            "raise WEB_CONCURRENCY or GUNICORN_THREADS.",
            "short",
            [query(dropped, "{{instance}}", by=["instance"], most=MOST)],
            alerts=["ListenBacklogOverflowing"],
        ),
    ]


def _workers() -> list[Panel]:
    return [
        graph(
            "Busy by server",
            "Share of the time in which the workers could take no more work, as a mean over each server. "
            "Above the line what comes waits; below a quarter for hours there are too many.",
            "percentunit",
            [_recorded("instance:gunicorn_worker_busy_ratio:avg")],
            high=1,
            limits=FULL,
            alerts=["WorkersSaturated", "WorkersOverProvisioned"],
        ),
        graph(
            "Slots needed and there",
            "Requests that ran at the same time, as their mean over a minute (Little's law), and how many can. "
            "The first near the second: raise one setting. On an event loop the second is no bound: see its lag.",
            "none",
            [
                _recorded("instance:gunicorn_worker_busy_seconds:rate1m", "{{instance}} needed"),
                query(
                    "sum by (job, instance) (gunicorn_worker_capacity_requests{@})",
                    "{{instance}} there",
                    by=BY,
                    most=MOST,
                ),
            ],
            logarithmic=True,
            alerts=["WorkersSaturated"],
        ),
    ]


def _wanted() -> list[Panel]:
    return [
        graph(
            "Workers and what the tuner wants",
            "Workers that live, that are set, and that the tuner holds right or would go up to. "
            "Live below set: they do not boot. The tuner above set: apply it, or let it.",
            "short",
            [
                query(
                    'sum by (instance) (gunicorn_workers{@,state="live"})',
                    "{{instance}} live",
                    by=["instance"],
                    most=MOST,
                ),
                query(
                    'sum by (instance) (gunicorn_workers{@,state="target"})',
                    "{{instance}} set",
                    by=["instance"],
                    most=MOST,
                ),
                query(
                    f"max by (server) (tuner_target_workers{{{tuning.OF_TUNER}}})",
                    "{{server}} tuner",
                    by=["server"],
                    most=MOST,
                    needs="tuner",
                ),
                query(
                    f"max by (server) (tuner_ceiling_workers{{{tuning.OF_TUNER}}})",
                    "{{server}} ceiling",
                    by=["server"],
                    most=MOST,
                    needs="tuner",
                ),
            ],
            colours=WORKERS,
            legend="right",
            alerts=["WorkersBelowTarget"],
            width=16,
        ),
    ]


def _cpu() -> list[Panel]:
    return [
        graph(
            "CPU used",
            "Cores that the workers of each server use, and how many it may: those it is bound to, or its quota. "
            "Where the lines meet, workers wait for a CPU: fewer workers, or more cores.",
            "none",
            [
                _recorded("instance:gunicorn_worker_cpu_cores:rate1m", "{{instance}} used"),
                query(
                    "max by (instance) (gunicorn_usable_cpu_cores{@})",
                    "{{instance}} may use",
                    by=["instance"],
                    most=MOST,
                ),
            ],
            legend="right",
            alerts=["CpuStarved"],
        ),
        graph(
            "CPU waited for",
            "Seconds that threads were ready to run and waited, per second that they ran. Above the line, half of the "
            f"time and more is waiting: more workers make it worse. It means nothing of a server that uses less than "
            f"{CORES:g} cores, as CPU used, beside, tells.",
            "none",
            [_recorded("instance:gunicorn_worker_run_queue:ratio_rate1m")],
            limits=STARVED,
            alerts=["CpuStarved"],
            empty="no worker uses a CPU",
        ),
    ]


def _throttled() -> list[Panel]:
    return [
        graph(
            "Throttled",
            "Share of the quota's periods in which the server was stopped, its quota used up. "
            "Raise the quota, or lower WEB_CONCURRENCY.",
            "percentunit",
            [_recorded("instance:cgroup_cpu_throttled_periods:ratio_rate1m", needs="quota")],
            limits=THROTTLED,
            alerts=["CpuStarved"],
            empty=NO_QUOTA,
        ),
    ]


def _memory() -> list[Panel]:
    return [
        graph(
            "Memory against its limit",
            "What the workers of each server use together, shared pages counted once; what its control group uses, "
            "without file pages that the kernel can drop; and its limit. Divide what is left by what one worker has "
            "before you add one.",
            "bytes",
            [
                _recorded("instance:gunicorn_worker_proportional_memory_bytes:sum", "{{instance}} workers"),
                query(
                    "max by (instance) (cgroup_memory_used_bytes{@})",
                    "{{instance}} used",
                    by=["instance"],
                    most=MOST,
                    needs="quota",
                ),
                query(
                    "max by (instance) (cgroup_memory_limit_bytes{@})",
                    "{{instance}} limit",
                    by=["instance"],
                    most=MOST,
                    needs="quota",
                ),
            ],
            alerts=["MemoryNearLimit", "MemoryLeaking", "WorkerOutOfMemoryKills"],
        ),
    ]
