"""`grafana check`: it finds queries that fail or return nothing, by asking Grafana, which asks a real Prometheus."""

import pytest

from tests.grafana.conftest import board, write
from tests.grafana.exporter import Exporter, scraped
from tests.prometheus import Prometheus
from tests.server import wait_until

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(title, *expressions, **more):
    targets = [{"refId": chr(65 + n), "expr": each, "datasource": SOURCE} for n, each in enumerate(expressions)]
    return {"type": "timeseries", "title": title, "datasource": SOURCE, "targets": targets, **more}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    with Exporter() as exporter:
        exporter.values = {'up_and_running{route="/a+b",worker="1"}': 1, 'up_and_running{route="/c",worker="2"}': 1}
        directory = tmp_path_factory.mktemp("prometheus")
        with Prometheus(directory, config=scraped(("app", exporter.target))) as running:
            wait_until(lambda: running.number("count(up_and_running)") == 2, what="a scrape")
            yield running


@pytest.fixture
def check(grafana, run, boards, prometheus):
    """Return a function that syncs these panels and variables, and checks them."""

    def checked(*panels, variables=(), **more):
        for path in boards.iterdir():
            path.unlink()
        datasource = {"type": "datasource", "name": "datasource", "query": "prometheus"}
        write(boards, board("one", "One", *panels, templating={"list": [datasource, *variables]}))
        urls = {"GRAFANA_PROMETHEUS_URL": prometheus.url}
        synced = run("sync", "--force", **urls)
        assert synced.returncode == 0, synced.stderr
        return run("check", **(urls | more))

    return checked


def test_all_is_well(check):
    done = check(panel("Up", "up_and_running", "rate(up_and_running[$__rate_interval])"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "4 data sources, 1 dashboards and 2 queries; none failed.\n"


def test_a_broken_query_and_one_without_an_answer_are_found(check):
    done = check(panel("Up", "up_and_running"), panel("Broken", "sum(up_and_running"), panel("Empty", "nothing_of_it"))
    assert done.returncode == 1
    broken, empty, total = done.stdout.splitlines()
    assert broken.startswith("one: 'Broken', query A: bad_data: ")
    assert "parse error" in broken
    assert empty == "one: 'Empty', query A: returned nothing"
    assert total == "4 data sources, 1 dashboards and 3 queries; 2 of them failed."


def test_a_panel_that_may_be_empty_may_be_and_a_broken_one_may_not(check):
    rightly = {"fieldConfig": {"defaults": {"noValue": "none"}, "overrides": []}}
    assert check(panel("Deaths", "nothing_of_it", **rightly)).returncode == 0
    assert check(panel("Deaths", "sum(", **rightly)).returncode == 1


def test_each_query_of_a_panel_counts_and_hidden_ones_do_not(check):
    done = check(panel("Two", "up_and_running", "nothing_of_it"))
    assert "one: 'Two', query B: returned nothing" in done.stdout
    hidden = panel("Two", "up_and_running", "nothing_of_it")
    hidden["targets"][1]["hide"] = True
    assert check(hidden).returncode == 0


def test_what_is_no_number_shows_as_nothing(check):
    assert "returned nothing" in check(panel("Ratio", "up_and_running * 0 / 0")).stdout


def test_panels_in_folded_rows_are_asked_too(check):
    row = {"type": "row", "title": "Row", "collapsed": True, "panels": [panel("Inside", "nothing_of_it")]}
    assert "one: 'Inside', query A: returned nothing" in check(row).stdout


def variable(name, query, **more):
    asked = {"query": query, "refId": name}
    return {"type": "query", "name": name, "query": asked, "datasource": SOURCE} | more


EVERYTHING = {"multi": True, "includeAll": True, "current": {"text": ["All"], "value": ["$__all"]}}


@pytest.mark.parametrize(
    ("variables", "expression", "well"),
    [
        (
            [variable("route", "label_values(up_and_running, route)", **EVERYTHING)],
            'up_and_running{route=~"$route"}',
            True,
        ),
        (
            [variable("route", "label_values(up_and_running, nix)", **EVERYTHING)],
            'up_and_running{route=~"$route"}',
            False,
        ),
        (
            [
                variable(
                    "route",
                    "query_result(group by (route) (last_over_time(up_and_running[1d])))",
                    regex='/route="([^"]+)"/',
                    **EVERYTHING,
                )
            ],
            'up_and_running{route=~"$route"}',
            True,
        ),
        (
            [variable("route", "query_result(nix)", regex='/route="([^"]+)"/', **EVERYTHING)],
            'up_and_running{route=~"$route"}',
            False,
        ),
        ([variable("route", "nix", allValue=".+", **EVERYTHING)], 'up_and_running{route=~"${route}"}', True),
        ([variable("route", "nix", current={"value": "/a+b"})], 'up_and_running{route="$route"}', True),
        (
            [variable("route", "nix", multi=True, current={"value": ["/a+b"]})],
            'up_and_running{route=~"[[route]]"} and on() (vector(1) unless up_and_running{route=~"$route",worker="2"})',
            True,
        ),
        (
            [
                variable("worker", "label_values(up_and_running, worker)"),
                variable("route", 'label_values(up_and_running{worker="$worker"}, route)'),
            ],
            'up_and_running{route="$route",worker="1"}',
            True,
        ),
        ([{"type": "interval", "name": "step", "query": "30s,1m"}], "count_over_time(up_and_running[$step])", True),
        ([{"type": "custom", "name": "worker", "query": "2, 3"}], 'up_and_running{worker="$worker"}', True),
        ([{"type": "textbox", "name": "x", "current": {"value": "/c"}}], 'up_and_running{route="$x"}', True),
    ],
)
def test_variables_have_the_values_that_the_page_would_give_them(check, variables, expression, well):
    done = check(panel("Chosen", expression), variables=variables)
    assert done.returncode == (0 if well else 1), done.stdout + done.stderr


def test_the_data_sources_are_asked_how_they_are(check, grafana, run, prometheus):
    assert check(panel("Up", "up_and_running")).returncode == 0
    grafana.sources["sightline-prometheus"]["url"] = "http://127.0.0.1:1"
    grafana.answer(500, {"message": "tempo is not well"}, "sightline-tempo/health")
    del grafana.sources["sightline-loki"]
    done = run("check", GRAFANA_PROMETHEUS_URL=prometheus.url)
    assert done.returncode == 1
    found = done.stdout.splitlines()
    assert "data source loki: not there; `grafana sync` makes it" in found
    assert any(each.startswith("data source sightline-prometheus: ") for each in found)
    assert any(each.startswith("data source sightline-tempo: ") and "tempo is not well" in each for each in found)
    assert not any("alertmanager" in each for each in found), "its type has no health check"


def test_logs_and_traces(check, grafana):
    grafana.loki['{service="app"}'] = ["a line"]
    grafana.tempo["{status=error}"] = [{"traceID": "1"}]

    def other(kind, title, **target):
        source = {"type": kind, "uid": f"{kind}"}
        return {"type": "logs", "title": title, "datasource": source, "targets": [{"refId": "A", **target}]}

    done = check(
        other("loki", "Lines", expr='{service="app"}'),
        other("loki", "No lines", expr='{service="none"}'),
        other("tempo", "Traces", query="{status=error}", queryType="traceql"),
        other("tempo", "No traces", query="{status=ok}", queryType="traceql"),
        other("tempo", "Rates", query="{} | rate()", queryType="traceql"),
    )
    lines, traces, rates, total = done.stdout.splitlines()
    assert lines == "one: 'No lines', query A: returned nothing"
    assert traces == "one: 'No traces', query A: returned nothing"
    assert rates.startswith("one: 'Rates', query A: "), "metrics of traces go to the backend"
    assert total.startswith("4 data sources, 1 dashboards and 5 queries; 3 of them")


def test_a_dashboard_that_is_not_there_or_not_known(check, grafana, run):
    check(panel("Up", "up_and_running"))
    del grafana.dashboards["one"]
    done = run("check", "one")
    assert done.returncode == 1
    assert "one: not there; `grafana sync` brings it" in done.stdout
    unknown = run("check", "nine")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("No dashboard nine in ")


def test_an_outage_in_the_middle_ends_it(check, grafana, run):
    check(panel("Up", "up_and_running"))
    grafana.answer(401, {"message": "Invalid API key"}, "/api/ds/query")
    done = run("check")
    assert done.returncode == 2
    assert "refuses the token" in done.stderr


def test_hostile_titles_cannot_reach_the_terminal(check):
    assert "\x1b" not in check(panel("\x1b[2Jevil", "nothing_of_it")).stdout
