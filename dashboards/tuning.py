"""What the tuner decides and does, and how it is itself: panels of two dashboards."""

from typing import Final

from dashboards import palette
from dashboards.panels import Panel, graph, log_lines, log_query, query, slots, table

MOST: Final = 10  # servers
OF_TUNER: Final = 'server=~"$instance"'
# Each evaluation is counted, and what it says each time, until people set it, would hide what was done.
TO_DO: Final = f'{OF_TUNER},action!="hold"'
NO_TUNER: Final = "no tuner runs"
OUTCOMES: Final = {
    "/: recommended$/": palette.SAND,
    "/: applied$/": palette.BLUE,
    "/: kept$/": palette.SKY,
    "/: undone$/": palette.VERMILION,
    "/: inconclusive$/": palette.PURPLE,
    "/: (refused|failed)$/": palette.WINE,
}


def advice() -> list[Panel]:
    """Return what settings would cure, as alerts say it."""
    return [
        table(
            "Advice that holds",
            "Alerts that settings can cure, as they fire now; each names its setting under `tuning`, in Alertmanager "
            "and in its runbook.",
            "short",
            [
                query(
                    'max by (alertname, severity, instance) (ALERTS{@,alertstate="firing",tuner="true"})',
                    "",
                    by=["alertname", "severity", "instance"],
                    most=20,
                    needs="full-workers",
                )
            ],
            {"alertname": "Alert", "severity": "Severity", "instance": "Instance"},
            alerts=["WorkersSaturated", "RequestsQueueing"],
            empty="no setting wants a change",
            width=8,
        ),
    ]


def decisions() -> list[Panel]:
    """Return what was decided, and what forbids growth."""
    decided = f"sum by (action, reason, outcome) (increase(tuner_decisions_total{{{TO_DO}}}[$__rate_interval])) > 0"
    frozen = f"max by (server, reason) (tuner_frozen{{{OF_TUNER}}})"
    held = f"max by (server, reason) (max_over_time(tuner_frozen{{{OF_TUNER}}}[$__range] @ end()))"
    return [
        graph(
            "Decisions",
            "Each worker more or less that the tuner decided, for which reason, and what became of it. "
            "Recommended for long: nobody has let it, or done it. Undone again and again: the cause is not a setting.",
            "short",
            [
                query(
                    decided,
                    "{{action}} {{reason}}: {{outcome}}",
                    by=["action", "reason", "outcome"],
                    most=40,
                    needs="tuner-decisions",
                )
            ],
            stacked=True,
            colours=OUTCOMES,
            legend="right",
            empty="no worker more or less was wanted",
        ),
        slots(
            "What keeps the tuner from growing",
            "A row is a reason that held in this period, orange while it does; docs/decisions.md explains each, off is "
            "the mode. "
            "Orange for long while requests wait: more workers are no cure, mend the reason.",
            "short",
            [
                query(
                    f"{frozen} and {held} > 0",
                    "{{server}} {{reason}}",
                    by=["server", "reason"],
                    most=40,
                    needs="tuner",
                )
            ],
            high=1,
            states={0: ("free", palette.GREY), 1: ("holds", palette.WARNING)},
            empty="nothing keeps it from growing, or no tuner runs",
            height=12,
        ),
    ]


def effect() -> list[Panel]:
    """Return what the last step changed."""

    def windows(title: str, description: str, unit: str, metric: str) -> Panel:
        asked = query(
            f"max by (server, window) ({metric}{{{OF_TUNER}}})",
            "{{server}} {{window}}",
            by=["server", "window"],
            most=20,
            needs="tuner-action",
        )
        colours = {"/before$/": palette.GREY, "/after$/": palette.ORANGE}
        return graph(title, description, unit, [asked], colours=colours, empty="the tuner has changed nothing")

    return [
        windows(
            "Before and after: duration p99",
            "The p99 in the window before the last action and in the one after. It is judged together with the queue "
            "beside: slower by both, the tuner undoes it.",
            "s",
            "tuner_action_duration_p99_seconds",
        ),
        windows(
            "Before and after: queue time p95",
            "What requests waited before and after the last action: what more workers are meant to lower. Not lower: "
            "they wait for something else, a CPU or a dependency.",
            "s",
            "tuner_action_queue_p95_seconds",
        ),
        windows(
            "Before and after: requests",
            "Requests a second before and after the last action. Workers that were full answer more: it helped. Far "
            "apart while they had room: the load has changed, and nothing can be said.",
            "reqps",
            "tuner_action_requests_per_second",
        ),
    ]


def health() -> list[Panel]:
    """Return whether the tuner sees, works, and is told."""
    return [
        graph(
            "Age of the tuner's signals",
            "How old the numbers were at the tuner's last look at each server. Beyond TUNER_FRESH_SECONDS it decides "
            "nothing: see whether Prometheus is seen, scrapes, and evaluates its rules.",
            "s",
            [
                query(
                    'max by (server) (tuner_signals_age_seconds{server=~"$instance"})',
                    "{{server}}",
                    by=["server"],
                    most=MOST,
                    needs="tuner",
                )
            ],
            empty=NO_TUNER,
        ),
        graph(
            "Failures of the tuner",
            "Failures of the tuner's own parts: what it reads, whom it asks, what it keeps, how it decides. Any: it "
            "changes nothing meanwhile, and its log says why.",
            "short",
            [
                query(
                    'sum by (part) (increase(tuner_failures_total{job="tuner"}[$__rate_interval]))',
                    "{{part}}",
                    by=["part"],
                    most=4,
                    needs="tuner",
                )
            ],
            stacked=True,
            colours={
                "prometheus": palette.BLUE,
                "agent": palette.ORANGE,
                "state": palette.PURPLE,
                "decision": palette.WINE,
            },
            empty=NO_TUNER,
        ),
        graph(
            "Notifications to the tuner",
            "Notifications of Alertmanager, by what became of them. Unauthorized or malformed: mend the receiver, or "
            "see who else sends; dropped: too many at once, and the next look makes up for them.",
            "short",
            [
                query(
                    'sum by (result) (increase(tuner_webhooks_total{job="tuner"}[$__rate_interval]))',
                    "{{result}}",
                    by=["result"],
                    most=5,
                    needs="tuner",
                )
            ],
            stacked=True,
            colours={
                "accepted": palette.BLUE,
                "repeated": palette.SKY,
                "unauthorized": palette.VERMILION,
                "malformed": palette.ORANGE,
                "dropped": palette.WINE,
            },
            empty=NO_TUNER,
        ),
    ]


def annotator() -> list[Panel]:
    """Return what the annotator has to say of itself."""
    return [
        log_lines(
            "What the annotator warns of",
            "Lines of the annotator above INFO: annotations that it dropped, with their number in all, or that Grafana "
            "refused, and whom it cannot reach. Dropped ones are missing on every dashboard: bring Grafana back.",
            [
                log_query(
                    '{service="annotator", level=~"WARN|ERROR|FATAL"} | json '
                    "| line_format `{{.body}} {{.dropped_in_all}}`",
                    most=100,
                    needs="annotator",
                )
            ],
            empty="no annotator runs, or all is well with it",
        ),
    ]
