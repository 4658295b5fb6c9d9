"""Dashboards: whole panels, known metrics, and JSON that is what the builders write."""

import json
import re
from pathlib import Path

import pytest

from dashboards import build
from dashboards.panels import DATASOURCE
from observability import catalogue

DASHBOARDS = build.build()
PANELS = [
    pytest.param(panel, id=f"{name} {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
FOREIGN = {"up"}  # Prometheus's own


def declared(name):
    """Return the metric that a series belongs to; a gauge's name may end like a histogram's series."""
    return catalogue.METRICS.get(name) or catalogue.METRICS.get(re.sub(r"_(bucket|count|sum)$", "", name))


def test_what_is_committed_is_current():
    assert build.outdated() == []


def test_a_changed_or_unknown_file_is_seen(tmp_path):
    build.write(tmp_path)
    assert build.outdated(tmp_path) == []
    (tmp_path / "service.json").write_text("{}")
    (tmp_path / "forgotten.json").write_text("{}")
    assert build.outdated(tmp_path) == ["forgotten.json", "service.json"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_what_grafana_needs(name):
    dashboard = json.loads((Path(build.__file__).parent / name).read_text())
    assert dashboard["uid"].startswith("sightline-")
    assert dashboard["title"]
    assert dashboard["description"].endswith("?"), "one dashboard, one question"
    assert dashboard["editable"] is False
    assert dashboard["tags"] == ["sightline"]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["datasource"]["type"] == "datasource"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name):
    taken = set()
    for panel in DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_whole(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == DATASOURCE
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["datasource"] == DATASOURCE


@pytest.mark.parametrize("panel", PANELS)
def test_a_query_selects_by_job_and_instance_and_names_known_metrics(panel):
    for target in panel["targets"]:
        expression = target["expr"]
        selected = re.findall(r"([a-z_]+)\{([^}]*)\}", expression)
        assert selected
        for metric, matchers in selected:
            assert 'job=~"$job"' in matchers
            assert 'instance=~"$instance"' in matchers
            found = declared(metric)
            assert found or metric in FOREIGN, metric
            labels = set(re.findall(r"([a-z_]+)=", matchers)) - {"job", "instance"}
            assert labels <= set(found.labels if found else ()), (metric, labels)
        grouped = {each.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for each in by.split(",")}
        known = {label for metric in catalogue.METRICS.values() for label in metric.labels}
        assert grouped <= known | {"le", "instance", "worker"}


@pytest.mark.parametrize("panel", PANELS)
def test_counters_stand_under_a_rate_of_the_right_interval(panel):
    for target in panel["targets"]:
        expression = target["expr"]
        for interval in re.findall(r"\[([^\]]*)\]", expression):
            assert interval == "$__rate_interval"
        for metric in re.findall(r"([a-z_]+)\{", expression):
            if metric not in FOREIGN and declared(metric).kind != "gauge":
                bare = re.sub(rf"rate\({metric}\{{[^}}]*\}}\[", "", expression)
                assert metric not in bare, expression
