"""HTTP, all workers merged."""

from observability.catalogue.declaring import declare

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
QUEUE_BUCKETS = (0.001, 0.0025, *DURATION_BUCKETS)
SIZE_BUCKETS = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)

REQUEST_DURATION = declare(
    "http_server_request_duration_seconds",
    "histogram",
    "Duration of HTTP requests, from the first line of the middleware to the last byte of the body.",
    ("http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"),
    DURATION_BUCKETS,
)
ACTIVE_REQUESTS = declare("http_server_active_requests", "gauge", "HTTP requests in flight.")
REQUEST_QUEUE = declare(
    "http_server_request_queue_seconds",
    "histogram",
    "Time from the proxy's X-Request-Start to the application.",
    (),
    QUEUE_BUCKETS,
)
REQUEST_BODY_SIZE = declare(
    "http_server_request_body_size_bytes",
    "histogram",
    "Declared size of HTTP request bodies.",
    ("http_request_method", "http_route"),
    SIZE_BUCKETS,
)
RESPONSE_BODY_SIZE = declare(
    "http_server_response_body_size_bytes",
    "histogram",
    "Size of HTTP response bodies as the application produced them.",
    ("http_request_method", "http_route"),
    SIZE_BUCKETS,
)
