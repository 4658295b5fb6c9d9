"""Every metric that Sightline itself emits, declared once: name, type, labels, help.

To add one, declare it here and record it with `store.child(METRIC, *label_values)`. The reference page is
generated from this module, and dashboards, rules and pages may name nothing that it lacks.
HTTP names and buckets follow OpenTelemetry's stable semantic conventions as Prometheus spells them.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
QUEUE_BUCKETS = (0.001, 0.0025, *DURATION_BUCKETS)
SIZE_BUCKETS = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric: what is exposed under its name.

    Args:
        name: as exposed; a counter's ends in `_total`, and a unit stands in it.
        kind: counter, gauge, or histogram.
        help: one sentence.
        labels: label names; the reader adds `worker` to a per-worker metric.
        buckets: a histogram's upper bounds, +Inf left out.
        per_worker: keep one series a worker; otherwise all workers are merged into one.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    per_worker: bool = False


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

# Master
WORKERS = _declare("gunicorn_workers", "gauge", "Worker processes: wanted (target), and alive (live).", ("state",))
RELOADS = _declare("gunicorn_reloads_total", "counter", "Reloads of the configuration (HUP).")
INFO = _declare("gunicorn_info", "gauge", "Always 1; its labels say what runs.", ("version", "python_version"))
INVALID_REQUESTS = _declare(
    "gunicorn_invalid_requests_total",
    "counter",
    "Requests that gunicorn could not parse; no application saw them.",
)
LOG_MESSAGES = _declare("log_messages_total", "counter", "Log lines written, by level.", ("level",))

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
