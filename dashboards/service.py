"""The service at a glance: is it well for its users, and if not, which route?"""

from typing import Any, Final

from dashboards import palette
from dashboards.events import DEPLOYS, RELOADS, WORKER_DEATHS
from dashboards.frame import OF_USERS, ROUTE, SERVICE, Dashboard
from dashboards.panels import Panel, bars, gained, gained_per_second, graph, heatmap, query, stat, table
from dashboards.thresholds import PROBES, WHOLE, above, below, failed, limit, slow

DURATION: Final = "http_server_request_duration_seconds"
OF: Final = '@,http_route=~"$route"'
USERS: Final = f"{OF},{OF_USERS}"
NO_PROBES: Final = f"Questions of load balancers ({', '.join(PROBES)}) are left out."
RATE: Final = f"rate({DURATION}_count{{{OF}}}[$__rate_interval])"
SERVER_ERRORS: Final = 'http_response_status_code=~"5.."'
LOST: Final = "(sum(increase(gunicorn_requests_lost_total{@}[$__rate_interval])) or vector(0))"  # it knows no route
BUCKETS: Final = f"rate({DURATION}_bucket{{{OF}}}[$__rate_interval])"
P99: Final = f"histogram_quantile(0.99, sum by (le, http_route) ({BUCKETS}))"
NONE: Final = (
    '"http_route", "no route matched", "http_route", ""'  # what matched none has an empty route, which has no name
)
LOGS: Final = (
    "/d/sightline-logs-traces?${__url_time_range}&${datasource:queryparam}"
    "&${environment:queryparam}&${job:queryparam}&${instance:queryparam}"
)
TRACE: Final = ("Logs and traces of this route", f"{LOGS}&var-route=${{__field.labels.http_route}}")
# What no route matched is none of the routes that can be chosen there.
TRACES: Final[dict[str, Any]] = {
    "links": [TRACE],
    "links_of": {"/no route matched/": [("Logs and traces of all routes", LOGS)]},
}
NOBODY: Final = "nobody asks for anything"
NO_SERVER: Final = "no server is seen"
IDLE: Final = "or 0 * max(up{@} == 1)"  # nobody asks, or nothing fails; of servers that are not seen nothing is known
QUEUEING: Final = limit("RequestsQueueing", "warning", "queue_seconds:p95")


def _gained(of: str) -> str:
    """Count requests, the first of its kind too: one that fails like none before it is to be seen."""
    return gained(f"{DURATION}_count{{{of}}}")


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-service",
        "Sightline / Service",
        "Is the service well for its users, and if not, which route is it?",
        variables=(*SERVICE, ROUTE),
        annotations=(DEPLOYS, RELOADS, WORKER_DEATHS),
        rows=[
            ("Now", [[*_now(), *_behind()]]),
            ("Rate, errors, duration", [_red(), _durations()]),
            ("Promises", [_promises()]),
            ("Where to look", [[*_worst(), *_versions()]]),
        ],
    )


def _now() -> list[Panel]:
    return [
        stat(
            "Requests",
            "Requests answered each second. Far from what is usual at this hour: see who sends them, or what stops. "
            f"{NO_PROBES}",
            "reqps",
            [query(f"sum(rate({DURATION}_count{{{USERS}}}[$__rate_interval])) {IDLE}", "requests", most=1)],
            alerts=["TrafficAbsent"],
            empty=NO_SERVER,
        ),
        stat(
            "Failed",
            "Share of requests that failed on our side, by a status of 500 and above, or with their worker. "
            "Above a limit, the budget burns as fast as its alert allows: failing routes, below, say where. "
            f"{NO_PROBES}",
            "percentunit",
            [
                query(
                    f"((sum({_gained(f'{USERS},{SERVER_ERRORS}')}) or vector(0)) + {LOST})"
                    f" / ((sum({_gained(USERS)}) + {LOST}) > 0) {IDLE}",
                    "failed",
                    most=1,
                )
            ],
            limits=above(failed("warning", "1d"), failed("critical", "1h")),
            alerts=["SloAvailabilityBurning"],
            empty=NO_SERVER,
        ),
        stat(
            "Duration p99",
            "99 of 100 requests are answered faster, as the histogram's buckets tell. "
            f"Above the limit, more than the objective allows are slow: the graph by route says which. {NO_PROBES}",
            "s",
            [
                query(
                    f"histogram_quantile(0.99, sum by (le) (rate({DURATION}_bucket{{{USERS}}}[$__rate_interval])))",
                    "p99",
                    most=1,
                )
            ],
            limits=above(slow()),
            alerts=["SloLatencyBurning"],
            empty=NOBODY,
        ),
    ]


def _behind() -> list[Panel]:
    return [
        stat(
            "Queue time p95",
            "What 95 of 100 requests waited at most between the proxy and the app. "
            "Above the line, workers are full: go on to Saturation and tuning.",
            "s",
            [
                query(
                    "histogram_quantile(0.95, sum by (le) "
                    "(rate(http_server_request_queue_seconds_bucket{@}[$__rate_interval])))",
                    "p95",
                    most=1,
                )
            ],
            limits=above(QUEUEING, limit("RequestsQueueing", "critical", "queue_seconds:p95")),
            alerts=["RequestsQueueing"],
            empty=f"{NOBODY}, or no proxy sets X-Request-Start",
        ),
        stat(
            "Workers missing",
            "Workers that should be there and are not. More than nothing for longer than a boot takes: "
            "the Workers dashboard shows how they ended.",
            "short",
            [
                query(
                    # by server: more than enough on one, as in a reload, are no cure for too few on another
                    'sum(clamp_min(sum by (job, instance) (gunicorn_workers{@,state="target"})'
                    ' - sum by (job, instance) (gunicorn_workers{@,state="live"}), 0))',
                    "missing",
                    most=1,
                )
            ],
            limits=above(0),
            alerts=["WorkersBelowTarget"],
            empty=NO_SERVER,
        ),
        stat(
            "Seen",
            "Share of the agents that answer Prometheus. Below 100 %, the rest of this page is not whole: "
            "go on to Watching the watcher.",
            "percentunit",
            [query("avg(up{@}) or vector(0)", "seen", most=1)],
            limits=below(WHOLE, critical=0),
            alerts=["ServiceAbsent", "AgentAbsent"],
        ),
    ]


def _red() -> list[Panel]:
    return [
        graph(
            "Rate by route",
            "Requests answered each second, by method and route. One that vanishes while the others go on is broken "
            "before the app, or by a deploy.",
            "reqps",
            [
                query(
                    f"label_replace(sum by (http_request_method, http_route) ({RATE}), {NONE})",
                    "{{http_request_method}} {{http_route}}",
                    by=["http_request_method", "http_route"],
                    most=40,
                )
            ],
            stacked=True,
            empty=NOBODY,
            **TRACES,
        ),
        graph(
            "Failed by route and error",
            "Requests that failed each second, by route and type of error: an exception's name, or the status. "
            "Open the logs of the route from any point.",
            "reqps",
            [
                query(
                    "label_replace(sum by (http_route, error_type) "
                    f"({gained_per_second(f'{DURATION}_count{{{OF},{SERVER_ERRORS}}}')}), {NONE})",
                    "{{http_route}} {{error_type}}",
                    by=["http_route", "error_type"],
                    most=40,
                    needs="failures",
                ),
                query("sum(rate(gunicorn_requests_lost_total{@}[$__rate_interval]))", "lost with their worker", most=1),
            ],
            stacked=True,
            **TRACES,
            alerts=["SloAvailabilityBurning", "LogErrors"],
            empty="no request has failed",
        ),
    ]


def _durations() -> list[Panel]:
    return [
        graph(
            "Duration p99 by route",
            "99 of 100 requests are faster. The points are exemplars, single requests: a click leads to the trace. "
            "A route that rises alone has a slow dependency; all at once, the workers are full.",
            "s",
            [
                query(
                    f"label_replace({P99} >= 0, {NONE})",  # NaN is nobody's
                    "{{http_route}}",
                    by=["http_route"],
                    most=40,
                    exemplars=True,
                )
            ],
            **TRACES,
            alerts=["SloLatencyBurning"],
            empty=NOBODY,
        ),
        heatmap(
            "Durations",
            "How many requests took how long. Two bands are two kinds of request, or a cache that hits and misses; "
            f"a band that climbs is a queue. Points are exemplars, and lead to traces. {NO_PROBES}",
            "s",
            [
                query(
                    f"sum by (le) (increase({DURATION}_bucket{{{USERS}}}[$__rate_interval]))",
                    "{{le}}",
                    by=["le"],
                    most=16,
                    exemplars=True,
                )
            ],
            alerts=["SloLatencyBurning"],
            empty=NOBODY,
        ),
    ]


def _promises() -> list[Panel]:
    return [
        bars(
            "Error budget left",
            "What is left of the failures that the objective allows in 30 days. At nothing, the promise is broken: "
            "changes wait until it recovers. docs/slo.md says how it is counted.",
            "percentunit",
            [query('job:slo_error_budget_remaining:ratio{job=~"$job"}', "{{job}} {{slo}}", by=["job", "slo"], most=4)],
            limits=below(critical=0),
            high=1,
            alerts=["SloAvailabilityBurning", "SloLatencyBurning"],
            empty="no request of these 30 days has been counted",
            width=8,
        ),
        graph(
            "Budget burnt",
            "How many times faster than allowed the budget is used up, over an hour and over a day. At 1 it lasts "
            "exactly 30 days. The upper line is where the hour wakes somebody, the lower where the day is a ticket.",
            "none",
            [
                query('job:slo_burn:rate1h{job=~"$job"}', "{{job}} {{slo}} 1h", by=["job", "slo"], most=4),
                query('job:slo_burn:rate1d{job=~"$job"}', "{{job}} {{slo}} 1d", by=["job", "slo"], most=4),
            ],
            colours={"/ availability /": palette.BLUE, "/ latency /": palette.ORANGE},
            limits=above(
                limit("SloAvailabilityBurning", "warning", "slo_burn:rate1d"),
                limit("SloAvailabilityBurning", "critical", "slo_burn:rate1h"),
            ),
            alerts=["SloAvailabilityBurning", "SloLatencyBurning"],
            empty=NOBODY,
            width=8,
        ),
        table(
            "Alerts that fire",
            "What is wrong now, as the rules see it; the name is that of a page in runbooks/. "
            "Critical first: a warning below it is often its cause.",
            "short",
            [
                query(
                    "max by (alertname, severity, instance) "
                    # those of no instance too, and those of the site that a probe asks
                    '(ALERTS{job=~"$job",instance=~"|$instance|https?://.*",alertstate="firing"})',
                    "",
                    by=["alertname", "severity", "instance"],
                    most=20,
                    needs="alerts",
                )
            ],
            {"severity": "Severity", "alertname": "Alert", "instance": "Instance"},
            empty="no alert of the service fires",
            width=8,
        ),
    ]


def _worst() -> list[Panel]:
    failing, all_ = _gained(f"{OF},{SERVER_ERRORS}"), _gained(OF)
    ratio = f"sum by (http_route) ({failing}) / (sum by (http_route) ({all_}) > 0)"
    return [
        bars(
            "Slowest routes",
            "The five routes with the highest p99. The first one is where a faster query or a cache is felt most: "
            "its traces say what it waits for.",
            "s",
            [
                query(
                    f"topk(5, label_replace({P99} >= 0, {NONE}))",
                    "{{http_route}}",
                    by=["http_route"],
                    most=5,
                )
            ],
            alerts=["SloLatencyBurning"],
            empty=NOBODY,
            **TRACES,
        ),
        bars(
            "Failing routes",
            "The five routes of which the largest share fails. One at 100 % is broken; a few per cent on all is a "
            "dependency: go on to Dependencies.",
            "percentunit",
            [
                query(
                    f"topk(5, label_replace({ratio} > 0, {NONE}))",
                    "{{http_route}}",
                    by=["http_route"],
                    most=5,
                    needs="failures",
                )
            ],
            high=1,
            alerts=["SloAvailabilityBurning"],
            empty="no route fails",
            **TRACES,
        ),
    ]


def _versions() -> list[Panel]:
    return [
        table(
            "What runs",
            "The servers of this service and their versions. Two versions for longer than a deploy takes: "
            "it stopped half way.",
            "short",
            [
                query(
                    "max by (instance, service_version, deployment_environment_name) (target_info{@})",
                    "",
                    by=["instance", "service_version", "deployment_environment_name"],
                    most=10,
                )
            ],
            {
                "instance": "Instance",
                "service_version": "Version",
                "deployment_environment_name": "Environment",
            },
        ),
    ]
