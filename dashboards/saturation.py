"""Whether the server needs other settings: what is full, what waits, and what the tuner makes of it."""

from typing import Any, Final

from dashboards import palette
from dashboards.events import DEPLOYS, RELOADS, WORKER_DEATHS
from dashboards.frame import SERVICE, Dashboard
from dashboards.panels import Panel, Query, graph, query, slots, stat, table
from dashboards.thresholds import Limits, above, limit

BY: Final = ("job", "instance")  # as the recorded rules have it
MOST: Final = 10
OF_TUNER: Final = 'server=~"$instance"'
TO_DO: Final = f'{OF_TUNER},outcome!="none"'  # each evaluation that finds nothing to do is counted too
QUEUEING: Final = above(
    limit("RequestsQueueing", "warning", "queue_seconds:p95"),
    limit("RequestsQueueing", "critical", "queue_seconds:p95"),
)
FULL: Final = above(limit("WorkersSaturated", "warning"))
STARVED: Final = above(limit("CpuStarved", "warning", "run_queue"))
THROTTLED: Final = above(limit("CpuStarved", "warning", "throttled"))
CORES: Final = limit("CpuStarved", "warning", "cpu_cores")  # from where on waiting counts
NEAR: Final = above(limit("MemoryNearLimit", "warning"))
NO_QUOTA: Final = "no control group has a limit that the agent can read"
NO_TUNER: Final = "no tuner runs"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-saturation",
        "Sightline / Saturation and tuning",
        "Does it need other settings?",
        variables=SERVICE,
        annotations=(DEPLOYS, RELOADS, WORKER_DEATHS),
        rows=[
            ("Now", [_now()]),
            ("What waits", [_waiting()]),
            ("Workers", [[*_workers(), *_wanted()]]),
            ("CPU and memory", [[*_cpu(), *_memory()]]),
            ("The tuner", [[*_tuner(), *_decisions()], _effect()]),
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
            empty="no proxy sets X-Request-Start",
        ),
        _worst(
            "Busy",
            "Share of the time in which the workers of the worst server could take no more work. "
            "Above the limit: raise WEB_CONCURRENCY or GUNICORN_THREADS while CPU and memory allow.",
            "percentunit",
            "instance:gunicorn_worker_busy_ratio:avg",
            FULL,
            "WorkersSaturated",
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
            [query('tuner_mode{job="tuner"} == 1', "{{mode}}", by=["instance", "job", "mode"], most=1, needs="tuner")],
            empty=NO_TUNER,
            shows_name=True,
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
            empty="no proxy sets X-Request-Start",
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
                    f"max by (server) (tuner_target_workers{{{OF_TUNER}}})",
                    "{{server}} tuner",
                    by=["server"],
                    most=MOST,
                    needs="tuner",
                ),
                query(
                    f"max by (server) (tuner_ceiling_workers{{{OF_TUNER}}})",
                    "{{server}} ceiling",
                    by=["server"],
                    most=MOST,
                    needs="tuner",
                ),
            ],
            alerts=["WorkersBelowTarget"],
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
        ),
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


def _tuner() -> list[Panel]:
    return [
        table(
            "Advice that holds",
            "Alerts that settings can cure, as they fire now; each names its setting under `tuning`, in Alertmanager "
            "and in its runbook.",
            "short",
            [
                query(
                    'max by (alertname, severity, instance) (ALERTS{@,alertstate="firing",tuner="true"})',
                    "",
                    by=["alertname", "severity", "instance"],
                    most=20,
                    needs="full-workers",
                )
            ],
            {"alertname": "Alert", "severity": "Severity", "instance": "Instance"},
            alerts=["WorkersSaturated", "RequestsQueueing"],
            empty="no setting wants a change",
            width=8,
        ),
    ]


def _decisions() -> list[Panel]:
    decided = f"sum by (action, reason, outcome) (increase(tuner_decisions_total{{{TO_DO}}}[$__rate_interval]))"
    return [
        graph(
            "Decisions",
            "What the tuner decided, for which reason, and what became of it. Changes that are undone again and again: "
            "the cause is not a setting.",
            "short",
            [
                query(
                    decided,
                    "{{action}} {{reason}}: {{outcome}}",
                    by=["action", "reason", "outcome"],
                    most=40,
                    needs="tuner-decisions",
                )
            ],
            stacked=True,
            empty="the tuner has decided nothing",
            width=8,
        ),
        slots(
            "What keeps the tuner from growing",
            "A row is a reason, orange while it holds; docs/decisions.md explains each, off is the mode. "
            "Orange for long while requests wait: more workers are no cure, mend the reason.",
            "short",
            [
                query(
                    f"max by (server, reason) (tuner_frozen{{{OF_TUNER}}})",
                    "{{server}} {{reason}}",
                    by=["server", "reason"],
                    most=40,
                    needs="tuner",
                )
            ],
            high=1,
            states={0: ("free", palette.GREY), 1: ("holds", palette.WARNING)},
            empty=NO_TUNER,
            width=8,
        ),
    ]


def _effect() -> list[Panel]:
    def windows(title: str, description: str, unit: str, metric: str) -> Panel:
        asked = query(
            f"max by (server, window) ({metric}{{{OF_TUNER}}})",
            "{{server}} {{window}}",
            by=["server", "window"],
            most=20,
            needs="tuner-action",
        )
        colours = {"/before$/": palette.GREY, "/after$/": palette.ORANGE}
        return graph(title, description, unit, [asked], colours=colours, empty="the tuner has changed nothing")

    return [
        windows(
            "Before and after: duration p99",
            "The p99 in the window before the last action and in the one after. After above before: it did not help, "
            "and the tuner undoes it.",
            "s",
            "tuner_action_duration_p99_seconds",
        ),
        windows(
            "Before and after: queue time p95",
            "What requests waited before and after the last action: what more workers are meant to lower. Not lower: "
            "they wait for something else, a CPU or a dependency.",
            "s",
            "tuner_action_queue_p95_seconds",
        ),
        windows(
            "Before and after: requests",
            "Requests a second before and after the last action. Far apart, the two windows cannot be compared.",
            "reqps",
            "tuner_action_requests_per_second",
        ),
    ]
