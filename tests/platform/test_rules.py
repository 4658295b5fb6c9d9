"""The rules are valid, each alert and each recorded number is proven by cases, and nothing in them is made up."""

import itertools
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.docs import names
from tests.prometheus import program
from tests.server import ROOT

PROMETHEUS = ROOT / "monitoring/prometheus"
FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((PROMETHEUS / "tests").glob("*.yml"))}
RULES = [rule for path in FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
EXISTS = names.known()
# What Prometheus, Alertmanager and the prober say of themselves and of what they ask
OF_OTHERS = {
    "up",
    "scrape_duration_seconds",
    "probe_success",
    "probe_ssl_earliest_cert_expiry",
    "prometheus_config_last_reload_successful",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_notifications_dropped_total",
    "prometheus_notifications_errors_total",
    "alertmanager_config_last_reload_successful",
    "alertmanager_notifications_failed_total",
}
LEVELS = {
    "job": {"job"},
    "job_route": {"job", "http_route"},
    "job_route_le": {"job", "http_route", "le"},
    "instance": {"job", "instance"},
    "instance_cause": {"job", "instance", "cause"},
    "instance_worker": {"job", "instance", "worker"},
}
OPERATORS = {"and", "or", "unless", "bool", "offset"}
NO_SERIES = re.compile(  # strings, selectors, windows, lists of labels, functions
    r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring|group_\w+)\s*\([^)]*\)|\b\w+(?=\s*(?:\(|(?:by|without)\b))'
)
SPAN = re.compile(r"(\d+)([hms])")
SECONDS = {"h": 3600, "m": 60, "s": 1}


def promtool(*arguments: object) -> None:
    """Run promtool, which has to succeed."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def series(expression: str) -> set[str]:
    """Return the names of the series that an expression asks for."""
    words = re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*", NO_SERIES.sub(" ", expression))
    return set(words) - OPERATORS


def queries(rule: dict[str, Any]) -> Iterator[str]:
    """Yield a rule's expression, and those that its texts ask."""
    yield rule["expr"]
    for text in rule.get("annotations", {}).values():
        yield from re.findall(r'printf "([^"]*)"[^}|]*\| query', text)


def seconds(span: str) -> int:
    """Return the seconds of a time such as 1h10m05s."""
    return sum(int(number) * SECONDS[unit] for number, unit in SPAN.findall(span))


def groups() -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each group of cases with the seconds between two evaluations."""
    for cases in CASES.values():
        yield from ((seconds(cases["evaluation_interval"]), group) for group in cases["tests"])


def expected() -> Iterator[dict[str, Any]]:
    """Yield each alert that a case expects."""
    for _, group in groups():
        for case in group.get("alert_rule_test", []):
            yield from ({"alertname": case["alertname"], **alert} for alert in case["exp_alerts"])


def named(rule: dict[str, Any]) -> str:
    """Name an alert with its severity."""
    return f"{rule['alert']}-{rule['labels']['severity']}"


def test_prometheus_takes_the_rules():
    promtool("check", "rules", *FILES)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("slo")])
def test_the_cases_hold(name):
    promtool("test", "rules", PROMETHEUS / f"tests/{name}.yml")


def test_each_file_of_rules_has_its_cases():
    assert {path.stem for path in FILES} <= CASES.keys()


@pytest.mark.parametrize("rule", ALERTS, ids=named)
def test_an_alert_is_silent_just_before_it_fires(rule):
    if rule["alert"] == "Watchdog":
        pytest.skip("it always fires")
    found = False
    for step, group in groups():
        times: dict[bool, set[int]] = {True: set(), False: set()}
        for case in group.get("alert_rule_test", []):
            if case["alertname"] == rule["alert"]:
                severities = {alert["exp_labels"]["severity"] for alert in case["exp_alerts"]}
                times[rule["labels"]["severity"] in severities].add(seconds(case["eval_time"]))
        found = found or any(0 < fires - silent <= step for fires in times[True] for silent in times[False])
    assert found, "no case has it silent at one evaluation, and firing at the next"


def test_the_watchdog_fires_from_the_start():
    fires = [
        seconds(case["eval_time"])
        for _, group in groups()
        for case in group.get("alert_rule_test", [])
        if case["alertname"] == "Watchdog" and case["exp_alerts"]
    ]
    assert min(fires) == 0
    assert max(fires) >= 3600


@pytest.mark.parametrize("rule", ALERTS, ids=named)
def test_an_alert_says_what_it_is_and_what_to_do(rule):
    labels, annotations = rule["labels"], rule["annotations"]
    assert re.fullmatch(r"([A-Z][a-z0-9]+)+", rule["alert"])
    assert labels["severity"] in ("critical", "warning", "info")
    assert labels["subject"] in ("users", "workers", "memory", "cpu", "dependencies", "telemetry", "platform")
    assert labels.get("tuner", "true") == "true"
    assert "{{" not in str(labels), "a label that changes makes another alert of it"
    assert annotations.keys() == {"summary", "description", "runbook_url", "dashboard_url", "tuning"}
    for text in ("summary", "description", "tuning"):
        assert annotations[text].endswith((".", ".{{ end }}")), text
    assert annotations["runbook_url"].endswith(f"runbooks/{rule['alert']}.md")
    uid = annotations["dashboard_url"].partition("?")[0].rpartition("/")[2]
    assert any(f'"uid": "{uid}"' in path.read_text() for path in (ROOT / "dashboards").glob("*.json"))


def test_what_an_alert_says_reads_well():
    for alert in expected():
        for key, text in alert["exp_annotations"].items():
            assert not re.search(r"<no value>|%!|NaN|\bInf|\{\{|  | [.,;]|\d\.\d+[mµn] ", text), text
            assert key.endswith("_url") or text.endswith("."), text


def test_alerts_of_one_name_have_severities_of_their_own():
    known = [(rule["alert"], *sorted(rule["labels"].items())) for rule in ALERTS]
    assert len(known) == len(set(known))


def test_a_warning_is_held_back_under_its_critical_twin():
    """By Alertmanager: every label that tells one such alert from another is among those that have to be equal."""
    config = yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())
    (twins,) = [rule for rule in config["inhibit_rules"] if rule["source_matchers"] == ["severity = critical"]]
    assert "warning" in str(twins["target_matchers"])
    severities: dict[str, set[str]] = {}
    for rule in ALERTS:
        severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    both = {alert for alert, found in severities.items() if {"critical", "warning"} <= found}
    assert {"RequestsQueueing", "ListenBacklogGrowing", "CertificateExpiring"} <= both
    for alert in expected():
        if alert["alertname"] in both:
            telling = alert["exp_labels"].keys() - {"severity", "subject", "tuner", "window"}
            assert telling | {"alertname"} <= set(twins["equal"]), alert["alertname"]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_name_is_level_metric_operations(name):
    level, metric, operations = name.split(":")
    assert level in LEVELS
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", metric)
    assert re.fullmatch(r"(ratio_|mean|avg|sum|ratio|rate|increase|p\d\d_)+((rate)?\d+[mhd])?", operations)


def test_every_recorded_number_is_computed_in_a_case():
    """The objectives' numbers have their own tests."""
    samples: dict[str, set[frozenset[str]]] = {}
    for _, group in groups():
        for case in group.get("promql_expr_test", []):
            labels = {frozenset(re.findall(r"(\w+)=", sample["labels"])) for sample in case.get("exp_samples") or []}
            for name in series(case["expr"]) & RECORDED:
                samples.setdefault(name, set()).update(labels)
    for name in RECORDED:
        if not name.startswith("job:slo_"):
            assert LEVELS[name.partition(":")[0]] in samples.get(name, set()), f"{name} is not computed in any case"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_what_there_is(rule):
    asked = set(itertools.chain.from_iterable(map(series, queries(rule))))
    assert asked or rule["expr"] == "vector(1)"
    assert asked <= EXISTS.series.keys() | RECORDED | OF_OTHERS
    jobs = {each["job_name"] for each in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]}
    assert set(re.findall(r"\bjob!?=[\"'](\w+)[\"']", " ".join(queries(rule)))) <= jobs


def test_a_system_that_is_well_shows_everything_that_the_rules_ask_for():
    """Else nothing would be told of it for want of numbers."""
    (group,) = CASES["healthy"]["tests"]
    shown = {each["series"].partition("{")[0] for each in group["input_series"]}
    asked = set(itertools.chain.from_iterable(series(query) for rule in RULES for query in queries(rule)))
    assert asked - RECORDED - shown == set()
    assert CASES["healthy"]["rule_files"] == ["../rules/*.yml"]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("vector(1)", set()),
        ('avg_over_time(up{job!="sightline"}[1m]) < 0.5', {"up"}),
        ("sum by (job, le) (rate(a_total[5m])) / on (job) group_left () b > 1e3", {"a_total", "b"}),
        ("6 * 3600 * instance:a:sum offset 10m and on (job) time() - b > bool 1", {"instance:a:sum", "b"}),
        ('label_replace(absent(up{job="x"} == 1) or c[5m:1m], "job", "sightline", "", "")', {"up", "c"}),
    ],
)
def test_series_are_found_in_expressions(expression, names):
    assert series(expression) - {"10m"} == names
