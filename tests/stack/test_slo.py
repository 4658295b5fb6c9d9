"""Prometheus takes the objectives' rules, and their alerts fire and are silent when they should."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from observability import catalogue
from scripts import slo
from tests.prometheus import Prometheus, program
from tests.server import ROOT, Server, wait_until

CASES = sorted((ROOT / "monitoring/prometheus/tests").glob("slo*.yml"))
RULES = [
    rule for group in yaml.safe_load((ROOT / slo.FILES["production"]).read_text())["groups"] for rule in group["rules"]
]
SELECTED = re.compile(r"rate\((\w+\{[^{}]*\})\[")


def promtool(*arguments: object) -> None:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", *slo.FILES.values())


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_the_alerts_fire_and_are_silent(cases: Path) -> None:
    promtool("test", "rules", cases)


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    text = (ROOT / "monitoring/prometheus/tests/slo.yml").read_text()
    seen = [case for group in yaml.safe_load(text)["tests"] for case in group.get("alert_rule_test", [])]
    fired = {tuple(sorted(alert["exp_labels"].items())) for case in seen for alert in case["exp_alerts"]}
    alerts = [rule for rule in RULES if "alert" in rule]
    assert fired == {tuple(sorted({"job": "sightline", **rule["labels"]}.items())) for rule in alerts}
    assert {rule["alert"] for rule in alerts} == {case["alertname"] for case in seen if not case["exp_alerts"]}


def test_the_series_that_the_rules_ask_for_are_those_of_a_server(tmp_path: Path) -> None:
    """A selector that finds nothing would never burn: the bucket's bound, the statuses, the lost requests."""
    with (
        Server(tmp_path, "app:create_app()", FAULTS_ENABLED=1) as server,
        Prometheus(tmp_path, f"127.0.0.1:{server.agent_port}") as prometheus,
    ):
        assert server.get("/todos").status_code == 200
        assert server.get("/faults/fail").status_code == 500
        assert server.get("/healthz").status_code == 200
        total = f"sum({catalogue.REQUEST_DURATION.name}_count)"
        wait_until(lambda: prometheus.number(total) == 3, 30, "the requests in Prometheus")
        selectors = {found for rule in RULES for found in SELECTED.findall(rule["expr"])}
        found = {selector: prometheus.query(f"sum({selector})") for selector in selectors}
        by_kind = {
            selector.partition("{")[0] + ("!" if "!~" in selector else "=" if "=~" in selector else ""): values
            for selector, values in found.items()
        }
        assert by_kind == {
            f"{catalogue.REQUEST_DURATION.name}_count": {(): 2.0},
            f"{catalogue.REQUEST_DURATION.name}_count=": {(): 1.0},
            f"{catalogue.REQUEST_DURATION.name}_count!": {(): 1.0},
            f"{catalogue.REQUEST_DURATION.name}_bucket!": {(): 1.0},
            catalogue.REQUESTS_LOST.name: {(): 0.0},
        }
