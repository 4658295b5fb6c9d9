"""Whether it is the service or what it depends on: the edge before it, the database and the cache behind it."""

from collections.abc import Sequence
from typing import Final

from dashboards import palette
from dashboards.events import DEPLOYS, RELOADS
from dashboards.frame import SERVICE, Dashboard
from dashboards.panels import Panel, gained_per_second, graph, query, stat
from dashboards.thresholds import above, below, limit

POOL: Final = "db_client_connection_pool_name"
NO_NGINX: Final = "no nginx with its exporter runs"
NO_POSTGRES: Final = "no PostgreSQL with its exporter runs"
NO_REDIS: Final = "no Redis with its exporter runs"
NO_POOL: Final = "the service uses no pool that is watched"
NO_CACHE: Final = "the service uses no cache that is watched"
NO_PROBE: Final = "nothing probes the site from outside"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-dependencies",
        "Sightline / Dependencies and edge",
        "Is it us or them?",
        variables=SERVICE,
        annotations=(DEPLOYS, RELOADS),
        rows=[
            ("Now", [[*_now(), *_certificate()]]),
            ("The edge", [[*_edge(), *_outside()]]),
            ("Connections to the database", [[*_pool(), *_waits()]]),
            ("The database", [_postgres()]),
            ("The cache", [_cache(), _redis()]),
        ],
    )


def _now() -> list[Panel]:
    def up(
        title: str, description: str, metric: str, job: str, needs: str, empty: str, alerts: Sequence[str] = ()
    ) -> Panel:
        states = {0: ("down", palette.BAD), 1: ("up", palette.GOOD)}
        # who cannot be asked is not up: without a sample, Grafana would go on to show the last one
        asked = [query(f'min({metric}{{job="{job}"}} or up{{job="{job}"}})', title, most=1, needs=needs)]
        return stat(title, description, "short", asked, states=states, empty=empty, alerts=alerts)

    return [
        up(
            "Site",
            "Whether the site answers as a user would ask it, through the edge. Down while the service is well: it is "
            "the edge, or who asks; Watching the watcher tells whether that is seen.",
            "probe_success",
            "blackbox",
            "probe",
            NO_PROBE,
            ["ServiceAbsent"],
        ),
        up(
            "nginx",
            "Whether nginx answers its exporter. Down: nobody reaches the service; its log says why it ended.",
            "nginx_up",
            "nginx",
            "nginx",
            NO_NGINX,
        ),
        up(
            "PostgreSQL",
            "Whether PostgreSQL answers its exporter. Down: every request that needs it fails, so bring it back first.",
            "pg_up",
            "postgres",
            "postgres",
            NO_POSTGRES,
        ),
        up(
            "Redis",
            "Whether Redis answers its exporter. Down: the service goes on, slower, and the database has the load.",
            "redis_up",
            "redis",
            "redis",
            NO_REDIS,
        ),
    ]


def _certificate() -> list[Panel]:
    return [
        stat(
            "Certificate",
            "For how long the certificate of the site is valid. Renew it before the limit: after its end no client "
            "connects.",
            "s",
            [
                query(
                    'min(probe_ssl_earliest_cert_expiry{job="blackbox"}) - time()',
                    "valid for",
                    most=1,
                    needs="tls",
                )
            ],
            limits=below(limit("CertificateExpiring", "warning"), limit("CertificateExpiring", "critical")),
            alerts=["CertificateExpiring"],
            empty="the site is probed without TLS",
        ),
    ]


def _edge() -> list[Panel]:
    return [
        graph(
            "Requests at the edge and in the app",
            "Requests each second that nginx took, and that the app answered. The edge far above the app: requests do "
            "not reach it. nginx is of all servers: compare with All chosen. The exporter's own are among its.",
            "reqps",
            [
                query(
                    'sum(rate(nginx_http_requests_total{job="nginx"}[$__rate_interval]))',
                    "nginx",
                    most=1,
                    needs="nginx",
                ),
                query("sum(rate(http_server_request_duration_seconds_count{@}[$__rate_interval]))", "app", most=1),
            ],
            alerts=["ServiceAbsent", "TrafficAbsent"],
            empty="nobody asks for anything",
        ),
        graph(
            "Connections at the edge",
            "Connections of clients, by what nginx does with them: reads the request, writes the answer (and waits for "
            "the app), or waits for the next one. Many that write: the app is slow.",
            "short",
            [
                query(f'sum(nginx_connections_{state}{{job="nginx"}})', state, most=1, needs="nginx")
                for state in ("reading", "writing", "waiting")
            ],
            stacked=True,
            alerts=["RequestsQueueing"],
            empty=NO_NGINX,
        ),
    ]


def _outside() -> list[Panel]:
    return [
        graph(
            "The site from outside",
            "What each part of a probe through the edge took. Connecting slow: the network or the edge; "
            "processing slow: the service.",
            "s",
            [
                query(
                    'max by (phase) (probe_http_duration_seconds{job="blackbox"})',
                    "{{phase}}",
                    by=["phase"],
                    most=5,
                    needs="probe",
                )
            ],
            stacked=True,
            colours={
                "resolve": palette.GREY,
                "connect": palette.SKY,
                "tls": palette.PURPLE,
                "processing": palette.BLUE,
                "transfer": palette.ORANGE,
            },
            alerts=["ServiceAbsent"],
            empty=NO_PROBE,
        ),
    ]


def _pool() -> list[Panel]:
    name = f"{{{{{POOL}}}}}"
    return [
        graph(
            "Pool",
            "Connections of all workers by state, the most they may open, and requests that wait for one. All used "
            "while requests wait: too few, or held too long. docs/dependencies.md tells which.",
            "short",
            [
                query(
                    f"sum by ({POOL}, db_client_connection_state) (db_client_connection_count{{@}})",
                    f"{name} {{{{db_client_connection_state}}}}",
                    by=[POOL, "db_client_connection_state"],
                    most=6,
                ),
                query(f"sum by ({POOL}) (db_client_connection_max{{@}})", f"{name} allowed", by=[POOL], most=3),
                query(
                    f"sum by ({POOL}) (db_client_connection_pending_requests{{@}})",
                    f"{name} waiting",
                    by=[POOL],
                    most=3,
                ),
            ],
            colours={
                "/ used$/": palette.ORANGE,
                "/ idle$/": palette.SKY,
                "/ allowed$/": palette.GREY,
                "/ waiting$/": palette.VERMILION,
            },
            alerts=["DatabasePoolExhausted"],
            empty=NO_POOL,
        ),
    ]


def _waits() -> list[Panel]:
    name = f"{{{{{POOL}}}}}"

    def p95(metric: str) -> str:
        return f"histogram_quantile(0.95, sum by (le, {POOL}) (rate({metric}_bucket{{@}}[$__rate_interval]))) >= 0"

    return [
        graph(
            "Connection waited for, p95",
            "95 of 100 requests had a connection, or gave up, in less; opening one is included. "
            "More than milliseconds: see the pool beside, then the database below.",
            "s",
            [query(p95("db_client_connection_wait_time_seconds"), name, by=[POOL], most=3)],
            alerts=["DatabasePoolExhausted"],
            empty=f"no connection is asked for, or {NO_POOL}",
        ),
        graph(
            "Connection held, p95",
            "Time from getting a connection to giving it back: the queries, and all that the request does meanwhile. "
            "It grows while the database is quick: connections are held too long.",
            "s",
            [query(p95("db_client_connection_use_time_seconds"), name, by=[POOL], most=3)],
            alerts=["DatabasePoolExhausted"],
            empty=f"no connection is asked for, or {NO_POOL}",
        ),
        graph(
            "No connection in time",
            "Requests each second that got no connection within the pool's timeout, and failed. Any: more connections "
            "if the database has room, or shorter use of each.",
            "reqps",
            [
                query(
                    f"sum by ({POOL}) ({gained_per_second('db_client_connection_timeouts_total{@}')})",
                    name,
                    by=[POOL],
                    most=3,
                    needs="pool-timeouts",
                )
            ],
            alerts=["DatabasePoolExhausted"],
            empty="every request got a connection",
        ),
    ]


def _postgres() -> list[Panel]:
    of = '{job="postgres"}'
    return [
        graph(
            "Connections of PostgreSQL",
            "Connections that are open, and how many the server allows. Near the most: replicas times workers times "
            "pool is too large.",
            "short",
            [
                query(f"sum(pg_stat_database_numbackends{of})", "open", most=1, needs="postgres"),
                query(f"max(pg_settings_max_connections{of})", "allowed", most=1, needs="postgres"),
            ],
            alerts=["DatabasePoolExhausted"],
            empty=NO_POSTGRES,
        ),
        graph(
            "Transactions",
            "Transactions each second that were committed and rolled back. Many that are rolled back are errors in the "
            "service, or conflicts between requests.",
            "ops",
            [
                query(f"sum(rate(pg_stat_database_xact_{end}{of}[$__rate_interval]))", name, most=1, needs="postgres")
                for end, name in (("commit", "committed"), ("rollback", "rolled back"))
            ],
            empty=NO_POSTGRES,
        ),
        graph(
            "Read from memory",
            "Share of the blocks that PostgreSQL found in its memory. It falls when what is asked for no longer fits: "
            "an index is missing, or shared_buffers too small.",
            "percentunit",
            [
                query(
                    f"sum(rate(pg_stat_database_blks_hit{of}[$__rate_interval])) / "
                    f"(sum(rate(pg_stat_database_blks_hit{of}[$__rate_interval])) + "
                    f"sum(rate(pg_stat_database_blks_read{of}[$__rate_interval])) > 0)",
                    "from memory",
                    most=1,
                    needs="postgres",
                )
            ],
            high=1,
            low=None,
            empty=NO_POSTGRES,
        ),
    ]


def _cache() -> list[Panel]:
    def rate(results: str) -> str:
        return f'sum by (cache) (rate(cache_requests_total{{@,result=~"{results}"}}[$__rate_interval]))'

    took = "rate(cache_request_duration_seconds_bucket{@}[$__rate_interval])"
    return [
        graph(
            "Look-ups that missed",
            "Share of the look-ups that found nothing, and went to the database. Above the line the cache saves "
            "nothing: raise CACHE_TTL_SECONDS or CACHE_ENTRIES, or do without.",
            "percentunit",
            [
                query(
                    f"({rate('miss')} or {rate('hit|miss')} * 0) / ({rate('hit|miss')} > 0)",
                    "{{cache}}",
                    by=["cache"],
                    most=3,
                )
            ],
            high=1,
            limits=above(limit("CacheUseless", "info")),
            alerts=["CacheUseless"],
            empty=f"nothing is looked up, or {NO_CACHE}",
        ),
        graph(
            "Cache duration p95",
            "95 of 100 requests to the cache took less. Near its timeout, the cache slows down what it is to speed up: "
            "see what Redis or the way to it lacks.",
            "s",
            [
                query(
                    f"histogram_quantile(0.95, sum by (le, cache, operation) ({took})) >= 0",
                    "{{cache}} {{operation}}",
                    by=["cache", "operation"],
                    most=6,
                )
            ],
            colours={"/ get$/": palette.BLUE, "/ set$/": palette.ORANGE, "/ delete$/": palette.PURPLE},
            alerts=["CacheDown"],
            empty=f"no cache is asked, or {NO_CACHE}",
        ),
        graph(
            "Cache requests that failed",
            "Share of the requests to the cache that failed, or were skipped since it was just seen down. "
            "Above the line it is down: the database takes the load.",
            "percentunit",
            [
                query(
                    f"({rate('error|skipped')} or {rate('.+')} * 0) / ({rate('.+')} > 0)",
                    "{{cache}}",
                    by=["cache"],
                    most=3,
                )
            ],
            high=1,
            limits=above(limit("CacheDown", "warning")),
            alerts=["CacheDown"],
            empty=f"no cache is asked, or {NO_CACHE}",
        ),
    ]


def _redis() -> list[Panel]:
    of = '{job="redis"}'
    return [
        graph(
            "Memory of Redis",
            "Memory that Redis uses, and may, if maxmemory bounds it. At its most it drops what was used longest ago: "
            "a fall in hits above says whether that hurts.",
            "bytes",
            [
                query(f"sum(redis_memory_used_bytes{of})", "used", most=1, needs="redis"),
                query(f"sum(redis_memory_max_bytes{of} > 0)", "allowed", most=1, needs="redis"),  # 0 is no bound
            ],
            alerts=["CacheUseless"],
            empty=NO_REDIS,
        ),
        graph(
            "Evicted from Redis",
            "Keys each second that Redis dropped for want of memory. All the time: give it more, or keep things for "
            "less long.",
            "ops",
            [query(f"sum(rate(redis_evicted_keys_total{of}[$__rate_interval]))", "evicted", most=1, needs="redis")],
            alerts=["CacheUseless"],
            empty=NO_REDIS,
        ),
    ]
