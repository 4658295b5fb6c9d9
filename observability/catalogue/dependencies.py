"""Databases and caches.

OpenTelemetry's database conventions as Prometheus spells them; caches have none, so theirs are ours.
"""

from observability.catalogue.declaring import declare

# https://opentelemetry.io/docs/specs/semconv/database/database-metrics/ gives buckets for operations only; the pool's
# are those and some between.
OPERATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
POOL_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CACHE_BUCKETS = (0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
_POOL = "db_client_connection_pool_name"

POOL_CONNECTIONS = declare(
    "db_client_connection_count",
    "gauge",
    "Open connections of a pool, by state: idle in the pool, or used.",
    (_POOL, "db_client_connection_state"),
)
POOL_IDLE_MAX = declare(
    "db_client_connection_idle_max", "gauge", "Idle connections that a pool keeps open at most.", (_POOL,)
)
POOL_MAX = declare("db_client_connection_max", "gauge", "Connections that a pool opens at most.", (_POOL,))
POOL_PENDING = declare(
    "db_client_connection_pending_requests",
    "gauge",
    "Requests that have asked a pool for a connection and have none yet.",
    (_POOL,),
)
POOL_TIMEOUTS = declare(
    "db_client_connection_timeouts_total",
    "counter",
    "Requests that waited for a connection until the pool's timeout, and got none.",
    (_POOL,),
)
POOL_CREATE_TIME = declare(
    "db_client_connection_create_time_seconds",
    "histogram",
    "Time it took to open a connection.",
    (_POOL,),
    POOL_BUCKETS,
)
POOL_WAIT_TIME = declare(
    "db_client_connection_wait_time_seconds",
    "histogram",
    "Time it took to get a connection from a pool, or to fail to: waiting, checking and opening it.",
    (_POOL,),
    POOL_BUCKETS,
)
POOL_USE_TIME = declare(
    "db_client_connection_use_time_seconds",
    "histogram",
    "Time from getting a connection to giving it back.",
    (_POOL,),
    POOL_BUCKETS,
)
DATABASE_OPERATION = declare(
    "db_client_operation_duration_seconds",
    "histogram",
    "Duration of database operations, as the client sees it; of a cache in a database of its own, so far.",
    ("db_system_name", "db_operation_name", "error_type"),
    OPERATION_BUCKETS,
)
CACHE_REQUESTS = declare(
    "cache_requests_total",
    "counter",
    "Requests to a cache, by result: hit, miss, ok, error, or skipped because the cache was just seen down.",
    ("cache", "operation", "result"),
)
CACHE_DURATION = declare(
    "cache_request_duration_seconds",
    "histogram",
    "Duration of requests to a cache, those that failed included.",
    ("cache", "operation"),
    CACHE_BUCKETS,
)
