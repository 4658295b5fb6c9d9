"""Limits of the dashboards: the numbers of the alerts and of the objectives, read out of where they stand."""

import re

import pytest
import yaml

from dashboards import build, palette, states, thresholds


class TestThresholds:
    def rules(self, tmp_path, expression):
        rule = {"alert": "Full", "expr": expression, "labels": {"severity": "warning"}}
        (tmp_path / "some.yml").write_text(yaml.safe_dump({"groups": [{"name": "some", "rules": [rule]}]}))
        return tmp_path

    @pytest.mark.parametrize(
        ("expression", "of", "expected"),
        [
            ("avg(busy) > 0.8", "", 0.8),
            ("rate(a[5m]) / (rate(b[5m]) > 0.1) > 0.5", "", 0.5),
            ("(a > 1 or b > 0.25) and c > 0.2", "b", 0.25),
            ("end - time() < 14 * 86400", "", 14 * 86400),
            ("used > 0.8 * most", "", 0.8),
            ('a{b=~"x > 7",c="1"} > 3', "", 3),
        ],
    )
    def test_a_changed_rule_changes_the_number(self, tmp_path, expression, of, expected):
        assert thresholds.limit("Full", "warning", of, self.rules(tmp_path, expression)) == expected

    @pytest.mark.parametrize("expression", ["a > 1 and b > 2", "a > b", "(a > 1)"])
    def test_it_is_exactly_one(self, tmp_path, expression):
        with pytest.raises(thresholds.Ambiguous, match="Full"):
            thresholds.limit("Full", "warning", rules=self.rules(tmp_path, expression))

    def test_the_alert_and_its_severity_exist(self):
        with pytest.raises(thresholds.Ambiguous, match="no number"):
            thresholds.limit("WorkersSaturated", "critical")

    def test_what_is_worse_is_the_other_way_round_below(self):
        above, below = (
            [(step.value, step.color) for step in states.steps(limits).build().steps]
            for limits in (thresholds.above(0.5, 0.8), thresholds.below(14, 3))
        )
        assert above == [(None, palette.GOOD), (0.5, palette.WARNING), (0.8, palette.BAD)]
        assert below == [(None, palette.BAD), (3, palette.WARNING), (14, palette.GOOD)]


class TestWhatFollowsFromTheObjectives:
    def test_of_failures(self):
        assert thresholds.failed("critical", "1h") == 0.0144
        assert thresholds.failed("warning", "1d") == 0.003

    def test_of_durations_and_of_whose_requests_count(self):
        assert thresholds.slow() == 0.25
        assert thresholds.PROBES == ("/healthz",)

    def test_probes_are_left_out_of_the_first_row_and_the_panels_say_so(self):
        panels = {panel["title"]: panel for panel in build.build()["service.json"]["panels"]}
        for title in ("Requests", "Failed", "Duration p99", "Durations"):
            counted = re.findall(r"http_server_request_duration\w+\{([^}]*)\}", panels[title]["targets"][0]["expr"])
            assert counted
            assert all('http_route!~"/healthz"' in each for each in counted)
            assert "(/healthz) are left out" in panels[title]["description"]
