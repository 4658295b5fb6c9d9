"""The rules that dashboards keep, each a function that yields what is wrong; test_dashboards.py holds them to these.

They are those of Grafana's dashboard-linter (https://github.com/grafana/dashboard-linter), and some more.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from dashboards import build, thresholds
from observability import catalogue

RULES = [
    rule
    for path in sorted(thresholds.RULES.glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"] for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SOURCES = {"prometheus": "${datasource}", "loki": "${loki}", "tempo": "${tempo}"}
UNITS = {"reqps", "percentunit", "s", "short", "none", "cps", "ops", "bytes", "bool_yes_no"}
WITHOUT_NUMBERS = {"logs"}
OF_TARGETS = {"job", "instance"}
LEVELS = {
    "job": {"job", "slo"},
    "instance": OF_TARGETS,
    "instance_worker": {*OF_TARGETS, "worker"},
    "instance_cause": {*OF_TARGETS, "cause"},
}
# What others say of themselves, by the job that is scraped for it, and its labels.
# https://prometheus.io/docs/concepts/jobs_instances/ and https://prometheus.io/docs/prometheus/latest/
# https://github.com/nginx/nginx-prometheus-exporter, https://github.com/prometheus-community/postgres_exporter
# https://github.com/oliver006/redis_exporter, https://github.com/prometheus/blackbox_exporter
# https://grafana.com/docs/: Loki, Tempo ("Observability"), Alloy ("otelcol.receiver.otlp", "loki.write")
FOREIGN = {
    "nginx": {
        "nginx_up",
        "nginx_http_requests_total",
        *(f"nginx_connections_{state}" for state in ("reading", "writing", "waiting")),
    },
    "postgres": {
        "pg_up",
        "pg_settings_max_connections",
        *(
            f"pg_stat_database_{each}"
            for each in ("numbackends", "xact_commit", "xact_rollback", "blks_hit", "blks_read")
        ),
    },
    "redis": {"redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_evicted_keys_total"},
    "blackbox": {"probe_success", "probe_http_duration_seconds", "probe_ssl_earliest_cert_expiry"},
    "prometheus": {
        "prometheus_rule_evaluation_failures_total",
        "prometheus_notifications_dropped_total",
        "prometheus_notifications_errors_total",
        "prometheus_tsdb_head_series",
        "prometheus_rule_group_last_duration_seconds",
        "prometheus_rule_group_interval_seconds",
        "prometheus_config_last_reload_successful",
    },
    "alertmanager": {"alertmanager_notifications_failed_total", "alertmanager_config_last_reload_successful"},
    "loki": {"loki_distributor_lines_received_total", "loki_discarded_samples_total"},
    "tempo": {"tempo_distributor_spans_received_total", "tempo_discarded_spans_total"},
    "alloy": {
        "loki_write_sent_entries_total",
        "loki_write_dropped_entries_total",
        "otelcol_receiver_accepted_spans_total",
        "otelcol_exporter_send_failed_spans_total",
    },
}
JOB_OF = {metric: job for job, metrics in FOREIGN.items() for metric in metrics}
OF_ANY_TARGET = {"up", "scrape_duration_seconds"}
OF_ALERTS = {"alertname", "alertstate", "severity", "tuner", *OF_TARGETS}
FOREIGN_LABELS = {"phase", "alertname", "severity"}
COUNTERS_BY_NAME = re.compile(r"_total$|^pg_stat_database_(xact|blks)")
NO_SERIES = re.compile(  # strings, variables, selectors, windows, lists of labels, functions and operators
    r'"[^"]*"|\$\w+|\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)|\b\w+(?=\s*(?:\(|by\b))'
)
WINDOWS = {
    "rate": {"$__rate_interval"},
    "increase": {"$__rate_interval", "$__range"},
    "last_over_time": {"1h"},
    "max_over_time": {"$__range"},
}
OPERATORS = {"or", "and", "unless", "on", "bool", "offset", "m", "NaN"}
# A counter that was not there a window ago: what it shows is what it has gained.
BEGUN = re.compile(r"\(([\w:]+\{[^}]*\}) unless \1 offset \$__rate_interval\)")


def declared(name: str) -> Any:
    """Return the metric that a series belongs to; a gauge's name may end like a histogram's series."""
    return catalogue.METRICS.get(name) or catalogue.METRICS.get(re.sub(r"_(bucket|count|sum)$", "", name))


def selectors(expression: str) -> Iterator[tuple[str, str]]:
    """Yield each series that is asked for with its matchers, and those without any."""
    found = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression)
    yield from found
    words = re.findall(r"[a-zA-Z_:][\w:]*", NO_SERIES.sub(" ", expression))
    yield from ((word, "") for word in set(words) - OPERATORS - {name for name, _ in found})


def labels_in(matchers: str) -> set[str]:
    return set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)))


def needed(name: str) -> tuple[tuple[str, ...], set[str]] | None:
    """Return the matchers that a series has to be selected by, and all labels that it has; None if there is no such."""
    ours = ('job=~"$job"', 'instance=~"$instance"')
    metric = declared(name)
    if metric and name.startswith("tuner_"):
        return ('job="tuner"',) if "server" not in metric.labels else ('server=~"$instance"',), {*metric.labels, "job"}
    if metric:
        of_worker = {"worker"} if metric.per_worker else set()
        # a deploy is of a job to an environment, whichever servers are chosen
        return ours[:1] if name == "target_info" else ours, {*metric.labels, *OF_TARGETS, *of_worker}
    if name in RECORDED:
        labels = LEVELS[name.partition(":")[0]]
        return ours[: len(labels & OF_TARGETS)], labels
    if name in JOB_OF:
        return (f'job="{JOB_OF[name]}"',), {"job"}
    if name in OF_ANY_TARGET:
        return (), OF_TARGETS
    return ((), OF_ALERTS) if name == "ALERTS" else None


def wrong_selectors(expression: str) -> Iterator[str]:
    """Say what is unknown, or not selected by what was chosen above."""
    for name, matchers in selectors(expression):
        known = needed(name)
        if known is None:
            yield f"there is no {name}"
            continue
        wanted, labels = known
        yield from (f"{name} without {each}" for each in wanted if each not in matchers)
        yield from (f"{name} has no label {each}" for each in labels_in(matchers) - labels)


def wrong_rates(expression: str) -> Iterator[str]:
    """Say which window is not Grafana's, which counter is raw, and which gauge has a rate."""
    for function, window in re.findall(r"(\w+)\((?:[^()]*?)\[([^]]*)\]", expression):
        if window not in WINDOWS.get(function, set()):
            yield f"{function} over {window}"
    rated = set(re.findall(r"(?:rate|increase)\(([\w:]+)", expression))
    for name, _ in selectors(expression):
        metric = declared(name)
        counter = metric.kind != "gauge" if metric else bool(COUNTERS_BY_NAME.search(name))
        bare = BEGUN.sub("", re.sub(rf"(?:rate|increase)\({name}\b", "", expression))
        if counter and re.search(rf"\b{name}\b", bare):
            yield f"the counter {name} is raw"
        if name in rated and not counter:
            yield f"the gauge {name} has a rate"


def wrong_labels(asked: build.Asked, legend: str) -> Iterator[str]:
    """Say which label is grouped by or shown that there is none of, or that the answer does not have."""
    known = {label for metric in catalogue.METRICS.values() for label in metric.labels}
    known |= OF_TARGETS | FOREIGN_LABELS | {"worker", "le", "slo"}
    grouped = {
        each.strip() for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", asked.expression) for each in by.split(",")
    }
    yield from (f"there is no label {each}" for each in (grouped | set(asked.by)) - known)
    shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
    yield from (f"the legend shows {each}, which the answer has not" for each in shown - set(asked.by))
    last = re.search(r"\bby \(([^)]*)\)", asked.expression)
    if last and not re.search(r"\) (?:[-+/*]|and|or|unless) |^min\(|^max\(", asked.expression):
        by = {each.strip() for each in last[1].split(",")} - ({"le"} if "quantile" in asked.expression else set())
        if by != set(asked.by) and by:
            yield f"grouped by {sorted(by)}, and said to be by {sorted(asked.by)}"


# What is said of every panel alike, and tells nobody how to read this one.
GENERATED = re.compile(r" (?:Empty while|Alerts:) .*$")
SENTENCE = re.compile(r"[.:;?](?=\s|$)")  # what to look for, and what then, may stand in one: "Any: mend it"


def wrong_panel(panel: dict[str, Any]) -> Iterator[str]:
    """Say what a panel lacks."""
    text = panel["description"]
    if not (panel["title"] and len(SENTENCE.findall(GENERATED.sub("", text))) >= 2 and text.endswith(".")):
        yield "no title, or no description that says how to read it and what to do"
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    numbers = panel["type"] not in WITHOUT_NUMBERS and panel["datasource"]["type"] != "tempo"
    if numbers and defaults.get("unit") not in UNITS:
        yield f"unit {defaults.get('unit')}"
    if panel["type"] == "bargauge" and defaults.get("unit") == "percentunit" and defaults.get("max") != 1:
        yield "a bar of a share that does not end at the whole"
    if [target["refId"] for target in panel["targets"]] != list("ABCDEFGH")[: len(panel["targets"])]:
        yield "refIds"
    for target in [panel, *panel["targets"]]:
        source = target["datasource"]
        if SOURCES.get(source["type"]) != source["uid"]:
            yield f"data source {source}"
    runbooks = re.findall(r"(\w+) \(runbooks/(\w+)\.md\)", text)
    yield from (f"no alert {name}" for name, page in runbooks if name != page or name not in ALERTS)
    if defaults.get("noValue") and "Empty while " not in text:
        yield "says nothing of when it is empty"


def promised(rule: dict[str, Any]) -> Iterator[float]:
    """Yield the numbers of an objective that an alert's own follow from: its threshold, and shares of its budget."""
    for each in yaml.safe_load((thresholds.RULES.parents[1] / "slo.yml").read_text())["objectives"]:
        if f'slo="{each["name"]}"' in rule["expr"]:
            factors = re.findall(r"slo_burn:\w+\{[^}]*\} > ([\d.]+)", rule["expr"])
            yield from (round(float(factor) * (100 - each["objective"]) / 100, 6) for factor in factors)
            yield from [each["threshold"]] if "threshold" in each else []


def wrong_thresholds(panel: dict[str, Any]) -> Iterator[str]:
    """Say which threshold is none of the numbers in the expressions of the alerts that the panel names."""
    named = set(re.findall(r"runbooks/(\w+)\.md", panel["description"]))
    numbers = {thresholds.JUST_ABOVE_ZERO, thresholds.WHOLE}
    for rule in RULES:
        if rule.get("alert") in named:
            factors = re.findall(r"[<>] *([\d.]+(?: \* [\d.]+)*)", rule["expr"])
            numbers |= {float(eval(each)) for each in factors} | set(promised(rule))
    steps = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}).get("steps", [])
    yield from (f"{step['value']} of {sorted(named)}" for step in steps if step["value"] not in numbers | {None})
