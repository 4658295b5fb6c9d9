"""What happened at that moment: lines and traces, beside the numbers that say when to look."""

from typing import Final

from dashboards import palette
from dashboards.events import DEPLOYS, RELOADS, WORKER_DEATHS
from dashboards.frame import LOKI, NAME, ROUTE, SERVICE, TEMPO, WORKER, Dashboard
from dashboards.panels import Panel, graph, log_lines, log_query, query, trace_query, traces
from dashboards.thresholds import above, limit
from observability.settings import Settings

SLOW: Final = f"{Settings.slow_seconds:g}"  # seconds from which on every request keeps its span
LEVELS: Final = {
    "debug": palette.GREY,
    "info": palette.SKY,
    "warning": palette.ORANGE,
    "error": palette.VERMILION,
    "critical": palette.WINE,
}
OURS: Final = '| json | deployment_environment_name=~"$environment" | service_name=~"$name"'
# A route may have quotation marks and backslashes: it stands between backquotes, where nothing is escaped twice.
REQUESTS: Final = f'{OURS} | event_name="http.server.request" | http_route=~`${{route:regex}}` | worker=~"$worker"'
SHOWN: Final = "| line_format `{{.body}} {{.duration_seconds}} s, worker {{.worker}} {{.error_type}}`"
FAILURE: Final = "| line_format `{{.body}} {{.exception_type}} {{.exception_message}} {{.error_type}}`"
# By the span's name, which is method and route: the span of a request that no route matched has no http.route.
SERVED: Final = (
    "kind = server && resource.deployment.environment.name =~ `${environment:regex}`"
    " && resource.service.name =~ `${name:regex}` && name =~ `[A-Z_]+ ?(${route:regex})`"
)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-logs-traces",
        "Sightline / Logs and traces",
        "What happened at that moment?",
        variables=(*SERVICE, NAME, LOKI, TEMPO, ROUTE, WORKER),
        annotations=(DEPLOYS, RELOADS, WORKER_DEATHS),
        rows=[
            ("When to look", [_when()]),
            ("What failed", [_failed()]),
            ("What was slow", [_slow()]),
            ("What workers and the proxy said", [_ends()]),
            ("All requests", [_all()]),
        ],
    )


def _when() -> list[Panel]:
    bad = 'sum(rate(log_messages_total{@,level=~"error|critical"}[$__rate_interval]))'
    return [
        graph(
            "Lines by level",
            "Log lines of the service each second, by level. Drag over a peak to see its lines below.",
            "cps",
            [
                query(
                    "sum by (level) (rate(log_messages_total{@}[$__rate_interval]))",
                    "{{level}}",
                    by=["level"],
                    most=5,
                )
            ],
            stacked=True,
            colours=LEVELS,
            alerts=["LogErrors"],
        ),
        graph(
            "Errors logged",
            "Lines of level error and critical each second. Above the line, read them below: "
            "the first of a burst is usually the reason for the others.",
            "cps",
            [query(bad, "errors", most=1)],
            limits=above(limit("LogErrors", "warning")),
            alerts=["LogErrors"],
        ),
        graph(
            "Lines by container",
            "Lines each second that Loki has, by service of the compose file and level. A service that falls silent "
            "has stopped, or its lines do not arrive: go on to Watching the watcher.",
            "cps",
            [
                log_query(
                    'sum by (service, level) (rate({service=~".+"}[$__interval]))',
                    "{{service}} {{level}}",
                    by=["service", "level"],
                    most=60,
                )
            ],
            stacked=True,
            empty="Loki has no lines of this period",
        ),
    ]


def _failed() -> list[Panel]:
    return [
        log_lines(
            "Errors",
            "Lines of level ERROR and FATAL, newest first. Open one for its stack and fields; "
            "its trace id leads to the trace.",
            [log_query(f'{{service="app", level=~"ERROR|FATAL"}} {OURS} {FAILURE}', most=200, needs="failures")],
            alerts=["LogErrors", "SloAvailabilityBurning"],
            empty="nothing has logged an error",
            height=10,
        ),
        traces(
            "Traces of failed requests",
            "Requests that failed. All of them are kept, whatever is sampled: open one to see which call failed, "
            "and from there its log lines.",
            [trace_query(f"{{ {SERVED} && status = error }}", needs="failures")],
            alerts=["SloAvailabilityBurning"],
            empty="no request has failed",
            height=10,
        ),
    ]


def _slow() -> list[Panel]:
    return [
        log_lines(
            "Slow requests",
            f"Requests of {SLOW} s and more, newest first. Much queue_seconds: workers were full; "
            "much cpu_seconds: the code computes; neither: it waited, and the trace says for what.",
            [
                log_query(
                    f'{{service="app"}} {REQUESTS} | duration_seconds >= {SLOW} {SHOWN}',
                    most=200,
                    needs="slow",
                )
            ],
            alerts=["SloLatencyBurning"],
            empty="no request is slow",
            height=10,
        ),
        traces(
            "Traces of slow requests",
            f"Requests of {SLOW} s and more. All of them are kept; those that were sampled show each call "
            "inside: the longest bar is where to begin.",
            [trace_query(f"{{ {SERVED} && duration >= {SLOW}s }}", needs="slow")],
            alerts=["SloLatencyBurning"],
            empty="no request is slow",
            height=10,
        ),
    ]


def _ends() -> list[Panel]:
    events = "gunicorn.worker.exit|http.server.request.timeout|gunicorn.worker.loop_blocked"
    return [
        log_lines(
            "Workers that ended or stood still",
            "Ends of workers with their cause, requests that timed out with the line where they stood, and calls that "
            "blocked an event loop. docs/causes.md explains the fields.",
            [
                log_query(
                    f'{{service="app"}} {OURS} | event_name=~"{events}" | line_format `{{{{.body}}}}`',
                    most=200,
                    needs="dead-workers",
                )
            ],
            alerts=["WorkerTimeouts", "WorkerCrashLoop", "WorkerLoopBlocked"],
            empty="no worker has ended",
            height=10,
        ),
        log_lines(
            "Failed at the proxy",
            "Requests that nginx answered with 500 and above. One that is not among the app's errors never reached it: "
            "upstream_status and upstream_address say where it ended.",
            [
                log_query(
                    '{service="nginx"} | json | http_response_status_code >= 500 '
                    "| line_format `{{.body}} {{.url_path}} {{.duration_seconds}} s, "
                    "upstream {{.upstream_address}} {{.upstream_status}}`",
                    most=200,
                    needs="failures",
                )
            ],
            alerts=["ServiceAbsent", "SloAvailabilityBurning"],
            empty="no request has failed",
            height=10,
        ),
    ]


def _all() -> list[Panel]:
    return [
        log_lines(
            "Requests",
            "One line a request, of the chosen routes and workers, newest first. Open one for all of its fields; "
            "its trace id leads to the trace, if it was kept.",
            [log_query(f'{{service="app"}} {REQUESTS} {SHOWN}', most=500)],
            empty="Loki has no lines of this period",
            height=10,
        ),
        traces(
            "Traces",
            "Requests whose traces were kept: a sample, and all that failed or were slow.",
            [trace_query(f"{{ {SERVED} }}")],
            empty="Tempo has no traces of this period",
            height=10,
        ),
    ]
