"""Durations are scaled by the one rule, and nothing else is."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.prometheus import program
from tests.prove import scaling, shipped, stack


@pytest.mark.parametrize(
    ("shipped", "scaled"),
    [
        ("5s", "5s"),
        ("20s", "20s"),
        ("30s", "20s"),
        ("1m", "20s"),
        ("20m", "20s"),
        ("30m", "30s"),
        ("1h", "60s"),
        ("1h30m", "90s"),
        ("0s", "0s"),
        ("500ms", "500ms"),
        ("30d", "43200s"),
    ],
)
def test_a_duration_is_a_sixtieth_and_never_below_twenty_seconds(shipped, scaled):
    assert scaling.scaled(shipped) == scaled


@pytest.mark.parametrize("nonsense", ["", "5", "m", "5 m", "1h-"])
def test_what_is_no_duration_is_refused(nonsense):
    with pytest.raises(ValueError, match="no duration"):
        scaling.scaled(nonsense)


def test_windows_steps_and_offsets_are_scaled_and_names_texts_and_numbers_are_not():
    shipped = 'max_over_time(job:x:rate5m{path=~"[1h]|offset 1h",le="30m"}[1h:5m] offset 30m) > 300'
    assert (
        scaling.promql(shipped)
        == 'max_over_time(job:x:rate5m{path=~"[1h]|offset 1h",le="30m"}[60s:20s] offset 30s) > 300'
    )


def test_every_shipped_rule_is_scaled_and_prometheus_takes_it(tmp_path: Path):
    scaling.rules(stack.RULES, tmp_path / "rules", stack.DEMO)
    paths = sorted((tmp_path / "rules").glob("*.yml"))
    subprocess.run([program("promtool"), "check", "rules", *paths], check=True, capture_output=True)
    assert [path.name for path in paths] == [path.name for path in sorted(stack.RULES.glob("*.yml"))]
    found = [rule for path in paths for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in found if "alert" in rule} == shipped.alerts().keys()
    for rule in found:
        if not rule.get("labels", {}).get("slo"):
            assert all(scaling.seconds(each) <= 60 for each in scaling.durations(rule["expr"])), rule
            assert scaling.seconds(rule.get("for", "0s")) <= 60, rule


def test_an_age_that_a_rule_no_longer_compares_with_is_told(tmp_path: Path):
    (tmp_path / "rules").mkdir()
    rule = {"alert": "ServerEndedUnasked", "expr": "vector(1)"}
    (tmp_path / "rules/workers.yml").write_text(yaml.safe_dump({"groups": [{"name": "workers", "rules": [rule]}]}))
    with pytest.raises(ValueError, match="ServerEndedUnasked no longer has '< 300'"):
        scaling.rules(tmp_path / "rules", tmp_path / "scaled", stack.DEMO)


def test_a_route_keeps_what_it_matches_and_waits_less():
    shipped = {
        "receiver": "people",
        "group_by": ["alertname"],
        "group_wait": "5s",
        "group_interval": "1m",
        "routes": [{"matchers": ["severity = critical"], "receiver": "now", "repeat_interval": "1h", "continue": True}],
    }
    assert scaling.route(shipped) == {
        "receiver": "people",
        "group_by": ["alertname"],
        "group_wait": "5s",
        "group_interval": "20s",
        "routes": [
            {"matchers": ["severity = critical"], "receiver": "now", "repeat_interval": "60s", "continue": True}
        ],
    }
