"""One server: its listeners, its control group, its master."""

from observability.catalogue.declaring import declare

# Listeners
LISTEN_BACKLOG = declare(
    "gunicorn_listen_backlog",
    "gauge",
    "Connections that wait to be accepted; sockets of one address (reuse_port) are summed.",
    ("listener",),
)
LISTEN_LIMIT = declare(
    "gunicorn_listen_backlog_limit", "gauge", "Connections that may wait to be accepted.", ("listener",)
)
LISTEN_DROPS = declare(
    "gunicorn_listen_drops_total",
    "counter",
    "Connections that the kernel dropped at a TCP listener, of all its life.",
    ("listener",),
)
LISTEN_OVERFLOWS = declare(
    "gunicorn_listen_overflows_total",
    "counter",
    "Connections that found a full backlog at any TCP listener of the network namespace, other servers' included.",
)

# What the server may use
USABLE_CORES = declare(
    "gunicorn_usable_cpu_cores",
    "gauge",
    "CPUs that the server may use: those it is bound to, or the control group's quota where that is less.",
)

# Limits of the control group (version 2) and what is pressed against them
CGROUP_CPU_QUOTA = declare("cgroup_cpu_quota_cores", "gauge", "CPUs that the control group may use, if it has a quota.")
CGROUP_PERIODS = declare("cgroup_cpu_periods_total", "counter", "Quota periods in which the control group ran.")
CGROUP_THROTTLED_PERIODS = declare(
    "cgroup_cpu_throttled_periods_total", "counter", "Quota periods in which it was stopped, its quota used up."
)
CGROUP_THROTTLED = declare(
    "cgroup_cpu_throttled_seconds_total", "counter", "Time that the control group stood still, its quota used up."
)
CGROUP_MEMORY_LIMIT = declare(
    "cgroup_memory_limit_bytes", "gauge", "Memory that the control group may use, if it has a limit."
)
CGROUP_MEMORY_USED = declare(
    "cgroup_memory_used_bytes",
    "gauge",
    "Memory that the control group uses, without file pages that the kernel can drop at once.",
)
CGROUP_OOM_KILLS = declare(
    "cgroup_oom_kills_total", "counter", "Processes of the control group that the kernel killed for want of memory."
)
PRESSURE = declare(
    "pressure_stalled_seconds_total",
    "counter",
    "Time in which some, or all (full), tasks of the scope (cgroup, else host) waited for a resource.",
    ("scope", "resource", "stalled"),
)

# Master
WORKERS = declare(
    "gunicorn_workers",
    "gauge",
    "Worker processes: wanted (target), alive (live), and those that have loaded the app (booted).",
    ("state",),
)
EXIT_CAUSES = (
    "timeout",
    "oom_killed",
    "killed",
    "crashed",
    "recycled",
    "reloaded",
    "scaled_down",
    "shutdown",
    "boot_failed",
)
EXPECTED_CAUSES = frozenset({"recycled", "reloaded", "scaled_down", "shutdown"})  # ends that somebody wanted
EXITS = declare(
    "gunicorn_worker_exits_total", "counter", "Workers that ended, by cause; see docs/causes.md.", ("cause",)
)
REQUESTS_LOST = declare(
    "gunicorn_requests_lost_total",
    "counter",
    "Requests that were in flight when their worker died; no other metric counts them.",
)
PREVIOUS_END = declare(
    "gunicorn_previous_end_timestamp_seconds",
    "gauge",
    "Unix time at which the server before this one ended without being asked to: halted, or killed.",
    ("outcome",),
)
PRELOADED = declare(
    "gunicorn_preloaded",
    "gauge",
    "1 where the master has loaded the app before it forks (preload_app), now or before a reload.",
)
BOOT_SECONDS = declare(
    "gunicorn_worker_boot_seconds",
    "gauge",
    "Longest time that one of the present workers took from its fork until it was seen booted: up to 2.5 s too long.",
)
RELOADS = declare("gunicorn_reloads_total", "counter", "Reloads of the configuration (HUP).")
INFO = declare("gunicorn_info", "gauge", "Always 1; its labels say what runs.", ("version", "python_version"))
TARGET_INFO = declare(
    "target_info",
    "gauge",
    "Always 1; its labels are the OpenTelemetry resource that all of the server's telemetry belongs to.",
    ("service_name", "service_version", "deployment_environment_name"),
)
INVALID_REQUESTS = declare(
    "gunicorn_invalid_requests_total",
    "counter",
    "Requests that gunicorn could not parse; no application saw them.",
)
LOG_MESSAGES = declare("log_messages_total", "counter", "Log lines written, by level.", ("level",))
