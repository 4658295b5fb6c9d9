"""Each worker apart: one series a slot."""

from observability.catalogue.declaring import declare

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

WORKER_REQUESTS = declare("gunicorn_worker_requests_total", "counter", "Requests finished.", per_worker=True)
WORKER_ERRORS = declare(
    "gunicorn_worker_errors_total",
    "counter",
    "Requests that failed: status 5xx or an exception.",
    per_worker=True,
)
WORKER_BUSY = declare(
    "gunicorn_worker_busy_seconds_total",
    "counter",
    "Request seconds, summed over concurrent requests; one still running counts up to now.",
    per_worker=True,
)
WORKER_ACTIVE = declare("gunicorn_worker_active_requests", "gauge", "Requests in flight.", per_worker=True)
WORKER_OLDEST = declare(
    "gunicorn_worker_oldest_request_age_seconds",
    "gauge",
    "Age of the oldest request in flight; 0 if none.",
    per_worker=True,
)
WORKER_CAPACITY = declare(
    "gunicorn_worker_capacity_requests",
    "gauge",
    "Requests that a worker can run at the same time.",
    per_worker=True,
)
WORKER_HEARTBEAT = declare(
    "gunicorn_worker_heartbeat_age_seconds",
    "gauge",
    "Time since the worker last told the master it lives.",
    per_worker=True,
)
WORKER_START = declare(
    "gunicorn_worker_start_time_seconds",
    "gauge",
    "Unix time at which the slot's present worker was forked.",
    per_worker=True,
)
WORKER_INFO = declare(
    "gunicorn_worker_info",
    "gauge",
    "Always 1; its labels say what the worker is.",
    ("worker_class",),
    per_worker=True,
)

# Saturation of a worker, seen from inside: see docs/saturation.md
WORKER_QUEUED = declare(
    "gunicorn_worker_queued_requests",
    "gauge",
    "Requests that the worker has accepted and that wait for a thread (gthread).",
    per_worker=True,
)
WORKER_KEPT = declare(
    "gunicorn_worker_kept_connections",
    "gauge",
    "Client connections that the worker holds while no request runs on them (gthread, gevent, asgi).",
    per_worker=True,
)
WORKER_GREENLETS = declare(
    "gunicorn_worker_greenlets", "gauge", "Greenlets that serve a connection (gevent).", per_worker=True
)
WORKER_LAG = declare(
    "gunicorn_worker_loop_lag_seconds",
    "histogram",
    "How late a timer on the worker's event loop ran, tried four times a second.",
    (),
    LAG_BUCKETS,
    per_worker=True,
)
WORKER_LAG_MAX = declare(
    "gunicorn_worker_loop_lag_max_seconds",
    "gauge",
    "Longest lag of the event loop in the last five seconds, one that still lasts included.",
    per_worker=True,
)
WORKER_LATE = declare(
    "gunicorn_worker_loop_late_seconds",
    "gauge",
    "How late the event loop is now; 0 where it runs on time.",
    per_worker=True,
)
WORKER_BLOCKED = declare(
    "gunicorn_worker_loop_blocked_total",
    "counter",
    "Times that the event loop stood still for OBSERVABILITY_BLOCKED_SECONDS; the log has the stack.",
    per_worker=True,
)
WORKER_GC = declare(
    "gunicorn_worker_gc_seconds_total",
    "counter",
    "Time in Python's cyclic garbage collector, which stops the whole worker.",
    ("generation",),
    per_worker=True,
)

# Saturation of a worker, seen from outside by the agent
WORKER_BUSY_RATIO = declare(
    "gunicorn_worker_busy_ratio",
    "gauge",
    "Share of the last seconds in which the worker could take no more work, 0 to 1; see docs/saturation.md.",
    per_worker=True,
)
WORKER_CPU = declare(
    "gunicorn_worker_cpu_seconds_total", "counter", "CPU time, by mode: user, system.", ("mode",), per_worker=True
)
WORKER_RUN_QUEUE = declare(
    "gunicorn_worker_run_queue_seconds_total",
    "counter",
    "Time that threads of the worker were ready to run and waited for a CPU.",
    per_worker=True,
)
WORKER_SWITCHES = declare(
    "gunicorn_worker_context_switches_total",
    "counter",
    "Context switches: voluntary (it waited), and involuntary (the CPU was taken away).",
    ("kind",),
    per_worker=True,
)
WORKER_RSS = declare(
    "gunicorn_worker_resident_memory_bytes",
    "gauge",
    "Resident memory; pages shared with other workers count in each.",
    per_worker=True,
)
WORKER_PSS = declare(
    "gunicorn_worker_proportional_memory_bytes",
    "gauge",
    "Resident memory with shared pages divided among those who share them; at most 15 s old.",
    per_worker=True,
)
WORKER_FDS = declare("gunicorn_worker_open_fds", "gauge", "Open file descriptors.", per_worker=True)
WORKER_THREADS = declare("gunicorn_worker_threads", "gauge", "Threads of the operating system.", per_worker=True)
