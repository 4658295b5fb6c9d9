"""Prometheus, the log and the traces agree on a known load, to the last request."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.otlp import ReceivedSpan, Receiver
from tests.prometheus import Prometheus, program
from tests.server import Server, wait_until

ROUTES = 'http_server_request_duration_seconds_count{http_route="%s",http_request_method="%s"}'
LOAD = [("GET", "/todos", 20), ("POST", "/todos", 10), ("GET", "/todos/1", 15), ("GET", "/todos/999999", 5)]


@pytest.fixture(scope="module", params=["sync", "gthread", "gevent"])
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Prometheus, Receiver]]:
    """Run the example app under a known load, seen by a real Prometheus and an OTLP receiver."""
    directory = tmp_path_factory.mktemp(f"stack-{request.param}")
    with Receiver() as receiver:
        settings = {
            "GUNICORN_WORKER_CLASS": request.param,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_TRACES_SAMPLER_ARG": 1,
        }
        with (
            Server(directory, "app:create_app()", **settings) as server,
            Prometheus(directory, f"127.0.0.1:{server.agent_port}") as prometheus,
        ):
            wait_until(lambda: prometheus.number('up{job="sightline"}') == 1, what="the first scrape")
            send(server)
            total = sum(count for _, _, count in LOAD)
            wait_until(
                lambda: prometheus.number("sum(http_server_request_duration_seconds_count)") == total,
                what=f"{total} requests in Prometheus",
            )
            yield server, prometheus, receiver


def send(server: Server) -> None:
    requests.post(server.url + "/todos", json={"title": "first"}, timeout=10).raise_for_status()
    for method, path, count in LOAD:
        for _ in range(count - (method == "POST")):
            body = {"title": "another"} if method == "POST" else None
            requests.request(method, server.url + path, json=body, timeout=10)


def test_promql_has_the_requests_by_route_and_status(seen: tuple[Server, Prometheus, Receiver]) -> None:
    _, prometheus, _ = seen
    by = prometheus.query(
        "sum by (http_request_method, http_route, http_response_status_code)"
        " (http_server_request_duration_seconds_count)"
    )
    found = {
        (dict(key)["http_request_method"], dict(key).get("http_route"), dict(key)["http_response_status_code"]): value
        for key, value in by.items()
    }
    todo = next(route for _, route, _ in found if route and route.startswith("/todos/"))
    assert found == {
        ("GET", "/todos", "200"): 20,
        ("POST", "/todos", "201"): 10,
        ("GET", todo, "200"): 15,
        ("GET", todo, "404"): 5,
    }


def test_promql_has_the_workers_sums_and_the_histograms_counts(seen: tuple[Server, Prometheus, Receiver]) -> None:
    _, prometheus, _ = seen
    workers = prometheus.query("sum by (worker) (gunicorn_worker_requests_total)")
    assert {dict(key)["worker"] for key in workers} == {"1", "2"}
    assert sum(workers.values()) == 50
    assert prometheus.number('sum(http_server_request_duration_seconds_bucket{le="+Inf"})') == 50
    assert prometheus.number("sum(http_server_response_body_size_bytes_count)") == 50
    assert prometheus.number("sum(http_server_active_requests)") == 0
    assert prometheus.number('gunicorn_workers{state="live"}') == 2
    busy = prometheus.number("sum(gunicorn_worker_busy_seconds_total)")
    assert busy == pytest.approx(prometheus.number("sum(http_server_request_duration_seconds_sum)"), rel=1e-9)


def test_an_exemplars_trace_is_in_the_receiver_and_in_the_log(seen: tuple[Server, Prometheus, Receiver]) -> None:
    server, prometheus, receiver = seen
    spans = {span.trace_id: span for span in receiver.wait_for(_all_requests)}
    found = prometheus.api(
        "query_exemplars", query="http_server_request_duration_seconds_bucket", start=time.time() - 300, end=time.time()
    )
    exemplars = [(each["seriesLabels"], exemplar) for each in found for exemplar in each["exemplars"]]
    assert exemplars
    lines = {line["trace_id"]: line for line in server.requests_logged()}
    for labels, exemplar in exemplars:
        ids = exemplar["labels"]
        span, line = spans[ids["trace_id"]], lines[ids["trace_id"]]
        assert line["span_id"] == ids["span_id"]
        assert line["http.route"] == labels["http_route"]
        assert float(exemplar["value"]) == pytest.approx(line["duration_seconds"], abs=1e-6)
        assert span.resource["service.name"] == "sightline"


def test_the_database_calls_are_children_of_the_request(seen: tuple[Server, Prometheus, Receiver]) -> None:
    _, _, receiver = seen
    spans = receiver.wait_for(lambda spans: any(span.kind == "client" for span in spans))
    servers = {span.span_id: span for span in spans if span.kind == "server"}
    children = [span for span in spans if span.parent_id in servers]
    assert children
    assert all(child.trace_id == servers[child.parent_id].trace_id for child in children)


# OpenTelemetry's db.client.connection.count is a gauge, and this is its name in Prometheus.
CONVENTIONAL = 'db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix'


def test_promtool_finds_nothing_else_to_say_of_the_metrics(seen: tuple[Server, Prometheus, Receiver]) -> None:
    server, _, _ = seen
    text = server.agent("/metrics").text
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert set((checked.stdout + checked.stderr).splitlines()) <= {CONVENTIONAL}


def test_the_repositorys_configuration_is_valid() -> None:
    config = Path(__file__).resolve().parents[2] / "monitoring/prometheus/prometheus.yml"
    subprocess.run([program("promtool"), "check", "config", "--syntax-only", config], check=True)


def _all_requests(spans: list[ReceivedSpan]) -> bool:
    return sum(span.kind == "server" for span in spans) == sum(count for _, _, count in LOAD)
