"""Whether what the other dashboards show is true and whole: who watches, and what is lost on the way."""

from typing import Final

from dashboards import palette, scrapes, tuning
from dashboards.events import DEPLOYS, RELOADS
from dashboards.frame import LOKI, SERVICE, Dashboard
from dashboards.panels import Panel, Query, gained, graph, query, slots, stat
from dashboards.thresholds import above, limit

MOST: Final = 10
BY: Final = ("instance",)
WATCHDOG: Final = 'ALERTS{alertname="Watchdog",alertstate="firing"}'
DROPPED: Final = 'prometheus_notifications_dropped_total{job="prometheus"}'
UNSENT: Final = (
    'prometheus_notifications_errors_total{job="prometheus"}',
    'alertmanager_notifications_failed_total{job="alertmanager"}',
)
UNWATCHED: Final = "Prometheus does not watch itself"
NO_LOKI: Final = "no Loki runs"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "sightline-watching",
        "Sightline / Watching the watcher",
        "Can I trust what I see?",
        variables=(*SERVICE, LOKI),
        annotations=(DEPLOYS, RELOADS),
        rows=[
            ("Now", [[*_now(), *_lost()]]),
            ("Scrapes", [_scrapes()]),
            ("The agent and its store", [[*_agent(), *_store()]]),
            ("Prometheus and Alertmanager", [_prometheus()]),
            ("The tuner and the annotator", [[*tuning.health(), *tuning.annotator()]]),
            ("Lines and spans on their way", [[*_telemetry(), *_lines()], _spans()]),
        ],
    )


def _of_instance(of: str, needs: str = "") -> list[Query]:
    return [query(of, "{{instance}}", by=BY, most=MOST, needs=needs)]


def _now() -> list[Panel]:
    return [
        stat(
            "Watchdog",
            "An alert that always fires. Silent: Prometheus evaluates no rules, and no other alert would come either.",
            "short",
            [query(f"clamp_max(count({WATCHDOG}), 1) or vector(0)", "watchdog", most=1)],
            states={0: ("silent", palette.BAD), 1: ("fires", palette.GOOD)},
            alerts=["Watchdog"],
        ),
        stat(
            "Targets not seen",
            "Targets that Prometheus cannot scrape at this moment, of all that it has, whatever is chosen. "
            "What they measure is missing here and everywhere: the rows below say which.",
            "short",
            [query("count(up == 0) or vector(0)", "not seen", most=1)],
            limits=above(0),
            alerts=["TargetDown", "AgentAbsent"],
        ),
        stat(
            "Rules that fail",
            "Evaluations of rules that failed in this period. Any: alerts among them cannot fire; "
            "Prometheus's page of rules shows the error.",
            "short",
            [
                query(
                    'sum(increase(prometheus_rule_evaluation_failures_total{job="prometheus"}[$__range]))',
                    "failed",
                    most=1,
                )
            ],
            limits=above(critical=limit("PrometheusRulesFailing", "critical")),
            decimals=0,
            alerts=["PrometheusRulesFailing"],
            empty=UNWATCHED,
        ),
    ]


def _lost() -> list[Panel]:
    return [
        stat(
            "Alerts not sent",
            "Notifications in this period that Prometheus could not hand to Alertmanager, or Alertmanager to a "
            "receiver. Any: somebody was not told.",
            "short",
            [
                query(
                    f"sum(increase({DROPPED}[$__range]))"
                    + "".join(f" + (sum(increase({each}[$__range])) or vector(0))" for each in UNSENT),
                    "not sent",
                    most=1,
                )
            ],
            limits=above(critical=limit("AlertsNotSent", "critical")),
            decimals=0,
            alerts=["AlertsNotSent"],
            empty=UNWATCHED,
        ),
        stat(
            "Spans lost",
            "Share of the spans that did not reach their receiver. Above the limit traces are missing: "
            "it is down or slow, or the queue is short.",
            "percentunit",
            [
                query(
                    '(sum(rate(observability_spans_total{@,outcome="dropped"}[$__rate_interval])) or vector(0)) / '
                    "(sum(rate(observability_spans_total{@}[$__rate_interval])) > 0)",
                    "lost",
                    most=1,
                    needs="spans",
                )
            ],
            limits=above(limit("TracesDropped", "warning")),
            alerts=["TracesDropped"],
            empty="no span is made",
        ),
        stat(
            "Lines lost",
            "Log lines in this period that were given up. Any: whoever reads the standard output stands still, "
            "or the disk is full.",
            "short",
            [query("sum(increase(observability_log_lines_dropped_total{@}[$__range]))", "lost", most=1)],
            limits=above(limit("LogLinesDropped", "warning")),
            decimals=0,
            alerts=["LogLinesDropped"],
            empty="no server is seen",
        ),
    ]


def _scrapes() -> list[Panel]:
    return [
        slots(
            "Seen by Prometheus",
            "A row is a target, of all that Prometheus has, whatever is chosen; a cell whether it could be scraped. "
            "Dark red: it is down, or the way to it; what its alerts would say is unknown meanwhile.",
            "short",
            [query("max by (job, instance) (up)", "{{job}} {{instance}}", by=["job", "instance"], most=40)],
            high=1,
            states={0: ("not seen", palette.BAD), 1: ("seen", palette.GOOD)},
            alerts=["TargetDown", "AgentAbsent"],
            width=12,
        ),
        graph(
            "Scrape duration of the agents",
            f"What a scrape of each agent takes. Prometheus gives up after {scrapes.patience():g} s: "
            "above the line lower OBSERVABILITY_MAX_LABEL_SETS, or give the machine CPU back.",
            "s",
            _of_instance("max by (instance) (scrape_duration_seconds{@})"),
            limits=above(limit("ScrapeSlow", "warning")),
            alerts=["ScrapeSlow"],
            width=6,
        ),
    ]


def _agent() -> list[Panel]:
    return [
        graph(
            "Agents started anew",
            "Starts of the agent by its master. One with each server is meant; more: it dies, and its log says why.",
            "short",
            _of_instance("sum by (instance) (increase(observability_agent_starts_total{@}[$__rate_interval]))"),
            alerts=["AgentAbsent"],
        ),
        graph(
            "Hooks that failed",
            "Server hooks whose inner work failed; the service went on, and something of it is not seen. "
            "Any is a bug here, or a state directory that is gone.",
            "short",
            [
                query(
                    f"sum by (hook) ({gained('observability_hook_failures_total{@}')})",
                    "{{hook}}",
                    by=["hook"],
                    most=20,
                    needs="hook-failures",
                )
            ],
            empty="no hook has failed",
        ),
    ]


def _store() -> list[Panel]:
    return [
        graph(
            "Numbers that are missing",
            "Slot files that cannot be read, and series that found no room. What they hold is in no graph: "
            "see that OBSERVABILITY_DIR has room, and that nothing else writes there.",
            "short",
            [
                query(
                    "sum by (instance) (observability_store_corrupt_files{@})",
                    "{{instance}} files not read",
                    by=BY,
                    most=MOST,
                ),
                query(
                    "sum by (instance) (increase(observability_store_refused_total{@}[$__rate_interval]))",
                    "{{instance}} series refused",
                    by=BY,
                    most=MOST,
                ),
            ],
            legend="right",
            alerts=["MetricsStoreCorrupt"],
            width=9,
        ),
        graph(
            "Label sets refused",
            "New label sets that found their metric full, and are counted together as _overflow. "
            "Bound the label's values; raise OBSERVABILITY_MAX_LABEL_SETS only where they are bounded.",
            "short",
            [
                query(
                    f"sum by (metric) ({gained('observability_label_sets_refused_total{@}')})",
                    "{{metric}}",
                    by=["metric"],
                    most=20,
                    needs="label-sets",
                )
            ],
            alerts=["LabelSetsRefused"],
            empty="no metric is full",
        ),
    ]


def _telemetry() -> list[Panel]:
    return [
        graph(
            "Lines written and lost",
            "Log lines each second that were written, and that were given up since nobody took them. "
            "Any that are lost: see why whoever reads the standard output stands still.",
            "cps",
            [
                query("sum(rate(log_messages_total{@}[$__rate_interval]))", "written", most=1),
                query("sum(rate(observability_log_lines_dropped_total{@}[$__rate_interval]))", "lost", most=1),
            ],
            colours={"written": palette.SKY, "lost": palette.BAD},
            alerts=["LogLinesDropped"],
        ),
    ]


def _prometheus() -> list[Panel]:
    of = '{job="prometheus"}'
    return [
        graph(
            "Series in Prometheus",
            "Series that Prometheus keeps in memory. A step is a new target, a climb without end a label that "
            "takes endless values: it ends in its memory.",
            "short",
            [query(f"sum(prometheus_tsdb_head_series{of})", "series", most=1)],
            alerts=["LabelSetsRefused"],
            empty=UNWATCHED,
        ),
        graph(
            "Time the rules take",
            "Share of its interval that the slowest group of rules takes. Near 100 % alerts come late, "
            "and evaluations are left out.",
            "percentunit",
            [
                query(
                    f"max(prometheus_rule_group_last_duration_seconds{of} / "
                    f"prometheus_rule_group_interval_seconds{of})",
                    "slowest group",
                    most=1,
                )
            ],
            alerts=["PrometheusRulesFailing"],
            empty=UNWATCHED,
        ),
        graph(
            "Configurations in force",
            "1 where Prometheus and Alertmanager run the configuration that they were last told to read; "
            "0 where they refused it, and go on with the one before.",
            "bool_yes_no",
            [
                query('min(prometheus_config_last_reload_successful{job="prometheus"})', "Prometheus", most=1),
                query('min(alertmanager_config_last_reload_successful{job="alertmanager"})', "Alertmanager", most=1),
            ],
            high=1,
            alerts=["PrometheusConfigRejected"],
            empty=UNWATCHED,
        ),
    ]


def _rate(metric: str, job: str) -> str:
    return f'sum(rate({metric}{{job="{job}"}}[$__rate_interval]))'


def _lines() -> list[Panel]:
    return [
        graph(
            "Lines to Loki",
            "Log lines each second that Alloy sent, and that Loki took. Alloy above Loki for long: Loki refuses them, "
            "and its log says why.",
            "cps",
            [
                query(_rate("loki_write_sent_entries_total", "alloy"), "sent by Alloy", most=1, needs="logs"),
                query(_rate("loki_distributor_lines_received_total", "loki"), "taken by Loki", most=1, needs="logs"),
            ],
            alerts=["TargetDown"],
            empty=NO_LOKI,
        ),
        graph(
            "Lines that Loki or Alloy lost",
            "Log lines each second that Alloy gave up, or Loki discarded: too many, too old, or too long. "
            "The limits stand in monitoring/loki/loki.yml.",
            "cps",
            [
                query(_rate("loki_write_dropped_entries_total", "alloy"), "dropped by Alloy", most=1, needs="logs"),
                query(_rate("loki_discarded_samples_total", "loki"), "discarded by Loki", most=1, needs="lost-lines"),
            ],
            empty="no line is lost",
        ),
    ]


def _spans() -> list[Panel]:
    return [
        graph(
            "Spans to Tempo",
            "Spans each second that the service sent, that Alloy took, and that Tempo took. "
            "Where a line falls below the one before it, they are lost.",
            "ops",
            [
                query(
                    'sum(rate(observability_spans_total{@,outcome="exported"}[$__rate_interval]))',
                    "sent by the service",
                    most=1,
                    needs="spans",
                ),
                query(
                    _rate("otelcol_receiver_accepted_spans_total", "alloy"), "taken by Alloy", most=1, needs="traces"
                ),
                query(
                    _rate("tempo_distributor_spans_received_total", "tempo"), "taken by Tempo", most=1, needs="traces"
                ),
            ],
            alerts=["TracesDropped", "TargetDown"],
            empty="no span is made",
        ),
        graph(
            "Spans that Tempo or Alloy lost",
            "Spans each second that Alloy could not send on, or Tempo discarded. See Tempo's log, and its disk.",
            "ops",
            [
                query(
                    _rate("otelcol_exporter_send_failed_spans_total", "alloy"),
                    "not sent by Alloy",
                    most=1,
                    needs="lost-spans",
                ),
                query(_rate("tempo_discarded_spans_total", "tempo"), "discarded by Tempo", most=1, needs="lost-spans"),
            ],
            empty="no span is lost",
        ),
    ]
