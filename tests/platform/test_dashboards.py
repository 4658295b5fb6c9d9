"""Dashboards: the field's lint, known metrics and labels, the alerts' own thresholds, and JSON that is current."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards import build, frame, palette, panels, scrapes
from dashboards.needs import NEEDS
from tests.platform.dashboard_rules import wrong_labels, wrong_panel, wrong_rates, wrong_selectors, wrong_thresholds

DASHBOARDS = build.build()
ASKED = list(build.queries())
PROMQL = [each for each in ASKED if each.language == "promql"]
PANELS = [
    pytest.param(panel, id=f"{name} {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
LEGENDS = {
    (dashboard["uid"], panel["title"], target["refId"]): target["legendFormat"]
    for dashboard in DASHBOARDS.values()
    for panel in dashboard["panels"]
    for target in panel.get("targets", [])
    if "legendFormat" in target
}
UIDS = {"service", "workers", "saturation", "logs-traces", "dependencies", "watching"}


def colours(value: Any) -> Iterator[str]:
    """Yield each colour, and each mode or scheme that makes colours."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key in {"color", "fixedColor", "iconColor"} and isinstance(each, str):
                yield each
            elif key == "color" and "mode" in each:
                yield each["scheme"] if each["mode"] == "scheme" else each["mode"]
            yield from colours(each)
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(colours, value))


def test_what_is_committed_is_current():
    assert build.outdated() == []


def test_a_changed_or_unknown_file_is_seen(tmp_path):
    build.write(tmp_path)
    assert build.outdated(tmp_path) == []
    (tmp_path / "service.json").write_text("{}")
    (tmp_path / "forgotten.json").write_text("{}")
    assert build.outdated(tmp_path) == ["forgotten.json", "service.json"]


def test_there_are_six_and_each_asks_one_question():
    assert {dashboard["uid"] for dashboard in DASHBOARDS.values()} == {f"sightline-{uid}" for uid in UIDS}
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(UIDS)
    for dashboard in DASHBOARDS.values():
        assert dashboard["description"].endswith("?")
        assert 8 <= sum(panel["type"] != "row" for panel in dashboard["panels"]) <= 24


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_as_grafana_provisions_it(name):
    dashboard = DASHBOARDS[name]
    text = json.dumps(dashboard)
    assert dashboard["editable"] is False
    assert dashboard["graphTooltip"] == 1
    assert dashboard["tags"] == ["sightline"]
    assert dashboard["schemaVersion"] == 42
    assert dashboard["refresh"]
    assert "id" not in dashboard
    assert not {"__inputs", "__requires", "gnetId"} & dashboard.keys()
    assert "${DS_" not in text
    (link,) = dashboard["links"]
    assert link["type"] == "dashboards"
    assert link["tags"] == ["sightline"]
    assert link["includeVars"]
    assert link["keepTime"]
    without_base = re.sub(r'"value": null,\s*"color"', "", text)
    assert ": null" not in without_base, "a value that the SDK left out"
    assert '"placement": "inControlsMenu"' not in text, "the SDK hides what it is not told to show"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_variable_is_used_and_each_used_one_is_there(name):
    dashboard = DASHBOARDS[name]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    asked = json.dumps([dashboard["panels"], dashboard["annotations"], dashboard["templating"]])
    used = set(re.findall(r"\$\{?(\w+)", asked)) - {
        "__rate_interval",
        "__rate_interval_ms",
        "__range",
        "__interval",
        "__url_time_range",
    }
    used -= {"__field", "__all"}
    assert used == variables.keys()
    assert variables["datasource"]["type"] == "datasource"
    before: set[str] = set()
    for variable in variables.values():
        chained = set(re.findall(r"\$(\w+)", json.dumps(variable.get("query", ""))))
        assert chained <= before, "a choice depends on those that stand before it"
        before.add(variable["name"])
    assert "$environment" in variables["job"]["query"]["query"]
    assert "$job" in variables["instance"]["query"]["query"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_events_are_marked(name):
    first, *others = DASHBOARDS[name]["annotations"]["list"]
    assert first["target"]["tags"] == ["sightline"]
    assert first["datasource"] == {"type": "grafana", "uid": "-- Grafana --"}
    assert {"Deploy", "Reload"} <= {each["name"] for each in others}


def test_an_event_lasts_from_one_point_to_the_next_however_long_a_time_is_shown():
    expressions = [each.expression for each in PROMQL if each.panel.startswith("annotation ")]
    assert expressions
    for expression in expressions:
        ends = re.findall(r"offset (\$?\w+)", expression) or re.findall(r"\[([^]]*)\]", expression)
        assert ends == ["$__rate_interval"], expression


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side_and_fill_their_lines(name):
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {x for x, _ in taken} == set(range(24))
    assert len(taken) == 24 * (1 + max(y for _, y in taken))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_ids_and_titles_are_unique(name):
    found = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_whole(panel):
    assert list(wrong_panel(panel)) == []


@pytest.mark.parametrize("panel", PANELS)
def test_thresholds_are_those_of_the_alerts_that_the_panel_names(panel):
    assert list(wrong_thresholds(panel)) == []


@pytest.mark.parametrize("asked", PROMQL, ids=lambda asked: f"{asked.dashboard} {asked.panel} {asked.ref}")
def test_a_query_follows_the_rules(asked):
    legend = LEGENDS.get((asked.dashboard, asked.panel, asked.ref), "")  # variables and annotations have none
    assert [*wrong_selectors(asked.expression), *wrong_rates(asked.expression), *wrong_labels(asked, legend)] == []


@pytest.mark.parametrize("panel", [each.title for each in build.dashboards()["service.json"].panels()])
def test_queries_are_listed_as_they_stand_in_the_json(panel):
    (found,) = [each for each in DASHBOARDS["service.json"]["panels"] if each["title"] == panel]
    listed = {
        each.ref: each.expression for each in ASKED if (each.dashboard, each.panel) == ("sightline-service", panel)
    }
    assert {target["refId"]: target["expr"] for target in found["targets"]} == listed
    assert listed


def test_each_panel_that_may_rightly_be_empty_says_when():
    for dashboard in build.dashboards().values():
        for panel in dashboard.panels():
            if all(query.needs for query in panel.queries):
                assert panel.builder.build().field_config.defaults.no_value == "none", panel.title


def test_each_need_is_one_of_a_query():
    assert {each.needs for each in ASKED} - {""} == NEEDS.keys()
    with pytest.raises(ValueError, match="luck is not in"):
        panels.query("up", "", needs="luck")


def test_each_dashboard_links_what_it_names():
    names = {f"/d/{dashboard['uid']}" for dashboard in DASHBOARDS.values()}
    linked = set(re.findall(r'"(/d/[\w-]+)', json.dumps(list(DASHBOARDS.values()))))
    assert linked
    assert linked <= names


ALLOWED_MODES = {"thresholds", "fixed", "continuous-BlYlRd", "Cividis"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_colours_are_of_the_palette(name):
    used = set(colours(DASHBOARDS[name]))
    assert used - ALLOWED_MODES <= palette.ALL
    for panel in DASHBOARDS[name]["panels"]:
        if panel["type"] in {"timeseries", "stat", "bargauge", "status-history", "table"}:
            assert panel["fieldConfig"]["defaults"]["color"]["mode"] in ALLOWED_MODES, "Grafana's own is red and green"


# https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/CVD_Simulation.html, severity 1
SEEN_BY = {
    "most": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopes": ((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.0520)),
    "deuteranopes": ((0.3673, 0.8606, -0.2280), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.9689)),
}


def seen(colour: str, by: str) -> tuple[float, float, float]:
    """Return CIE L*a*b* of a colour as somebody sees it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    red, green, blue = (min(1, max(0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in SEEN_BY[by])
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.0888,
    )
    x, y, z = (each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("who", SEEN_BY)
@pytest.mark.parametrize(
    "colours", [(palette.GOOD, palette.WARNING, palette.BAD), palette.QUERIES, tuple(palette.WORKERS.values())]
)
def test_colours_can_be_told_apart_by(who, colours):
    for one, other in itertools.combinations(colours, 2):
        assert sum((a - b) ** 2 for a, b in zip(seen(one, who), seen(other, who), strict=True)) > 10**2, (one, other)


def test_states_differ_in_lightness():
    levels = sorted(seen(each, "most")[0] for each in (palette.GOOD, palette.WARNING, palette.BAD))
    assert min(b - a for a, b in itertools.pairwise(levels)) > 10


@pytest.mark.parametrize(
    ("names", "colours"),
    [
        (palette.WORKERS, {"10.0.0.7:9101 worker 12": palette.ORANGE, "10.0.0.7:9101 worker 3": palette.SKY}),
        (palette.SERVERS, {"10.0.0.3:9101": palette.SKY, "10.0.0.4:9101 used": palette.PURPLE}),
        (palette.SERVERS, {"127.0.0.1:25533": palette.SKY, "127.0.0.1:25534 0.0.0.0:8001": palette.PURPLE}),
        (palette.NAMES, {"GET /todos": palette.YELLOW, "/todos": palette.YELLOW, "/": palette.BLUE}),
    ],
)
def test_a_name_has_its_colour(names, colours):
    """The last one that fits holds, as in Grafana."""
    fits = {name: [colour for each, colour in names.items() if re.search(each[1:-1], name)] for name in colours}
    assert {name: found[-1] for name, found in fits.items()} == colours


class TestHowOftenIsScraped:
    @pytest.mark.parametrize(
        ("expression", "every"),
        [
            ("sum(rate(gunicorn_reloads_total{@}[$__rate_interval]))", ""),
            ('sum(rate(nginx_http_requests_total{job="nginx"}[$__rate_interval]))', "15s"),
            ('sum(increase(tuner_decisions_total{server=~"$instance"}[$__rate_interval]))', "15s"),
            ('sum(nginx_up{job="nginx"})', ""),
            ('sum(rate(up{job="sightline"}[$__rate_interval]))', "5s"),
        ],
    )
    def test_a_rate_names_an_interval_in_which_there_are_samples(self, expression, every):
        assert scrapes.every(expression) == every

    def test_it_stands_in_the_json(self):
        asked = {each.expression: each.every for each in PROMQL if each.every}
        assert set(asked.values()) == {"15s"}
        targets = [target for board in DASHBOARDS.values() for panel in board["panels"] for target in _targets(panel)]
        assert {target["expr"]: target["interval"] for target in targets if "interval" in target} == {
            each.expression: each.every for each in PROMQL if each.every and "annotation" not in each.panel
        }


def _targets(panel):
    return panel.get("targets", [])


def test_a_link_of_what_has_no_route_chooses_none():
    """No route of that name can be chosen on the page that it leads to."""
    linked = 0
    for panel in DASHBOARDS["service.json"]["panels"]:
        if "var-route" in json.dumps(panel.get("fieldConfig", {}).get("defaults", {}).get("links", [])):
            (of,) = [
                each["properties"][0]["value"]
                for each in panel["fieldConfig"]["overrides"]
                if each["matcher"] == {"id": "byRegexp", "options": "/no route matched/"}
            ]
            assert ["var-route" in link["url"] for link in of] == [False]
            linked += 1
    assert linked == 5


ALL_OURS = 'job=~"$job",instance=~"$instance"'


class TestTheLintItself:
    @pytest.mark.parametrize(
        ("expression", "problem"),
        [
            ("gunicorn_listen_backlog", 'gunicorn_listen_backlog without job=~"$job"'),
            ('gunicorn_listen_backlog{job=~"$job"}', 'gunicorn_listen_backlog without instance=~"$instance"'),
            (f"gunicorn_listen_backlogs{{{ALL_OURS}}}", "there is no gunicorn_listen_backlogs"),
            (f'gunicorn_listen_backlog{{{ALL_OURS},port="1"}}', "gunicorn_listen_backlog has no label port"),
            ("sum by (job) (nginx_up)", 'nginx_up without job="nginx"'),
            ("tuner_target_workers", 'tuner_target_workers without server=~"$instance"'),
            ("job:slo_burn:rate1h", 'job:slo_burn:rate1h without job=~"$job"'),
            ("job:slo_burning:rate1h", "there is no job:slo_burning:rate1h"),
        ],
    )
    def test_selectors(self, expression, problem):
        assert problem in list(wrong_selectors(expression))

    @pytest.mark.parametrize(
        ("expression", "problem"),
        [
            ("rate(gunicorn_reloads_total{@}[5m])", "rate over 5m"),
            ("rate(gunicorn_reloads_total{@}[$__range])", "rate over $__range"),
            ("max_over_time(gunicorn_workers{@}[5m])", "max_over_time over 5m"),
            (
                "(gunicorn_reloads_total{@} unless gunicorn_info{@} offset $__rate_interval)",
                "the counter gunicorn_reloads_total is raw",
            ),
            ("sum(gunicorn_reloads_total{@})", "the counter gunicorn_reloads_total is raw"),
            ("increase(gunicorn_workers{@}[$__range])", "the gauge gunicorn_workers has a rate"),
            ("sum(pg_stat_database_xact_commit)", "the counter pg_stat_database_xact_commit is raw"),
            (
                "sum(http_server_request_queue_seconds_bucket{@})",
                "the counter http_server_request_queue_seconds_bucket is raw",
            ),
        ],
    )
    def test_rates(self, expression, problem):
        assert problem in list(wrong_rates(expression))

    def test_labels(self):
        asked = build.Asked("d", "p", "A", "promql", "sum by (pid, job) (up)", ("job", "instance"), 1, "")
        found = list(wrong_labels(asked, "{{worker}}"))
        assert "there is no label pid" in found
        assert "the legend shows worker, which the answer has not" in found
        assert "grouped by ['job', 'pid'], and said to be by ['instance', 'job']" in found

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"description": "Busy."}, "no title, or no description that says how to read it and what to do"),
            (
                {"description": "As docs/slo.md has it, 0.5. Alerts: TargetDown (runbooks/TargetDown.md)."},
                "no title, or no description that says how to read it and what to do",
            ),
            ({"title": ""}, "no title, or no description that says how to read it and what to do"),
            ({"fieldConfig": {"defaults": {"unit": "furlongs"}}}, "unit furlongs"),
            (
                {"type": "bargauge", "fieldConfig": {"defaults": {"unit": "percentunit", "noValue": "none"}}},
                "a bar of a share that does not end at the whole",
            ),
            ({"fieldConfig": {"defaults": {"unit": "s", "noValue": "none"}}}, "says nothing of when it is empty"),
            ({"datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}}, "data source {"),
            ({"description": "A. B: Gone (runbooks/Gone.md)."}, "no alert Gone"),
            ({"targets": [{"refId": "B", "datasource": {"type": "prometheus", "uid": "${datasource}"}}]}, "refIds"),
        ],
    )
    def test_panels(self, change, problem):
        good = next(each.values[0] for each in PANELS if each.values[0]["title"] == "Seen")
        assert list(wrong_panel(good)) == []
        assert any(each.startswith(problem) for each in wrong_panel(good | change))

    def test_thresholds(self):
        good = next(each.values[0] for each in PANELS if each.values[0]["title"] == "Busy by server")
        assert list(wrong_thresholds(good)) == []
        assert list(wrong_thresholds(json.loads(json.dumps(good).replace("0.8,", "0.81,")))) != []
        assert list(wrong_thresholds(good | {"description": "None."})) != []

    def test_what_the_sdk_leaves_is_taken_out(self):
        assert frame._without_leaks({"a": [{"transparent": False, "auto": False, "b": 1}]}) == {"a": [{"b": 1}]}
        assert frame._without_leaks({"transparent": True}) == {"transparent": True}


def test_a_route_has_one_colour_with_a_method_and_without():
    def colour(name):
        (found,) = {colour for pattern, colour in palette.NAMES.items() if re.search(pattern.strip("/"), name)}
        return found

    for route in ("/todos/<id>", "/todos", "/"):
        assert colour(f"GET {route}") == colour(route)
