"""Every metric that Sightline itself emits, declared once: name, type, labels, help.

To add one, declare it here and record it with `store.child(METRIC, *label_values)`. The reference page is
generated from this module, and dashboards, rules and pages may name nothing that it lacks.
HTTP names and buckets follow OpenTelemetry's stable semantic conventions as Prometheus spells them.
"""

from observability.metric import Kind
from observability.metric import Metric as Metric  # those who record one need not know where it is defined

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
QUEUE_BUCKETS = (0.001, 0.0025, *DURATION_BUCKETS)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZE_BUCKETS = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)


METRICS: dict[str, Metric] = {}


def _declare(
    name: str,
    kind: Kind,
    help: str,
    labels: tuple[str, ...] = (),
    buckets: tuple[float, ...] = (),
    *,
    per_worker: bool = False,
) -> Metric:
    if name in METRICS:
        raise ValueError(f"{name} is declared twice")
    METRICS[name] = Metric(name, kind, help, labels, buckets, per_worker)
    return METRICS[name]


# HTTP, all workers merged
REQUEST_DURATION = _declare(
    "http_server_request_duration_seconds",
    "histogram",
    "Duration of HTTP requests, from the first line of the middleware to the last byte of the body.",
    ("http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"),
    DURATION_BUCKETS,
)
ACTIVE_REQUESTS = _declare("http_server_active_requests", "gauge", "HTTP requests in flight.")
REQUEST_QUEUE = _declare(
    "http_server_request_queue_seconds",
    "histogram",
    "Time from the proxy's X-Request-Start to the application.",
    (),
    QUEUE_BUCKETS,
)
REQUEST_BODY_SIZE = _declare(
    "http_server_request_body_size_bytes",
    "histogram",
    "Declared size of HTTP request bodies.",
    ("http_request_method", "http_route"),
    SIZE_BUCKETS,
)
RESPONSE_BODY_SIZE = _declare(
    "http_server_response_body_size_bytes",
    "histogram",
    "Size of HTTP response bodies as the application produced them.",
    ("http_request_method", "http_route"),
    SIZE_BUCKETS,
)

# Per worker: one series a slot
WORKER_REQUESTS = _declare("gunicorn_worker_requests_total", "counter", "Requests finished.", per_worker=True)
WORKER_ERRORS = _declare(
    "gunicorn_worker_errors_total",
    "counter",
    "Requests that failed: status 5xx or an exception.",
    per_worker=True,
)
WORKER_BUSY = _declare(
    "gunicorn_worker_busy_seconds_total",
    "counter",
    "Request seconds, summed over concurrent requests; one still running counts up to now.",
    per_worker=True,
)
WORKER_ACTIVE = _declare("gunicorn_worker_active_requests", "gauge", "Requests in flight.", per_worker=True)
WORKER_OLDEST = _declare(
    "gunicorn_worker_oldest_request_age_seconds",
    "gauge",
    "Age of the oldest request in flight; 0 if none.",
    per_worker=True,
)
WORKER_CAPACITY = _declare(
    "gunicorn_worker_capacity_requests",
    "gauge",
    "Requests that a worker can run at the same time.",
    per_worker=True,
)
WORKER_HEARTBEAT = _declare(
    "gunicorn_worker_heartbeat_age_seconds",
    "gauge",
    "Time since the worker last told the master it lives.",
    per_worker=True,
)
WORKER_START = _declare(
    "gunicorn_worker_start_time_seconds",
    "gauge",
    "Unix time at which the slot's present worker was forked.",
    per_worker=True,
)
WORKER_INFO = _declare(
    "gunicorn_worker_info",
    "gauge",
    "Always 1; its labels say what the worker is.",
    ("worker_class",),
    per_worker=True,
)

# Saturation of a worker, seen from inside: see docs/saturation.md
WORKER_QUEUED = _declare(
    "gunicorn_worker_queued_requests",
    "gauge",
    "Requests that the worker has accepted and that wait for a thread (gthread).",
    per_worker=True,
)
WORKER_KEPT = _declare(
    "gunicorn_worker_kept_connections",
    "gauge",
    "Client connections that the worker holds while no request runs on them (gthread, gevent, asgi).",
    per_worker=True,
)
WORKER_GREENLETS = _declare(
    "gunicorn_worker_greenlets", "gauge", "Greenlets that serve a connection (gevent).", per_worker=True
)
WORKER_LAG = _declare(
    "gunicorn_worker_loop_lag_seconds",
    "histogram",
    "How late a timer on the worker's event loop ran, tried four times a second.",
    (),
    LAG_BUCKETS,
    per_worker=True,
)
WORKER_LAG_MAX = _declare(
    "gunicorn_worker_loop_lag_max_seconds",
    "gauge",
    "Longest lag of the event loop in the last five seconds, one that still lasts included.",
    per_worker=True,
)
WORKER_LATE = _declare(
    "gunicorn_worker_loop_late_seconds",
    "gauge",
    "How late the event loop is now; 0 where it runs on time.",
    per_worker=True,
)
WORKER_BLOCKED = _declare(
    "gunicorn_worker_loop_blocked_total",
    "counter",
    "Times that the event loop stood still for OBSERVABILITY_BLOCKED_SECONDS; the log has the stack.",
    per_worker=True,
)
WORKER_GC = _declare(
    "gunicorn_worker_gc_seconds_total",
    "counter",
    "Time in Python's cyclic garbage collector, which stops the whole worker.",
    ("generation",),
    per_worker=True,
)

# Saturation of a worker, seen from outside by the agent
WORKER_BUSY_RATIO = _declare(
    "gunicorn_worker_busy_ratio",
    "gauge",
    "Share of the last seconds in which the worker could take no more work, 0 to 1; see docs/saturation.md.",
    per_worker=True,
)
WORKER_CPU = _declare(
    "gunicorn_worker_cpu_seconds_total", "counter", "CPU time, by mode: user, system.", ("mode",), per_worker=True
)
WORKER_RUN_QUEUE = _declare(
    "gunicorn_worker_run_queue_seconds_total",
    "counter",
    "Time that threads of the worker were ready to run and waited for a CPU.",
    per_worker=True,
)
WORKER_SWITCHES = _declare(
    "gunicorn_worker_context_switches_total",
    "counter",
    "Context switches: voluntary (it waited), and involuntary (the CPU was taken away).",
    ("kind",),
    per_worker=True,
)
WORKER_RSS = _declare(
    "gunicorn_worker_resident_memory_bytes",
    "gauge",
    "Resident memory; pages shared with other workers count in each.",
    per_worker=True,
)
WORKER_PSS = _declare(
    "gunicorn_worker_proportional_memory_bytes",
    "gauge",
    "Resident memory with shared pages divided among those who share them; at most 15 s old.",
    per_worker=True,
)
WORKER_FDS = _declare("gunicorn_worker_open_fds", "gauge", "Open file descriptors.", per_worker=True)
WORKER_THREADS = _declare("gunicorn_worker_threads", "gauge", "Threads of the operating system.", per_worker=True)

# Listeners
LISTEN_BACKLOG = _declare(
    "gunicorn_listen_backlog",
    "gauge",
    "Connections that wait to be accepted; sockets of one address (reuse_port) are summed.",
    ("listener",),
)
LISTEN_LIMIT = _declare(
    "gunicorn_listen_backlog_limit", "gauge", "Connections that may wait to be accepted.", ("listener",)
)
LISTEN_DROPS = _declare(
    "gunicorn_listen_drops_total",
    "counter",
    "Connections that the kernel dropped at a TCP listener, of all its life.",
    ("listener",),
)
LISTEN_OVERFLOWS = _declare(
    "gunicorn_listen_overflows_total",
    "counter",
    "Connections that found a full backlog at any TCP listener of the network namespace, other servers' included.",
)

# Limits of the control group (version 2) and what is pressed against them
CGROUP_CPU_QUOTA = _declare(
    "cgroup_cpu_quota_cores", "gauge", "CPUs that the control group may use, if it has a quota."
)
CGROUP_PERIODS = _declare("cgroup_cpu_periods_total", "counter", "Quota periods in which the control group ran.")
CGROUP_THROTTLED_PERIODS = _declare(
    "cgroup_cpu_throttled_periods_total", "counter", "Quota periods in which it was stopped, its quota used up."
)
CGROUP_THROTTLED = _declare(
    "cgroup_cpu_throttled_seconds_total", "counter", "Time that the control group stood still, its quota used up."
)
CGROUP_MEMORY_LIMIT = _declare(
    "cgroup_memory_limit_bytes", "gauge", "Memory that the control group may use, if it has a limit."
)
CGROUP_MEMORY_USED = _declare(
    "cgroup_memory_used_bytes",
    "gauge",
    "Memory that the control group uses, without file pages that the kernel can drop at once.",
)
CGROUP_OOM_KILLS = _declare(
    "cgroup_oom_kills_total", "counter", "Processes of the control group that the kernel killed for want of memory."
)
PRESSURE = _declare(
    "pressure_stalled_seconds_total",
    "counter",
    "Time in which some, or all (full), tasks of the scope (cgroup, else host) waited for a resource.",
    ("scope", "resource", "stalled"),
)

# Master
WORKERS = _declare("gunicorn_workers", "gauge", "Worker processes: wanted (target), and alive (live).", ("state",))
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
EXITS = _declare(
    "gunicorn_worker_exits_total", "counter", "Workers that ended, by cause; see docs/causes.md.", ("cause",)
)
REQUESTS_LOST = _declare(
    "gunicorn_requests_lost_total",
    "counter",
    "Requests that were in flight when their worker died; no other metric counts them.",
)
PREVIOUS_END = _declare(
    "gunicorn_previous_end_timestamp_seconds",
    "gauge",
    "Unix time at which the server before this one ended without being asked to: halted, or killed.",
    ("outcome",),
)
RELOADS = _declare("gunicorn_reloads_total", "counter", "Reloads of the configuration (HUP).")
INFO = _declare("gunicorn_info", "gauge", "Always 1; its labels say what runs.", ("version", "python_version"))
INVALID_REQUESTS = _declare(
    "gunicorn_invalid_requests_total",
    "counter",
    "Requests that gunicorn could not parse; no application saw them.",
)
LOG_MESSAGES = _declare("log_messages_total", "counter", "Log lines written, by level.", ("level",))

# Dependencies. OpenTelemetry's database conventions as Prometheus spells them; caches have none, so theirs are ours.
# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/ gives buckets for operations only; the pool's
# are those and some between.
OPERATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
POOL_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CACHE_BUCKETS = (0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
_POOL = "db_client_connection_pool_name"

POOL_CONNECTIONS = _declare(
    "db_client_connection_count",
    "gauge",
    "Open connections of a pool, by state: idle in the pool, or used.",
    (_POOL, "db_client_connection_state"),
)
POOL_IDLE_MAX = _declare(
    "db_client_connection_idle_max", "gauge", "Idle connections that a pool keeps open at most.", (_POOL,)
)
POOL_MAX = _declare("db_client_connection_max", "gauge", "Connections that a pool opens at most.", (_POOL,))
POOL_PENDING = _declare(
    "db_client_connection_pending_requests",
    "gauge",
    "Requests that have asked a pool for a connection and have none yet.",
    (_POOL,),
)
POOL_TIMEOUTS = _declare(
    "db_client_connection_timeouts_total",
    "counter",
    "Requests that waited for a connection until the pool's timeout, and got none.",
    (_POOL,),
)
POOL_CREATE_TIME = _declare(
    "db_client_connection_create_time_seconds",
    "histogram",
    "Time it took to open a connection.",
    (_POOL,),
    POOL_BUCKETS,
)
POOL_WAIT_TIME = _declare(
    "db_client_connection_wait_time_seconds",
    "histogram",
    "Time it took to get a connection from a pool, or to fail to: waiting, checking and opening it.",
    (_POOL,),
    POOL_BUCKETS,
)
POOL_USE_TIME = _declare(
    "db_client_connection_use_time_seconds",
    "histogram",
    "Time from getting a connection to giving it back.",
    (_POOL,),
    POOL_BUCKETS,
)
DATABASE_OPERATION = _declare(
    "db_client_operation_duration_seconds",
    "histogram",
    "Duration of database operations, as the client sees it; of a cache in a database of its own, so far.",
    ("db_system_name", "db_operation_name", "error_type"),
    OPERATION_BUCKETS,
)
CACHE_REQUESTS = _declare(
    "cache_requests_total",
    "counter",
    "Requests to a cache, by result: hit, miss, ok, error, or skipped because the cache was just seen down.",
    ("cache", "operation", "result"),
)
CACHE_DURATION = _declare(
    "cache_request_duration_seconds",
    "histogram",
    "Duration of requests to a cache, those that failed included.",
    ("cache", "operation"),
    CACHE_BUCKETS,
)

# About itself
LOG_LINES_DROPPED = _declare(
    "observability_log_lines_dropped_total",
    "counter",
    "Log lines given up because stdout was blocked or failed.",
)
SPANS = _declare("observability_spans_total", "counter", "Spans by outcome: exported, or dropped.", ("outcome",))
LABEL_SETS_REFUSED = _declare(
    "observability_label_sets_refused_total",
    "counter",
    "Times that a new label set found its metric full, and went to the overflow series.",
    ("metric",),
)
STORE_REFUSED = _declare(
    "observability_store_refused_total",
    "counter",
    "Series that found no room in the slot file, and are not shown.",
)
HOOK_FAILURES = _declare(
    "observability_hook_failures_total",
    "counter",
    "Server hooks whose inner work failed; the server went on.",
    ("hook",),
)
AGENT_STARTS = _declare("observability_agent_starts_total", "counter", "Starts of the agent by the master.")
SCRAPE_SECONDS = _declare(
    "observability_scrape_seconds", "gauge", "Time that reading and merging the slots took in this scrape."
)
STORE_FILES = _declare("observability_store_files", "gauge", "Slot files in the state directory.")
STORE_BYTES = _declare("observability_store_bytes", "gauge", "Memory or disk that the slot files occupy.")
STORE_CORRUPT = _declare(
    "observability_store_corrupt_files", "gauge", "Slot files that could not be read and were left out."
)
