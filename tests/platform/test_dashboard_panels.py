"""Panels show what is there now, say why where nothing is, and can be read."""

import pytest
import yaml

from dashboards import build, fields, panels, scrapes
from observability.settings import Settings, load
from scripts.options import ROOT

PANELS = [
    pytest.param(panel, id=f"{name} {panel['title']}")
    for name, dashboard in build.build().items()
    for panel in dashboard["panels"]
]
THIRD = 1600 * 8 / 24 - 2 * 8  # pixels of a page that a panel of a third of it has for a table
EXPANDER = 50  # what Grafana's table takes for the arrow that opens a trace's spans


def of(*types):
    return [panel for panel in PANELS if panel.values[0]["type"] in types]


def overrides(panel):
    """Return what is set of columns and series, by their names."""
    rules = panel["fieldConfig"]["overrides"]
    return {rule["matcher"]["options"]: {each["id"]: each["value"] for each in rule["properties"]} for rule in rules}


class TestNow:
    @pytest.mark.parametrize("panel", of("stat", "bargauge"))
    def test_a_number_is_the_last_one_and_not_the_last_that_there_was(self, panel):
        assert panel["options"]["reduceOptions"]["calcs"] == ["last"]

    @pytest.mark.parametrize("panel", of("bargauge"))
    def test_bars_ask_for_now_only(self, panel):
        assert all(target["instant"] for target in panel["targets"])

    @pytest.mark.parametrize("panel", of("stat"))
    def test_a_range_ends_with_a_number_or_with_none(self, panel):
        asked = [target["expr"] for target in panel["targets"] if not target.get("instant")]
        assert all(each.endswith(("or vector(0)", "or vector(NaN)")) for each in asked)

    @pytest.mark.parametrize("panel", of("stat"))
    def test_where_there_may_be_none_it_says_so(self, panel):
        """Grafana writes NaN as NaN, whatever noValue is, unless it is mapped."""
        defaults = panel["fieldConfig"]["defaults"]
        if all(target["expr"].endswith("or vector(0)") for target in panel["targets"]):
            return
        assert defaults["noValue"] == "none"
        (mapping,) = [each for each in defaults["mappings"] if each["type"] == "special"]
        assert mapping["options"]["match"] == "null+nan"
        assert mapping["options"]["result"]["text"] == "none"

    @pytest.mark.parametrize("panel", [each for each in PANELS if each.values[0]["type"] != "row"])
    def test_what_no_server_brings_says_when_it_is_empty(self, panel):
        """The exception is of everything that Prometheus scrapes, and so of each server too."""
        if "noValue" in panel["fieldConfig"]["defaults"] or panel["title"] == "Seen by Prometheus":
            return
        asked = [target["expr"] for target in panel["targets"]]
        assert any("$instance" in each or each.endswith("or vector(0)") for each in asked)


class TestGraphs:
    @pytest.mark.parametrize("panel", of("timeseries"))
    def test_an_axis_of_zeros_ends_where_it_can_be_read(self, panel):
        defaults = panel["fieldConfig"]["defaults"]
        bound = "max" in defaults or defaults["custom"].get("scaleDistribution", {}).get("type") == "log"
        wanted = None if bound else fields.LEAST_HIGH.get(defaults["unit"])
        assert defaults["custom"].get("axisSoftMax") == wanted

    def test_areas_do_not_hide_each_other(self):
        filled = {panel.values[0]["title"]: _filled(panel.values[0]) for panel in of("timeseries")}
        assert filled["Workers and what the tuner wants"] == filled["CPU used"] == 0
        assert filled["Queue time by server"] == 8
        assert filled["Rate by route"] == 40

    def test_quantities_have_colours_of_their_own_where_there_are_several_of_each_server(self):
        (panel,) = [each.values[0] for each in PANELS if each.values[0]["title"] == "Workers and what the tuner wants"]
        named = {name: each["color"]["fixedColor"] for name, each in overrides(panel).items() if name[0] == "/"}
        assert list(named) == ["/ live$/", "/ set$/", "/ tuner$/", "/ ceiling$/"]
        assert len(set(named.values())) == 4

    def test_what_keeps_the_tuner_from_growing_is_what_held_at_any_time(self):
        (asked,) = [each for each in build.queries() if each.panel == "What keeps the tuner from growing"]
        assert asked.expression.endswith("[$__range] @ end())) > 0")


def _filled(panel):
    return panel["fieldConfig"]["defaults"]["custom"]["fillOpacity"]


class TestTraces:
    @pytest.mark.parametrize("panel", [each for each in of("table") if each.values[0]["datasource"]["type"] == "tempo"])
    def test_a_third_of_a_page_has_room_for_the_duration(self, panel):
        columns = overrides(panel)
        widths = [each.get("custom.width") or each["custom.minWidth"] for each in columns.values()]
        assert list(columns) == ["traceID", "startTime", "traceDuration", "traceName"]
        assert sum(widths) + EXPANDER <= THIRD
        (organized,) = panel["transformations"]
        assert organized["options"]["excludeByName"] == {"traceService": True}


class TestWhatIsReadFromElsewhere:
    def test_slow_is_what_the_app_calls_slow(self):
        slow = load(Settings, {}).slow_seconds
        asked = {each.panel: each.expression for each in build.queries() if each.needs == "slow"}
        assert f"| duration_seconds >= {slow:g} " in asked["Slow requests"]
        assert f"&& duration >= {slow:g}s }}" in asked["Traces of slow requests"]

    def test_the_patience_of_prometheus(self):
        config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
        (agents,) = [each for each in config["scrape_configs"] if each["job_name"] == "sightline"]
        (panel,) = [each.values[0] for each in PANELS if each.values[0]["title"] == "Scrape duration of the agents"]
        assert f"{scrapes.patience():g}s" == agents["scrape_timeout"]
        assert f"gives up after {scrapes.patience():g} s:" in panel["description"]


def test_the_selector_leaves_the_end_of_the_range_as_it_is():
    assert panels.query("up{@} @ end()", "").expression == f"up{{{panels.SELECTOR}}} @ end()"
