"""What is asked of Prometheus: one expression for all numbers of all servers of a job.

Each number is a vector with one element a server, marked with its name in the label `signal`, and all are joined by
`or`: so one question gives them all, of one moment, and the same question over a range gives a recorded day.
What is over a window comes from the recording rules, whose minute may be another where the rules are scaled.
"""

from observability.tuning.reader import WHOLE, WINDOW_SECONDS

SIGNAL = "signal"
_RULES = {
    "requests_per_second": "instance:http_server_requests:rate1m",
    "in_flight": "instance:gunicorn_worker_busy_seconds:rate1m",
    "service_seconds": "instance:http_server_service_seconds:mean1m",
    "duration_p99": "instance:http_server_request_duration_seconds:p99_rate1m",
    "duration_p99_usual": "instance:http_server_request_duration_seconds:p99_p50_1h",
    "error_ratio": "instance:http_server_errors:ratio_rate1m",
    "queue_p95": "instance:http_server_request_queue_seconds:p95_rate1m",
    "queued": "instance:gunicorn_worker_queued_requests:avg1m",
    "backlog": "instance:gunicorn_listen_backlog:avg1m",
    "busy": "instance:gunicorn_worker_busy_ratio:avg1m",
    "cpu_cores": "instance:gunicorn_worker_cpu_cores:rate1m",
    "run_queue": "instance:gunicorn_worker_run_queue:ratio_rate1m",
    "throttled": "instance:cgroup_cpu_throttled_periods:ratio_rate1m",
    "memory_share": "instance:cgroup_memory:ratio",
    "worker_memory": "instance:gunicorn_worker_proportional_memory_bytes:sum",
    "loop_lag_p99": "instance:gunicorn_worker_loop_lag_seconds:p99_rate1m",
    "loop_blocked": "instance:gunicorn_worker_loop_blocked:increase5m",
}
# of the last 15 minutes, for what only a look back tells
_TREND = ("busy", "in_flight", "queue_p95", "queued", "backlog", "requests_per_second")


def selector(job: str, *more: str) -> str:
    """Return the braces that select a job's series."""
    escaped = job.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "{" + ",".join([f'job="{escaped}"', *more]) + "}"


def _marked(name: str, expression: str) -> str:
    return f'label_replace({expression}, "{SIGNAL}", "{name}", "", "")'


def _of_each(operation: str, series: str, job: str, *more: str, by: str = "instance") -> str:
    return f"{operation} by ({by}) ({series}{selector(job, *more)})"


def numbers(job: str, window: float = WINDOW_SECONDS) -> str:
    """Return the expression for all that is known of one moment.

    Args:
        job: of the servers.
        window: seconds of the rules' minute; what no rule records is over multiples of it.
    """
    ten, one = f"[{round(10 * window)}s]", f"[{round(window)}s]"
    of, live, oom = selector(job), selector(job, 'state="live"'), selector(job, 'cause="oom_killed"')
    burning = selector(job, 'alertname="SloAvailabilityBurning"', 'severity="critical"')
    asked = {
        **{name: _of_each("max", series, job) for name, series in _RULES.items()},
        "workers_target": _of_each("sum", "gunicorn_workers", job, 'state="target"'),
        # one that boots again and again is always alive, and never takes a request
        "workers_live": _of_each("sum", "gunicorn_workers", job, 'state="booted"'),
        "slots": _of_each("max", "gunicorn_worker_capacity_requests", job),
        "cores": _of_each("max", "gunicorn_usable_cpu_cores", job),
        "backlog_limit": _of_each("sum", "gunicorn_listen_backlog_limit", job),
        "memory_limit": _of_each("max", "cgroup_memory_limit_bytes", job),
        "memory_used": _of_each("max", "cgroup_memory_used_bytes", job),
        "worker_memory_p95": f"quantile by (instance) (0.95, gunicorn_worker_proportional_memory_bytes{of})",
        "timeouts": _of_each("max", "instance_cause:gunicorn_worker_exits:increase5m", job, 'cause="timeout"'),
        # of the whole group, and of the workers where there is no such group
        "oom_kills": f"max by (instance) (increase(cgroup_oom_kills_total{of}{ten})"
        f" or increase(gunicorn_worker_exits_total{oom}{ten}))",
        # the objective is the job's: each server has it; pending means that the numbers burn already
        "errors_burning": f"count(ALERTS{burning})",
        "boot_seconds": _of_each("max", "gunicorn_worker_boot_seconds", job),
        "preload": _of_each("max", "gunicorn_preloaded", job),
        # the first reload makes the series, which has no increase then
        "reloads": f"max by (instance) ((gunicorn_reloads_total{of} unless gunicorn_reloads_total{of} offset"
        f" {round(window)}s) or increase(gunicorn_reloads_total{of}{one}))",
        WHOLE: f"sum by (instance) (gunicorn_workers{live} offset {round(window)}s)",
        "age_samples": f"time() - min by (instance) (timestamp(gunicorn_workers{live}))",
        "age_rules": f"time() - min by (instance) (timestamp(instance:gunicorn_worker_busy_ratio:avg1m{of}))",
        "worker_class": _of_each("count", "gunicorn_worker_info", job, by="instance, worker_class"),
        "busy_by_worker": _of_each(
            "max", "instance_worker:gunicorn_worker_busy_ratio:avg1m", job, by="instance, worker"
        ),
    }
    return " or ".join(_marked(name, expression) for name, expression in asked.items())


def trend(job: str) -> str:
    """Return the expression for what is looked back at over some minutes."""
    return " or ".join(_marked(name, _of_each("max", _RULES[name], job)) for name in _TREND)


def memory(job: str) -> str:
    """Return the expression for the memory and the start of each worker, which are looked back at for hours."""
    by = "instance, worker"
    size = _of_each("max", "gunicorn_worker_proportional_memory_bytes", job, by=by)
    started = _of_each("max", "gunicorn_worker_start_time_seconds", job, by=by)
    return f"{_marked('size', size)} or {_marked('started', started)}"
