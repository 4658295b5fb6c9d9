"""What dashboards say where nothing happens, of numbers that are made up, by a real Prometheus."""

import math
from collections.abc import Iterator

import pytest

from dashboards.build import queries
from tests.dashboards.grafana import ALL, Span, Variable, substitute
from tests.grafana.exporter import Exporter, scraped
from tests.prometheus import Prometheus
from tests.server import wait_until

ANY = Variable([ALL], ["any"], multi=True, include_all=True, all_value=".*")
SPAN = Span(seconds=30, scrape=0.5)
COUNT = 'http_server_request_duration_seconds_count{http_route="/a",http_response_status_code="200"}'
BUCKET = 'http_server_request_duration_seconds_bucket{http_route="/a",http_response_status_code="200",le="%s"}'
REQUESTS = {COUNT: 3.0, BUCKET % "0.1": 3.0, BUCKET % "+Inf": 3.0}


def asked(dashboard: str, panel: str) -> list[str]:
    """Return what a panel asks, with every variable at All."""
    found = [each for each in queries() if (each.dashboard, each.panel) == (f"sightline-{dashboard}", panel)]
    return [substitute(each.expression, dict.fromkeys(("job", "instance", "route"), ANY), SPAN) for each in found]


@pytest.fixture
def target() -> Iterator[Exporter]:
    with Exporter() as exporter:
        yield exporter


def test_a_redis_without_a_bound_has_no_line_of_what_is_allowed(tmp_path, target: Exporter) -> None:
    used, allowed = asked("dependencies", "Memory of Redis")
    target.set(redis_memory_used_bytes=5, redis_memory_max_bytes=0)
    with Prometheus(tmp_path, config=scraped(("redis", target.target))) as prometheus:
        wait_until(lambda: prometheus.number(used) == 5, 20, "a scrape")
        assert prometheus.query(allowed) == {}
        target.set(redis_memory_max_bytes=7)
        wait_until(lambda: prometheus.number(allowed) == 7, 20, "a bound")


def test_what_kept_the_tuner_from_growing_stays_a_row_while_it_does_not(tmp_path, target: Exporter) -> None:
    (rows,) = asked("saturation", "What keeps the tuner from growing")
    target.values = {f'tuner_frozen{{server="a:1",reason="{each}"}}': 0.0 for each in ("cpu", "memory")}
    held = next(iter(target.values))
    with Prometheus(tmp_path, config=scraped(("tuner", target.target))) as prometheus:
        wait_until(lambda: len(prometheus.query("tuner_frozen")) == 2, 20, "a scrape")
        assert prometheus.query(rows) == {}
        row = (("reason", "cpu"), ("server", "a:1"))
        for value in (1.0, 0.0):
            target.values[held] = value
            wait_until(lambda value=value: prometheus.query(rows) == {row: value}, 20, f"a row of {value}")


def test_of_a_server_whom_nobody_has_asked_nothing_fails_and_of_none_nothing_is_known(tmp_path) -> None:
    (failed,), (asks,) = (asked("service", panel) for panel in ("Failed", "Requests"))
    with Exporter() as server, Prometheus(tmp_path, config=scraped(("sightline", server.target))) as prometheus:
        server.set(gunicorn_requests_lost_total=0)
        wait_until(lambda: prometheus.number("up") == 1, 20, "a scrape")
        assert [prometheus.query(each) for each in (failed, asks)] == [{(): 0.0}, {(): 0.0}]
        server.end()
        wait_until(lambda: prometheus.number("up") == 0, 20, "a scrape that fails")
        assert all(math.isnan(prometheus.number(each)) for each in (failed, asks))


def test_a_cache_that_has_not_missed_yet_misses_nothing(tmp_path, target: Exporter) -> None:
    (missed,) = asked("dependencies", "Look-ups that missed")
    hit, miss = (f'cache_requests_total{{cache="todos",operation="get",result="{each}"}}' for each in ("hit", "miss"))
    target.values = {hit: 1.0}
    with Prometheus(tmp_path, config=scraped(("sightline", target.target))) as prometheus:
        wait_until(lambda: prometheus.query(hit), 20, "a scrape")
        assert prometheus.query(missed) == {}
        target.add(hit)
        wait_until(lambda: prometheus.query(missed), 20, "a look-up")
        assert prometheus.query(missed) == {(("cache", "todos"),): 0.0}
        target.set(**{miss: 0.0})
        wait_until(lambda: prometheus.query(miss), 20, "a scrape")
        target.add(miss)
        wait_until(lambda: max(prometheus.query(missed).values(), default=0) > 0, 20, "a look-up that missed")


def test_of_a_server_that_has_become_idle_nothing_fails_and_nothing_takes_time(tmp_path, target: Exporter) -> None:
    (failed,), (p99,), (asks,) = (asked("service", panel) for panel in ("Failed", "Duration p99", "Requests"))
    (by_route,) = asked("service", "Duration p99 by route")
    target.values = {"gunicorn_requests_lost_total": 0.0} | REQUESTS
    with Prometheus(tmp_path, config=scraped(("sightline", target.target))) as prometheus:
        wait_until(lambda: prometheus.query(COUNT), 20, "a scrape")
        for each in REQUESTS:
            target.add(each)
        wait_until(lambda: prometheus.number(asks) > 0 and prometheus.query(by_route), 20, "a request")
        wait_until(lambda: prometheus.number(asks) == 0, 20, "the end of its window")
        assert prometheus.query(failed) == {(): 0.0}
        assert math.isnan(prometheus.number(p99))
        assert prometheus.query(by_route) == {}
