"""Variables are replaced as Grafana documents it."""

import pytest

from tests.dashboards.grafana import ALL, Span, Variable, duration, rounded, substitute

SPAN = Span(900, points=900, scrape=5)
ONE = Variable(["web.1"])
MULTI = Variable(["web.1", "web+2"], multi=True)
SINGLE = Variable(["web.1"], multi=True)
ANY = Variable([ALL], options=["a.b", "c"], multi=True, include_all=True)
CUSTOM = Variable([ALL], options=["a", "b"], multi=True, include_all=True, all_value=".+")


@pytest.mark.parametrize("form", ["$v", "${v}", "[[v]]"])
def test_each_way_to_write_a_variable_is_known(form):
    assert substitute(f'up{{x="{form}",y="z"}}', {"v": ONE}, SPAN) == 'up{x="web.1",y="z"}'


@pytest.mark.parametrize(
    ("variable", "promql", "logql", "traceql"),
    [
        (ONE, "web.1", "web.1", "web.1"),
        (MULTI, r"(web\\.1|web\\+2)", r"web\\.1|web\\+2", "web.1|web+2"),
        (SINGLE, r"web\\.1", r"web\\.1", "web.1"),
        (ANY, r"(a\\.b|c)", r"a\\.b|c", "a.b|c"),
        (CUSTOM, ".+", ".+", ".+"),
        (Variable(["a\\b"]), r"a\\b", r"a\\b", "a\\b"),
        (Variable(["a\\b"], multi=True), r"a\\\\b", r"a\\\\b", "a\\b"),
    ],
)
def test_a_data_source_escapes_values_in_its_own_way(variable, promql, logql, traceql):
    for language, expected in {"promql": promql, "logql": logql, "traceql": traceql}.items():
        assert substitute("$v", {"v": variable}, SPAN, language) == expected


@pytest.mark.parametrize(
    ("form", "several", "one"),
    [
        ("regex", r"(web\.1|web\+2)", r"web\.1"),
        ("pipe", "web.1|web+2", "web.1"),
        ("csv", "web.1,web+2", "web.1"),
        ("glob", "{web.1,web+2}", "web.1"),
        ("doublequote", '"web.1","web+2"', '"web.1"'),
        ("json", '["web.1", "web+2"]', '["web.1"]'),
        ("raw", "web.1,web+2", "web.1"),
    ],
)
def test_a_format_comes_before_the_data_sources_own(form, several, one):
    assert substitute(f"${{v:{form}}}", {"v": MULTI}, SPAN) == several
    assert substitute(f"[[v:{form}]]", {"v": SINGLE}, SPAN) == one
    assert substitute(f"${{v:{form}}}", {"v": ONE}, SPAN) == one.strip("[]" + '"' * (form == "json"))


@pytest.mark.parametrize("query", ["$w", "${w}", "[[w]]", "${v:upside_down}"])
def test_what_nobody_knows_is_an_error(query):
    with pytest.raises(KeyError):
        substitute(query, {"v": ONE}, SPAN)


@pytest.mark.parametrize(
    ("span", "interval", "rate"),
    [
        (Span(900, points=900, scrape=15), "15s", "60s"),  # the scrape interval is the least
        (Span(900, points=900, scrape=5), "5s", "20s"),
        (Span(21_600, points=1000, scrape=15), "20s", "60s"),
        (Span(86_400, points=1000, scrape=15), "60s", "75s"),  # an interval and a scrape are more than four scrapes
        (Span(30, points=1000, scrape=0.5), "500ms", "2s"),
    ],
)
def test_the_intervals_follow_from_range_points_and_scrape(span, interval, rate):
    assert substitute("$__interval ${__rate_interval}", {}, span) == f"{interval} {rate}"


def test_the_range_is_known_in_each_unit():
    assert substitute("[$__range] $__range_s $__range_ms $__interval_ms", {}, SPAN) == "[900s] 900 900000 5000"


def test_intervals_are_rounded_to_what_people_like():
    steps = {0.009: 0.001, 0.2: 0.2, 1.4: 1, 1.5: 2, 7.4: 5, 14: 15, 86.4: 60, 604: 600, 10_000: 10_800}
    assert {seconds: rounded(seconds) for seconds in steps} == steps
    assert [duration(0.25), duration(90)] == ["250ms", "90s"]
