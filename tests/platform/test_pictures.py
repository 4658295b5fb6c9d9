"""The pictures of the dashboards: one for each, and the drawing still understands what the dashboards say."""

import json
import re
import struct
from functools import partial
from types import SimpleNamespace

import pytest

from dashboards.drawing import browser
from dashboards.drawing.logql import Log, lines_of
from dashboards.drawing.recording import LABEL_VALUES, QUERY_RESULT, Choice, Recorder, renewed
from dashboards.drawing.traceql import Spans
from scripts import pictures
from scripts.options import ROOT
from tests.dashboards import grafana

NAMES = pictures.names()
READ = {name: json.loads((pictures.DASHBOARDS / f"{name}.json").read_text()) for name in NAMES}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in READ.items()
    for panel in dashboard["panels"]
]
REQUEST = (
    '{"timestamp":"2026-11-21T05:56:54.476867Z","severity_text":"ERROR","body":"GET /a 500","worker":1,'
    '"event.name":"http.server.request","http.route":"/a","duration_seconds":2.5,"http.response.status_code":500}\n'
)
AT = 1_795_240_614.476867


def substituted(target, language):
    """Return a query as it would be asked, with every variable at All."""
    asked = target.get("expr") or target["query"]
    names = {name.lstrip("${").partition(":")[0] for name in re.findall(r"\$\{?\w+", asked)}
    all_ = grafana.Variable([grafana.ALL], ["one", "two"], True, True)
    return grafana.substitute(asked, dict.fromkeys(names, all_), grafana.Span(300), language)


def test_there_is_one_picture_for_each_dashboard_and_none_of_another():
    found = {path.name for path in pictures.IMAGES.glob("dashboard-*.png")}
    assert found == {pictures.picture(name).name for name in NAMES}, "make pictures"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_as_wide_as_a_page_and_as_high_as_its_dashboard(name):
    image = pictures.picture(name).read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", image[16:24]) == (browser.WIDTH, browser.height(READ[name])), "make pictures"
    assert 30_000 < len(image) < 400_000, "an empty page is smaller, and a larger one is slow to load"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_was_drawn_of_what_is_there_now(name):
    assert pictures.drawn().get(name) == pictures.digest(name), "run `make pictures`"


def test_who_draws_some_leaves_the_rest_as_outdated_as_it_was(monkeypatch, tmp_path):
    drawing = tmp_path / "drawing"
    drawing.mkdir()
    for place in ("IMAGES", "DASHBOARDS", "ROOT"):
        monkeypatch.setattr(pictures, place, tmp_path)
    monkeypatch.setattr(pictures, "DRAWN", tmp_path / "images" / "dashboards.json")
    pictures.DRAWN.parent.mkdir()
    monkeypatch.setattr(browser, "HERE", drawing)
    monkeypatch.setattr(browser, "bundle", lambda page: None)
    monkeypatch.setattr(browser, "paint", lambda answers, page, picture: picture.touch())
    monkeypatch.setattr(browser, "shrink", lambda made: None)
    (drawing / "main.ts").write_text("paint()")
    of = {name: {"title": name, "panels": []} for name in ("one", "two")}
    for name, dashboard in of.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(dashboard))
    recorded = {name: {"dashboard": dashboard, "answers": {}} for name, dashboard in of.items()}

    def current():
        return {name for name in of if pictures.drawn().get(name) == pictures.digest(name)}

    assert current() == set()
    pictures.DRAWN.write_text('{"gone": "1"}')
    pictures.draw(recorded)
    assert (current(), pictures.drawn().keys()) == ({"one", "two"}, {"one", "two"})
    for name in of:
        (tmp_path / f"{name}.json").write_text(json.dumps(of[name] | {"refresh": "5s"}))
    pictures.draw({"one": recorded["one"]})
    assert current() == {"one"}
    (drawing / "main.ts").write_text("repaint()")
    assert current() == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_shows_a_picture(name):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(f"images/{pictures.picture(name).name})" in page.read_text() for page in pages)


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_is_of_a_type_that_is_drawn(panel):
    known = re.search(r"const DRAWN[^{]*\{(.*?)\n\};", (browser.HERE / "src/panels/index.tsx").read_text(), re.DOTALL)
    drawn = re.findall(r"^  '?([\w-]+)'?:", known[1], re.MULTILINE)
    assert panel["type"] in {*drawn, "row"}


@pytest.mark.parametrize("panel", PANELS)
def test_each_query_of_logs_and_traces_is_one_that_is_answered(panel):
    answers = {"loki": ("logql", Log([], 0, 60)), "tempo": ("traceql", Spans([], 0, 60))}
    for target in panel.get("targets", []):
        source = target["datasource"]["type"]
        if source in answers:
            language, answering = answers[source]
            answering.ask(substituted(target, language), panel["type"])
        else:
            assert source == "prometheus"


@pytest.mark.parametrize("name", NAMES)
def test_each_variable_is_one_that_is_understood(name):
    for variable in READ[name]["templating"]["list"]:
        assert variable["type"] in ("datasource", "query")
        if variable["type"] == "query":
            asked = variable["query"]["query"]
            assert LABEL_VALUES.fullmatch(asked) or (QUERY_RESULT.fullmatch(asked) and variable["regex"])


def test_what_a_panel_asks_reaches_prometheus_with_its_step_and_is_kept(monkeypatch):
    asked = []

    def api(self, path, **parameters):
        asked.append((path, parameters))
        return {"result": [{"metric": {"a": "b"}, "values": [[0, "1"]]}], "resultType": "matrix"}

    monkeypatch.setattr(Recorder, "_api", api)
    panel = {"id": 7, "type": "timeseries", "title": "Rate", "gridPos": {"w": 12, "h": 8, "x": 0, "y": 0}}
    panel["targets"] = [{"refId": "A", "expr": "up", "datasource": {"type": "prometheus"}}]
    dashboard = {"panels": [panel], "templating": {"list": []}, "annotations": {"list": []}}
    recorder = Recorder("", 103, 407, lambda points, least: 5.0, lambda query, *_: query, lambda _: "")
    answer = recorder.record(dashboard)["answers"]["7"]["A"]
    assert asked == [("query_range", {"query": "up", "start": 100.0, "end": 405.0, "step": 5.0})]
    assert (answer["kind"], answer["step"], answer["series"][0]["values"]) == ("matrix", 5.0, [[0, "1"]])


def test_what_was_not_there_is_not_asked_for_and_says_so():
    panel = {"id": 1, "type": "stat", "title": "Loki", "gridPos": {"w": 12, "h": 8, "x": 0, "y": 0}}
    panel["targets"] = [{"refId": "A", "expr": 'up{job="loki"}', "datasource": {"type": "prometheus"}}]
    dashboard = {"panels": [panel], "templating": {"list": []}, "annotations": {"list": []}}
    recorder = Recorder(
        "", 0, 60, lambda points, least: 5.0, lambda query, *_: query, partial(pictures.absent, ["loki"])
    )
    answer = recorder.record(dashboard)["answers"]["1"]["A"]
    assert (answer["kind"], answer["series"]) == ("note", [])
    assert "Loki" in answer["note"]
    assert pictures.absent(["loki"], 'up{job="sightline"}') == ""


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('{service="app"} | json | event_name="http.server.request"', 1),
        ('{service="app", level=~"ERROR|FATAL"} | json | http_route=~"/a|/b" | duration_seconds >= 2.5', 1),
        ('{service="app"} | json | duration_seconds > 3', 0),
        ('{service="app"} | json | http_route!="/a"', 0),
        ('{service="nginx"}', 0),
        ('{service="app"} | json | nowhere >= 1', 0),
    ],
)
def test_lines_are_found_by_what_they_say(query, found):
    lines = list(lines_of("app", REQUEST + "no JSON\n"))
    assert len(Log(lines, AT - 1, AT + 1).ask(query, "logs")["lines"]) == found
    assert Log(lines, AT + 1, AT + 2).ask(query, "logs")["lines"] == []


def test_lines_are_written_as_the_query_says_and_counted():
    log = Log(lines_of("app", REQUEST), AT - 1, AT + 9)
    (line,) = log.ask('{service="app"} | json | line_format `{{.body}}, {{.worker}}{{.absent}}`', "logs")["lines"]
    assert (line["line"], line["level"]) == ("GET /a 500, 1", "error")
    (series,) = log.ask('sum by (service, level) (rate({service=~".+"}[5s]))', "timeseries")["series"]
    assert series == {"metric": {"service": "app", "level": "ERROR"}, "values": [[AT + 4, "0.2"]]}


def test_a_query_that_is_not_understood_is_an_error():
    for query in ('{service="app"} | logfmt', 'quantile_over_time(0.5, {service="app"}[5s])'):
        with pytest.raises(ValueError, match="not among"):
            Log([], 0, 60).ask(query, "logs" if query.startswith("{") else "timeseries")
    with pytest.raises(ValueError, match="not among"):
        Spans([], 0, 60).ask("{ status = error || kind = server }", "table")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("{ kind = server && status = error }", True),
        ('{ span.http.route =~ "/a|/b" && duration >= 1s }', True),
        ("{ duration > 2500ms }", False),
        ('{ resource.service.name = "other" }', False),
        ("{ span.http.response.status_code >= 500 }", True),
        ("{ span.nowhere >= 500 }", False),
    ],
)
def test_spans_are_found_by_what_they_say(query, found):
    span = SimpleNamespace(
        name="GET /a",
        trace_id="ab",
        parent_id="",
        kind="server",
        status="error",
        start_ns=10_000_000_000,
        end_ns=12_000_000_000,
        attributes={"http.route": "/a", "http.response.status_code": 500},
        resource={"service.name": "sightline"},
    )
    rows = Spans([span], 0, 60).ask(query, "table")["rows"]
    row = {"Trace ID": "ab", "Start time": 10_000.0, "Service": "sightline", "Name": "GET /a", "Duration": 2000.0}
    assert rows == ([row] if found else [])


def test_packages_are_pinned_and_the_lock_names_no_registry():
    manifest = json.loads((browser.HERE / "package.json").read_text())
    lock = json.loads((browser.HERE / "package-lock.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in manifest["dependencies"].values())
    assert lock["packages"][""]["dependencies"] == manifest["dependencies"]
    installed = {path: each for path, each in lock["packages"].items() if path}
    assert [path for path, each in installed.items() if "resolved" in each or "integrity" not in each] == []
    assert "omit-lockfile-registry-resolved=true" in (browser.HERE / ".npmrc").read_text()


def test_choices_stand_for_all_that_there_is(monkeypatch):
    monkeypatch.setattr(Recorder, "_api", lambda self, path, **parameters: ["b", "", "a"])
    seen = {}

    def substitute(query, choices, points, language, least):
        seen[query] = dict(choices)
        return query

    variables = [
        {"name": name, "type": "query", "query": {"query": f"label_values(target_info, {name})"}, "multi": True}
        for name in ("job", "instance")
    ]
    dashboard = {"panels": [], "templating": {"list": variables}, "annotations": {"list": []}}
    Recorder("", 0, 60, lambda points, least: 5.0, substitute, lambda _: "").record(dashboard)
    assert seen["label_values(target_info, instance)"] == {"job": Choice(["a", "b"], "", True)}


def panel_of(number, title, expression):
    return {"id": number, "title": title, "targets": [{"refId": "A", "expr": expression}]}


def test_answers_are_drawn_by_a_dashboard_that_looks_different_and_asks_the_same():
    recorded = {"dashboard": {"panels": [panel_of(1, "Rate", "up"), panel_of(2, "Errors", "down")]}}
    recorded["answers"] = {"1": {"A": "of up"}, "2": {"A": "of down"}}
    now = {"title": "Service", "panels": [panel_of(3, "Failures", "down"), panel_of(4, "Rate", "up")]}
    assert renewed(recorded, now)["answers"] == {"3": {"A": "of down"}, "4": {"A": "of up"}}
    assert renewed(recorded, now)["dashboard"] is now
    now["panels"].append(panel_of(5, "Queue", "waiting"))
    with pytest.raises(ValueError, match="Service: Queue"):
        renewed(recorded, now)


def test_a_mark_stands_where_something_began(monkeypatch):
    values = [[0, "0"], [5, "1"], [10, "2"], [15, "0"], [20, "1"], [40, "1"]]
    monkeypatch.setattr(Recorder, "_api", lambda self, path, **parameters: {"result": [{"values": values}]})
    event = {"name": "Reload", "iconColor": "blue", "target": {"expr": "x > 0"}}
    dashboard = {"panels": [], "templating": {"list": []}, "annotations": {"list": [event, {"name": "by tag"}]}}
    recorder = Recorder("", 0, 60, lambda points, least: 5.0, lambda query, *_: query, lambda _: "")
    assert recorder.record(dashboard)["marks"] == [{"name": "Reload", "color": "blue", "times": [5, 20, 40]}]


def test_exemplars_that_lie_near_to_each_other_are_one(monkeypatch):
    found = [
        {"labels": {}, "value": value, "timestamp": at} for value, at in (("1", 1), ("1.1", 2), ("9", 3), ("1", 8))
    ]
    answers = {"query_exemplars": [{"exemplars": found}], "query_range": {"result": []}}
    monkeypatch.setattr(Recorder, "_api", lambda self, path, **parameters: answers[path])
    panel = {"id": 1, "type": "timeseries", "title": "Duration", "gridPos": {"w": 12, "h": 8, "x": 0, "y": 0}}
    panel["targets"] = [{"refId": "A", "expr": "x", "exemplar": True, "datasource": {"type": "prometheus"}}]
    dashboard = {"panels": [panel], "templating": {"list": []}, "annotations": {"list": []}}
    recorder = Recorder("", 0, 60, lambda points, least: 5.0, lambda query, *_: query, lambda _: "")
    kept = recorder.record(dashboard)["answers"]["1"]["A"]["exemplars"]
    assert [(each["value"], each["timestamp"]) for each in kept] == [("9", 3), ("1.1", 2), ("1", 8)]
