"""The service at a glance: is it well, and if not, which route and which worker?"""

from dashboards.panels import Json, dashboard, query, stat, timeseries

DURATION = "http_server_request_duration_seconds"
RATE = f"rate({DURATION}_count{{@}}[$__rate_interval])"
FAILED = f'rate({DURATION}_count{{@,error_type!=""}}[$__rate_interval])'


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "sightline-service",
        "Sightline / Service",
        "Is the service well, and if not, which route and which worker?",
        job_of="gunicorn_workers",
        rows=[
            ("Now", _now()),
            ("Requests by route", _routes()),
            ("Queue", _queue()),
            ("Workers", _workers()),
            ("Database connections", _pools()),
            ("Cache", _caches()),
        ],
    )


def _quantile(quantile: float, by: str) -> str:
    return f"histogram_quantile({quantile}, sum by ({by}) (rate({DURATION}_bucket{{@}}[$__rate_interval])))"


def _now() -> list[Json]:
    return [
        stat("Requests", "Requests answered each second, all routes.", "reqps", [query(f"sum({RATE})", "requests")]),
        stat(
            "Errors",
            "Share of requests that failed on our side: an exception, or a status of 500 and above.",
            "percentunit",
            [query(f"(sum({FAILED}) or vector(0)) / sum({RATE})", "errors")],
        ),
        stat(
            "Duration p99",
            "99 of 100 requests are answered faster, by the histogram's buckets.",
            "s",
            [query(_quantile(0.99, "le"), "p99")],
        ),
        stat(
            "In flight",
            "Requests that are being answered at this moment.",
            "short",
            [query("sum(http_server_active_requests{@})", "in flight")],
        ),
        stat(
            "Workers alive",
            "Worker processes alive; fewer than wanted means that some died or are still booting.",
            "short",
            [
                query('sum(gunicorn_workers{@,state="live"})', "alive"),
                query('sum(gunicorn_workers{@,state="target"})', "wanted"),
            ],
        ),
        stat(
            "Scraped",
            "Share of the agents that answer Prometheus; below 100 % the rest of this page is not whole.",
            "percentunit",
            [query("avg(up{@})", "scraped")],
        ),
    ]


def _routes() -> list[Json]:
    return [
        timeseries(
            "Rate",
            "Requests answered each second, by method and route template; no route means that none matched.",
            "reqps",
            [query(f"sum by (http_request_method, http_route) ({RATE})", "{{http_request_method}} {{http_route}}")],
            stacked=True,
        ),
        timeseries(
            "Errors",
            "Requests that failed on our side each second, by route and type of error.",
            "reqps",
            [query(f"sum by (http_route, error_type) ({FAILED})", "{{http_route}} {{error_type}}")],
            stacked=True,
        ),
        timeseries(
            "Duration p50 and p99",
            "Half of the requests, and 99 of 100, are faster. The points are exemplars: single requests with a trace.",
            "s",
            [
                query(_quantile(0.5, "le, http_route"), "p50 {{http_route}}"),
                query(_quantile(0.99, "le, http_route"), "p99 {{http_route}}", exemplars=True),
            ],
        ),
    ]


def _queue() -> list[Json]:
    waited = "rate(http_server_request_queue_seconds_bucket{@}[$__rate_interval])"
    return [
        timeseries(
            "Queue time p95",
            "Time from the proxy to the app; above 50 ms, requests wait for a free worker. "
            "Empty where no proxy sets X-Request-Start.",
            "s",
            [query(f"histogram_quantile(0.95, sum by (le) ({waited}))", "p95")],
        ),
        timeseries(
            "Requests in flight by worker",
            "Requests that each worker is answering at this moment; one line far above the others is skew.",
            "short",
            [query("sum by (instance, worker) (gunicorn_worker_active_requests{@})", "worker {{worker}}")],
            stacked=True,
        ),
    ]


def _per_worker(metric: str) -> str:
    return f"sum by (instance, worker) (rate({metric}{{@}}[$__rate_interval]))"


def _workers() -> list[Json]:
    return [
        timeseries(
            "Requests by worker",
            "Requests finished each second, by worker; a flat zero beside busy others is a stuck worker.",
            "reqps",
            [query(_per_worker("gunicorn_worker_requests_total"), "worker {{worker}}")],
            stacked=True,
        ),
        timeseries(
            "Errors by worker",
            "Requests that failed each second, by worker; one worker alone points to that process, not to the code.",
            "reqps",
            [query(_per_worker("gunicorn_worker_errors_total"), "worker {{worker}}")],
            stacked=True,
        ),
        timeseries(
            "Busy",
            "Mean number of requests that a worker has in hand; for a sync worker, 1 is all that it can do.",
            "short",
            [query(_per_worker("gunicorn_worker_busy_seconds_total"), "worker {{worker}}")],
        ),
        timeseries(
            "Heartbeat age",
            "Time since each worker last told the master that it lives; at gunicorn's timeout it is killed.",
            "s",
            [query("max by (instance, worker) (gunicorn_worker_heartbeat_age_seconds{@})", "worker {{worker}}")],
        ),
    ]


def _pools() -> list[Json]:
    by = "db_client_connection_pool_name"
    pool = f"{{{{{by}}}}}"
    waited = "rate(db_client_connection_wait_time_seconds_bucket{@}[$__rate_interval])"
    timeouts = "rate(db_client_connection_timeouts_total{@}[$__rate_interval])"
    return [
        timeseries(
            "Pool",
            "Connections in use, idle, and allowed, and requests that wait for one, summed over the workers. "
            "All in use while requests wait: the pool is too small, or its connections are held too long.",
            "short",
            [
                query(
                    f"sum by ({by}, db_client_connection_state) (db_client_connection_count{{@}})",
                    f"{pool} {{{{db_client_connection_state}}}}",
                ),
                query(f"sum by ({by}) (db_client_connection_max{{@}})", f"{pool} allowed"),
                query(f"sum by ({by}) (db_client_connection_pending_requests{{@}})", f"{pool} waiting"),
            ],
        ),
        timeseries(
            "Pool wait p95",
            "95 of 100 requests had a connection, or gave up, in less; opening one is included.",
            "s",
            [query(f"histogram_quantile(0.95, sum by (le, {by}) ({waited}))", f"{pool} p95")],
        ),
        timeseries(
            "Pool timeouts",
            "Requests each second that waited for a connection until the pool's timeout, and got none.",
            "reqps",
            [query(f"sum by ({by}) ({timeouts})", pool)],
        ),
    ]


def _caches() -> list[Json]:
    def rate(results: str) -> str:
        return f'rate(cache_requests_total{{@,result=~"{results}"}}[$__rate_interval])'

    took = "rate(cache_request_duration_seconds_bucket{@}[$__rate_interval])"
    return [
        timeseries(
            "Cache hits",
            "Share of look-ups that found their value, of those that reached the cache; the rest went to the database.",
            "percentunit",
            [query(f"1 - sum by (cache) ({rate('miss')}) / sum by (cache) ({rate('hit|miss')})", "{{cache}}")],
        ),
        timeseries(
            "Cache duration p95",
            "95 of 100 requests to the cache took less; near its timeout, the cache slows the service down.",
            "s",
            [query(f"histogram_quantile(0.95, sum by (le, cache, operation) ({took}))", "{{cache}} {{operation}} p95")],
        ),
        timeseries(
            "Cache errors",
            "Requests to the cache each second that failed, or were skipped since it was just seen down.",
            "reqps",
            [query(f"sum by (cache, result) ({rate('error|skipped')})", "{{cache}} {{result}}")],
            stacked=True,
        ),
    ]
