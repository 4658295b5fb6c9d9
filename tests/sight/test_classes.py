"""Every worker class of the field, with an app of its kind: what is seen of it, and what cannot be.

One server a class serves all checks, in this order; the last three reload it, kill a worker, and end it.
"""

import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.otlp import Receiver
from tests.server import ROOT, Server, wait_until
from tests.sight.tables import Table

FLASK = "tests.probe_app:create_app()"
APPS = "tests.sight.apps."
DURATION = "http_server_request_duration_seconds_count"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ONCE, ROUTE, IDS, QUEUE, STATE = "counted once", "route", "one trace id", "queue time", "in `/state`"
FAILURE, STREAM, LEAVES, CPU = "failure named", "stream to its end", "client that leaves", "CPU time"
RELOAD, STOP, SPANS, CAUSES = "reload loses nothing", "graceful stop", "last spans", "causes of ends"


@dataclass(frozen=True)
class Row:
    """One class with one app, and what it cannot do: the numbers of the page's footnotes."""

    name: str
    worker_class: str
    app: str
    item: str = "/items/<int:number>"
    no_route: int = 0
    leaves_unseen: int = 0
    no_cpu: int = 0


STARLETTE = "/items/{number:int}"
UVICORN, OLD_UVICORN = "uvicorn_worker.UvicornWorker", "uvicorn.workers.UvicornWorker"
ROWS = [
    Row("sync, Flask", "sync", FLASK),
    Row("gthread, Flask", "gthread", FLASK),
    Row("gevent, Flask", "gevent", FLASK, no_cpu=1),
    Row("gevent_pywsgi, Flask", "gevent_pywsgi", FLASK, no_cpu=1),
    Row("tornado, Flask", "tornado", FLASK, no_cpu=1, leaves_unseen=2),
    Row("asgi, Starlette", "asgi", APPS + "starlette_app:create_app()", STARLETTE, no_cpu=1),
    Row("asgi, no framework", "asgi", APPS + "plain:create_app()", "", no_route=3, no_cpu=1),
    Row("asgi, Flask in a2wsgi", "asgi", APPS + "wrapped:create_app()", leaves_unseen=4),
    Row(f"{UVICORN}, Starlette", UVICORN, APPS + "starlette_app:create_app()", STARLETTE, no_cpu=1),
    Row(f"{OLD_UVICORN}, Starlette", OLD_UVICORN, APPS + "starlette_app:create_app()", STARLETTE, no_cpu=1),
    Row(
        "aiohttp.GunicornWebWorker, aiohttp",
        "aiohttp.GunicornWebWorker",
        APPS + "aiohttp_web:create_app()",
        "/items/{number}",
        no_cpu=1,
    ),
]
COLUMNS = [ONCE, ROUTE, IDS, QUEUE, STATE, FAILURE, STREAM, LEAVES, CPU, RELOAD, STOP, SPANS, CAUSES]
TABLE = Table("worker-classes", "docs/worker-classes.md", ["Worker class, app", *COLUMNS], [row.name for row in ROWS])


class Site:
    """One row's server, and the receiver of its spans."""

    def __init__(self, row: Row, server: Server, receiver: Receiver) -> None:
        self.row, self.server, self.receiver = row, server, receiver

    def line(self, path: str) -> dict[str, Any]:
        """Return the last line of a path, once there is one."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in self.server.requests_logged() if line["url.path"] == path]

        found: dict[str, Any] = wait_until(lines, what=f"a line of {path}")[-1]
        return found

    def running(self, path: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the worker that runs a path now, and what `/state` says of the request."""
        for worker in self.server.state()["workers"]:
            for flight in worker["now"]:
                if flight["path"] == path and worker["in_flight"]:  # read a moment before
                    return worker, flight
        return None

    def saw(self, column: str, footnote: int = 0) -> None:
        TABLE.record(self.row.name, column, f"no [{footnote}]" if footnote else "yes")


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name.replace(" ", "-"))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    row = request.param
    directory = tmp_path_factory.mktemp("site")
    with (
        Receiver() as receiver,
        Server(
            directory,
            row.app,
            GUNICORN_WORKER_CLASS=row.worker_class,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_TRACES_SAMPLER_ARG=1,
            GUNICORN_GRACEFUL_TIMEOUT=10,
        ) as server,
    ):
        made = Site(row, server, receiver)
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "User-Agent": "sight"}
        server.get("/items/1001", headers=headers)
        made.line("/items/1001")
        yield made


def test_each_request_is_counted_once_and_by_its_worker(site: Site) -> None:
    server, name = site.server, "gunicorn_worker_requests_total"
    before, lines_before = server.metrics(), Counter(line["worker"] for line in server.requests_logged())
    for number in range(20):
        method = "POST" if number % 4 == 0 else "GET"
        assert requests.request(method, f"{server.url}/items/{number}", timeout=20).status_code == 200
    wait_until(lambda: server.metrics().sum(DURATION) == before.sum(DURATION) + 20, what="20 requests")
    after = server.metrics()
    for method, count in (("GET", 15), ("POST", 5)):
        labels = {"http_request_method": method, "http_response_status_code": "200", "url_scheme": "http"}
        labels |= {"http_route": site.row.item, "error_type": ""}
        assert after.sum(DURATION, **labels) - before.sum(DURATION, **labels) == count
    assert set(after.by("worker", name)) == {"1", "2"}  # a series each, also for one that has served nothing yet
    counted = {slot: count - before.by("worker", name)[slot] for slot, count in after.by("worker", name).items()}
    expected = sum(lines_before.values()) + 20
    lines = wait_until(lambda: len(found := server.requests_logged()) == expected and found, what="20 lines")
    in_lines = Counter(line["worker"] for line in lines) - lines_before
    assert {str(slot): count for slot, count in in_lines.items()} == {k: count for k, count in counted.items() if count}
    assert after.sum("http_server_active_requests") == 0
    site.saw(ONCE)


def test_the_route_is_the_template_and_annotations_reach_the_line(site: Site) -> None:
    line = site.line("/items/1001")
    assert line["http.route"] == site.row.item
    assert line["item"] == 1001
    assert line["worker"] in (1, 2)
    assert ("cpu_seconds" in line) == (not site.row.no_cpu)
    site.saw(ROUTE, site.row.no_route)
    site.saw(CPU, site.row.no_cpu)


def test_the_time_before_the_worker_is_known(site: Site) -> None:
    name = "http_server_request_queue_seconds_count"
    before = site.server.metrics().sum(name)
    site.server.get("/items/1003", headers={"X-Request-Start": f"t={time.time() - 2:.3f}"})
    assert site.line("/items/1003")["queue_seconds"] >= 2
    wait_until(lambda: site.server.metrics().sum(name) == before + 1, what="the queue time")
    site.saw(QUEUE)


def test_a_slow_request_is_seen_while_it_runs(site: Site) -> None:
    path = "/sleep/2"
    with _InBackground(site.server, path) as answers:
        worker, flight = wait_until(lambda: site.running(path), what="the request in /state")
        active = site.server.metrics().by("worker", "gunicorn_worker_active_requests")
    assert worker["in_flight"] == 1
    assert flight["method"] == "GET"
    assert active[str(worker["slot"])] == 1
    assert answers == [200]
    line = site.line(path)
    assert (line["worker"], line["trace_id"], line["in_flight"]) == (worker["slot"], flight["trace_id"], 1)
    wait_until(lambda: site.server.metrics().sum("http_server_active_requests") == 0, what="no request in flight")
    after = next(each for each in site.server.state()["workers"] if each["slot"] == worker["slot"])
    assert after["busy_seconds"] - worker["busy_seconds"] >= line["duration_seconds"] - flight["age_seconds"] - 0.1
    assert line["duration_seconds"] >= 2
    site.saw(STATE)


class _InBackground:
    """Asks for a path while the block runs; the statuses that came."""

    def __init__(self, server: Server, path: str) -> None:
        self.answers: list[int] = []
        self._thread = threading.Thread(target=lambda: self.answers.append(server.get(path).status_code))

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self.answers

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)


def test_an_exception_is_a_500_with_its_type(site: Site) -> None:
    errors = site.server.metrics().sum("gunicorn_worker_errors_total")
    assert site.server.get("/fail").status_code == 500
    line = site.line("/fail")
    assert (line["error.type"], line["http.response.status_code"], line["severity_text"]) == (
        "ValueError",
        500,
        "ERROR",
    )
    wait_until(lambda: site.server.metrics().sum("gunicorn_worker_errors_total") == errors + 1, what="an error")
    labels = {"http_response_status_code": "500", "error_type": "ValueError"}
    route = "" if site.row.no_route else "/fail"
    assert site.server.metrics().sum(DURATION, http_route=route, **labels) == 1

    def told() -> list[dict[str, Any]]:
        return [each for each in site.server.lines() if each.get("exception.type") == "ValueError"]

    (trace,) = wait_until(told, what="the line with the stack trace")  # whoever writes it: the framework or the server
    assert trace["trace_id"] == line["trace_id"]
    assert "second line" in trace["exception.message"]
    site.saw(FAILURE)


def test_a_stream_is_measured_to_its_end(site: Site) -> None:
    assert len(site.server.get("/stream/5?pause=0.1").content) == 5000
    line = site.line("/stream/5")
    assert line["http.response.body.size"] == 5000
    assert line["duration_seconds"] >= 0.5
    assert "error.type" not in line
    site.saw(STREAM)


def test_a_client_that_leaves_is_recorded_as_such(site: Site) -> None:
    # gunicorn's asgi class tells an app that does not ask only after 3 s, by cancelling it
    path, before = "/stream/20" if site.row.leaves_unseen else "/stream/40", site.server.metrics().sum(DURATION)
    with socket.create_connection(("127.0.0.1", site.server.port)) as client:
        client.sendall(f"GET {path}?pause=0.1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: site.running(path), what="the stream in /state")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset at close
    line = site.line(path)
    assert line["http.response.status_code"] == 200
    assert ("error.type" in line) == (not site.row.leaves_unseen)
    assert line.get("error.type", "client_disconnected") == "client_disconnected"
    wait_until(lambda: site.server.metrics().sum(DURATION) == before + 1, what="the stream to be counted")
    assert site.server.metrics().sum("http_server_active_requests") == 0
    site.saw(LEAVES, site.row.leaves_unseen)


def test_line_span_and_exemplar_carry_one_trace_id(site: Site) -> None:
    """It was asked for when the server began, since spans take some seconds to come."""
    line = site.line("/items/1001")
    (span,) = _of(site.receiver.wait_for(lambda spans: _of(spans, TRACE), 20), TRACE)
    assert (line["trace_id"], line["span_id"], line["trace_flags"]) == (TRACE, span.span_id, "01")
    assert (span.parent_id, span.trace_state, span.kind) == (PARENT, "vendor=1", "server")
    assert span.name == f"GET {site.row.item}".strip()
    assert span.attributes["url.path"] == "/items/1001"
    assert span.attributes["client.address"] == line["client.address"] == "127.0.0.1"
    assert span.attributes["user_agent.original"] == "sight"
    assert span.attributes["network.protocol.version"] == "1.1"
    text = site.server.agent("/metrics", headers={"Accept": "application/openmetrics-text"}).text
    shown = set(re.findall(r'_duration_seconds_bucket\{.*\} .* # \{trace_id="(\w+)"', text))
    assert shown
    assert shown <= {each["trace_id"] for each in site.server.requests_logged()}
    site.saw(IDS)


def _of(spans: list[Any], trace: str) -> list[Any]:
    return [span for span in spans if span.trace_id == trace]


def test_a_reload_under_load_loses_no_count(site: Site) -> None:
    server, before, stop = site.server, site.server.metrics().sum(DURATION), threading.Event()
    old = set(server.worker_pids())
    answered, unanswered = 0, 0

    def ask() -> None:
        nonlocal answered, unanswered
        while not stop.wait(0.01):
            try:
                answered += server.get("/items/1004").status_code == 200
            except requests.RequestException:
                unanswered += 1  # may have been counted or not

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(pids := set(server.worker_pids())) == 2 and not pids & old, 30, "new workers")
        server.wait_ready()
    finally:
        stop.set()
        asking.join(20)
    assert answered > 0
    wait_until(lambda: server.metrics().sum(DURATION) >= before + answered, what="all that was answered")
    assert server.metrics().sum(DURATION) <= before + answered + unanswered

    def logged() -> int:
        return sum(line["url.path"] == "/items/1004" for line in server.requests_logged())

    wait_until(lambda: logged() >= answered, what="the lines of all that was answered")
    assert logged() <= answered + unanswered
    site.saw(RELOAD)


def test_a_killed_worker_is_told_from_a_reloaded_one(site: Site) -> None:
    wait_until(lambda: _causes(site.server) == {"reloaded": 2}, 30, "two reloaded workers")
    site.server.signal(signal.SIGKILL, site.server.worker_pids()[0])
    wait_until(lambda: _causes(site.server) == {"reloaded": 2, "killed": 1}, 30, "a killed worker")
    site.server.wait_ready()


def _causes(server: Server) -> Counter[str]:
    return Counter(line["cause"] for line in server.lines() if line.get("event.name") == "gunicorn.worker.exit")


def test_a_graceful_stop_finishes_what_runs_and_sends_its_spans(site: Site) -> None:
    path = "/sleep/1.25"
    with _InBackground(site.server, path) as answers:
        wait_until(lambda: site.running(path), what="the request in /state")
        begun = time.monotonic()
        assert site.server.stop() == 0
        seconds = time.monotonic() - begun
    assert answers == [200]
    assert seconds < float(site.server.env["GUNICORN_GRACEFUL_TIMEOUT"])
    line = site.line(path)
    assert line["http.response.status_code"] == 200
    site.saw(STOP)
    spans = site.receiver.wait_for(lambda spans: _of(spans, line["trace_id"]), 10)
    assert [span.span_id for span in _of(spans, line["trace_id"])] == [line["span_id"]]
    site.saw(SPANS)
    assert _causes(site.server) == {"reloaded": 2, "killed": 1, "shutdown": 2}
    site.saw(CAUSES)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("eventlet", "gevent"), ("gaiohttp", "aiohttp.GunicornWebWorker for an aiohttp app, or asgi")],
)
def test_a_class_that_is_gone_stops_the_boot_with_one_line(tmp_path: Path, name: str, instead: str) -> None:
    server = Server(tmp_path, GUNICORN_WORKER_CLASS=name)
    server.start()
    assert server.process is not None
    assert server.process.wait(30) == 1
    said = f"GUNICORN_WORKER_CLASS is '{name}', which gunicorn no longer has: use {instead}\n"
    assert server.log_path.read_text() == said
    assert said in (ROOT / "docs/worker-classes.md").read_text()


def test_pywsgi_never_recycles_its_workers(serve: Callable[..., Server]) -> None:
    """As the page says: gevent's own server does not count requests for gunicorn."""
    server = serve(GUNICORN_WORKER_CLASS="gevent_pywsgi", GUNICORN_MAX_REQUESTS=2, WEB_CONCURRENCY=1)
    (before,) = server.worker_pids()
    for _ in range(10):
        assert server.get("/").status_code == 200
    wait_until(lambda: server.metrics().sum(DURATION) == 10, what="10 requests")
    assert server.worker_pids() == [before]


def test_the_page_shows_what_was_seen() -> None:
    TABLE.check()
