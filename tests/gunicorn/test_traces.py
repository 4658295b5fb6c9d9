"""Spans, log lines and exemplars of a real server agree, and a bad receiver hurts nobody."""

import re
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from tests.otlp import Receiver
from tests.server import Server, wait_until

CLASSES = ["sync", "gthread", "gevent"]
each_class = pytest.mark.parametrize("worker_class", CLASSES)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def tracing(receiver: Receiver, worker_class: str, ratio: float = 1.0) -> dict[str, object]:
    return {
        "GUNICORN_WORKER_CLASS": worker_class,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


@each_class
def test_span_line_and_exemplar_carry_the_same_ids(
    serve: Callable[..., Server], receiver: Receiver, worker_class: str
) -> None:
    server = serve(**tracing(receiver, worker_class))
    for number in range(12):
        server.get(f"/items/{number}")
    spans = receiver.wait_for(lambda spans: len(spans) == 12)
    assert {span.name for span in spans} == {"GET /items/<int:number>"}
    assert {span.kind for span in spans} == {"server"}
    assert len({span.resource["service.instance.id"] for span in spans}) == 2  # both workers, each its own
    lines = server.requests_logged()
    ids = {(span.trace_id, span.span_id) for span in spans}
    assert {(line["trace_id"], line["span_id"]) for line in lines} == ids
    assert {line["trace_flags"] for line in lines} == {"01"}
    text = server.agent("/metrics", headers={"Accept": "application/openmetrics-text"}).text
    shown = re.findall(r'_duration_seconds_bucket\{.*\} .* # \{trace_id="(\w+)",span_id="(\w+)"\}', text)
    assert shown
    assert set(shown) <= ids
    wait_until(lambda: server.metrics().sum("observability_spans_total", outcome="exported") == 12)


@each_class
def test_unsampled_requests_that_fail_or_are_slow_are_kept(
    serve: Callable[..., Server], receiver: Receiver, worker_class: str
) -> None:
    server = serve(**tracing(receiver, worker_class, 0.0), OBSERVABILITY_SLOW_SECONDS=0.5)
    server.get("/")
    server.get("/fail")
    server.get("/sleep/0.6")
    spans = receiver.wait_for(lambda spans: len(spans) >= 2)
    time.sleep(1)  # nothing more may come
    assert sorted(span.name for span in spans) == ["GET /fail", "GET /sleep/<seconds>"]
    failed = next(span for span in spans if span.name == "GET /fail")
    assert failed.status == "error"
    assert failed.attributes["error.type"] == "ValueError"
    line = next(line for line in server.requests_logged() if line["url.path"] == "/fail")
    assert (line["trace_id"], line["span_id"]) == (failed.trace_id, failed.span_id)


@each_class
def test_a_callers_choice_and_ids_are_followed(
    serve: Callable[..., Server], receiver: Receiver, worker_class: str
) -> None:
    server = serve(**tracing(receiver, worker_class, 0.0))
    sampled, unsampled = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736"
    server.get("/", headers={"traceparent": f"00-{unsampled}-00f067aa0ba902b7-00"})
    server.get("/", headers={"traceparent": f"00-{sampled}-00f067aa0ba902b7-01"})
    (span,) = receiver.wait_for(bool)
    assert (span.trace_id, span.parent_id) == (sampled, "00f067aa0ba902b7")


def latencies(server: Server, count: int = 150) -> list[float]:
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        assert server.get("/items/1").status_code == 200
        seconds.append(time.perf_counter() - begun)
    return seconds


@each_class
@pytest.mark.parametrize("trouble", ["down", "refusing", "hanging", "slow"])
def test_a_bad_receiver_slows_no_request_and_no_exit(
    serve: Callable[..., Server], receiver: Receiver, worker_class: str, trouble: str
) -> None:
    server = serve(**tracing(receiver, worker_class), OBSERVABILITY_SPAN_QUEUE=64, OBSERVABILITY_EXIT_FLUSH_SECONDS=1)
    if trouble == "down":
        receiver.close()
    elif trouble == "refusing":
        receiver.status = 503
    elif trouble == "hanging":
        receiver.hang()
    else:
        receiver.slow(3)
    seconds = latencies(server)
    # a user notices half a second; a request that waited for an export would take the export's 3 or 5 seconds
    assert max(seconds) < 0.5
    assert statistics.median(seconds) < 0.1
    outcome = "exported" if trouble == "slow" else "dropped"  # what arrives late has arrived
    wait_until(lambda: server.metrics().sum("observability_spans_total", outcome=outcome) > 0, 40, f"{outcome} spans")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 5  # the graceful timeout
    assert not [line for line in server.lines() if "graceful timeout" in str(line.get("body"))]


def test_without_a_receiver_nothing_of_the_sdk_is_loaded(serve: Callable[..., Server]) -> None:
    server = serve(GUNICORN_WORKER_CLASS="sync")
    server.get("/")
    from pathlib import Path

    for pid in server.worker_pids():
        assert "opentelemetry" not in Path(f"/proc/{pid}/maps").read_text()
    (line,) = server.requests_logged()
    assert len(line["trace_id"]) == 32
