"""Traces: ids for every request, spans for the sampled, failed and slow ones, and a receiver that fails at will."""

import contextvars
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState

from observability import catalogue, store, traceparent, traces
from observability.context import current
from observability.settings import Settings
from tests.otlp import Receiver

ROOT = Path(__file__).parents[2]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Request(traces.TracedRequest):
    """A request as the middleware makes one; what it knows at its end, it knows here from the start."""

    def __init__(self, environ=None, **about):
        super().__init__("", "", "00")
        self.environ = {
            "REQUEST_METHOD": "GET",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "https",
            "HTTP_USER_AGENT": "curl/8",
            "REMOTE_ADDR": "192.0.2.1",
            "QUERY_STRING": "token=hunter2",
        } | (environ or {})
        self.start = time.monotonic()
        for name, value in {"method": "GET", "path": "/todos/7", "status": 200, "error": None, **about}.items():
            setattr(self, name, value)

    def begin(self):
        traces.begin(self, self.environ)
        self.token = current.set(self)
        return self

    def end(self, route, error_type="", seconds=0.01):
        kept = traces.end(self, route, error_type, seconds)
        current.reset(self.token)
        return kept


def counted(outcome):
    recorder = store.child(catalogue.SPANS, outcome)
    recorder.inc(0)
    return recorder.store.cells[recorder.places[0]]


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def tracing(receiver, monkeypatch):
    """Start tracing anew; the keywords are settings."""
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _: None)  # once a process; here are many

    def start(**changes):
        traces.start(Settings(**{"otlp_endpoint": receiver.endpoint, "sample_ratio": 1.0} | changes), "host/worker-1")

    yield start
    traces.stop(0.0)


def one(route="/todos/<id>", error_type="", seconds=0.01, **about):
    """Run one request through the tracer."""
    request = Request(**about).begin()
    return request, request.end(route, error_type, seconds)


class TestTraceparent:
    def test_a_valid_one_is_read(self):
        assert traceparent.parse(f"00-{TRACE}-{PARENT}-01") == (TRACE, PARENT, True)
        assert traceparent.parse(f"00-{TRACE}-{PARENT}-00") == (TRACE, PARENT, False)
        assert traceparent.parse(f"00-{TRACE}-{PARENT}-fe") == (TRACE, PARENT, False)
        assert traceparent.parse(f"00-{TRACE}-{PARENT}-03") == (TRACE, PARENT, True)

    def test_future_versions_may_say_more(self):
        assert traceparent.parse(f"cc-{TRACE}-{PARENT}-01") == (TRACE, PARENT, True)
        assert traceparent.parse(f"01-{TRACE}-{PARENT}-01-what-comes") == (TRACE, PARENT, True)

    @pytest.mark.parametrize(
        "header",
        [
            *("", "nonsense", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"),
            *(f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT.upper()}-01", f"00-{TRACE}-{PARENT}-0A"),
            *(f"00-{TRACE}-{PARENT}-01-more", f"00-{TRACE}-{PARENT}-01-", f"01-{TRACE}-{PARENT}-01more"),
            *(
                f"00-{TRACE}a-{PARENT}-01",
                f"00-{TRACE[1:]}-{PARENT}-01",
                f"00-{TRACE}-{PARENT}-1",
                f"0-{TRACE}-{PARENT}-01",
            ),
            *(
                f"00-{TRACE}-{PARENT}",
                f" 00-{TRACE}-{PARENT}-01",
                f"00-{TRACE}-{PARENT}-01\n",
                f"00_{TRACE}_{PARENT}_01",
            ),
            *(
                f"01-{TRACE}-{PARENT}-01-{'x' * 500}",
                f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01",
                "\u0660\u0660" + f"-{TRACE}-{PARENT}-01",
            ),
        ],
    )
    def test_an_invalid_one_begins_a_new_trace(self, header):
        assert traceparent.parse(header) is None
        begun = Request({"HTTP_TRACEPARENT": header})
        traces.begin(begun, begun.environ)
        assert begun.trace_id not in header or not header
        assert begun.parent_id == ""

    @given(
        st.tuples(
            st.sampled_from(["00", "01", "cc", "ff", "0"]),
            st.sampled_from([TRACE, "0" * 32, TRACE.upper(), TRACE[:-1]])
            | st.text("0123456789abcdefg", min_size=30, max_size=33),
            st.sampled_from([PARENT, "0" * 16]) | st.text("0123456789abcdef", min_size=15, max_size=17),
            st.sampled_from(["00", "01", "03", "ff", "zz", "01-", "01-x"]),
        ).map("-".join)
    )
    def test_it_agrees_with_opentelemetrys_own(self, header):
        theirs = trace.get_current_span(
            TraceContextTextMapPropagator().extract({"traceparent": header}, context.Context())
        ).get_span_context()
        ours = traceparent.parse(header)
        if ours is None:
            assert not theirs.is_valid
        else:
            assert ours == (f"{theirs.trace_id:032x}", f"{theirs.span_id:016x}", bool(theirs.trace_flags & 1))

    @given(
        st.lists(
            st.sampled_from(["a=1", "b@c=2", " d=3 ", "", "a=2", "A=1", "x", "k=é", "k=a=b", "0a=1", "l=" + "v" * 200])
        ).map(",".join)
    )
    def test_tracestate_agrees_with_opentelemetrys_own(self, header):
        if len(header) <= 512:
            logging.disable()
            theirs = list(TraceState.from_header([header]).items())
            logging.disable(logging.NOTSET)
            assert traceparent.parse_state(header) == theirs
        else:
            assert traceparent.parse_state(header) == []

    def test_too_many_members_are_left_out(self):
        assert len(traceparent.parse_state(",".join(f"k{n}=v" for n in range(32)))) == 32
        assert traceparent.parse_state(",".join(f"k{n}=v" for n in range(33))) == []


class TestWithoutReceiver:
    def test_requests_have_ids_all_the_same(self):
        begun = [one()[0] for _ in range(100)]
        assert len({each.trace_id for each in begun}) == len({each.span_id for each in begun}) == 100
        for each in begun:
            assert (len(each.trace_id), len(each.span_id), each.trace_flags) == (32, 16, "00")
            int(each.trace_id + each.span_id, 16)

    def test_a_forked_child_has_ids_of_its_own(self):
        one()
        here, there = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(there, " ".join(one()[0].trace_id for _ in range(100)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert not set(os.read(here, 65536).decode().split()) & {one()[0].trace_id for _ in range(100)}
        os.close(here)
        os.close(there)

    def test_a_callers_trace_is_joined(self):
        begun, kept = one(environ={"HTTP_TRACEPARENT": f"00-{TRACE}-{PARENT}-01"}, status=500)
        assert (begun.trace_id, begun.parent_id, begun.trace_flags, kept) == (TRACE, PARENT, "00", False)
        assert begun.span_id != PARENT

    def test_nothing_of_opentelemetry_is_imported_and_no_thread_starts(self):
        code = """
            import sys, threading
            from observability import traces
            from observability.settings import Settings
            traces.instrument_libraries(Settings()); traces.start(Settings(), "x")
            import sqlite3, urllib3, requests
            header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            traces.begin(traces.TracedRequest("", "", ""), {"HTTP_TRACEPARENT": header})
            traces.stop(1)
            assert not [name for name in sys.modules if name.startswith("opentelemetry")]
            assert threading.active_count() == 1
        """
        run(code)

    def test_opentelemetrys_own_switch_turns_tracing_off(self, tracing, receiver, monkeypatch):
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        tracing()
        begun, kept = one(status=500)
        assert (kept, begun.trace_flags) == (False, "00")


class TestSampling:
    def test_the_ratio_decides_as_opentelemetrys_does(self, tracing):
        tracing(sample_ratio=0.3)
        sampler = TraceIdRatioBased(0.3)
        sampled = 0
        for _ in range(500):
            begun, kept = one()
            expected = sampler.should_sample(None, int(begun.trace_id, 16), "x").decision is Decision.RECORD_AND_SAMPLE
            assert begun.sampled == kept == expected
            sampled += kept
        assert 75 < sampled < 225

    @pytest.mark.parametrize(("ratio", "flags", "sampled"), [(0.0, "01", True), (1.0, "00", False)])
    def test_the_callers_choice_wins(self, tracing, ratio, flags, sampled):
        tracing(sample_ratio=ratio)
        begun, kept = one(environ={"HTTP_TRACEPARENT": f"00-{TRACE}-{PARENT}-{flags}"})
        assert (begun.trace_id, begun.sampled, kept, begun.trace_flags) == (TRACE, sampled, sampled, flags)

    def test_unsampled_requests_send_nothing_and_pass_their_ids_on(self, tracing, receiver):
        tracing(sample_ratio=0.0)
        request = Request(environ={"HTTP_TRACEPARENT": f"00-{TRACE}-{PARENT}-00", "HTTP_TRACESTATE": "a=1,b=2"})
        begun = request.begin()
        current = trace.get_current_span()
        headers: dict[str, str] = {}
        propagate.inject(headers)
        begun.end("/", "", 0.01)
        assert not current.is_recording()
        assert headers["traceparent"] == f"00-{TRACE}-{begun.span_id}-00"
        assert headers["tracestate"] == "a=1,b=2"
        assert trace.get_current_span() is trace.INVALID_SPAN
        traces.stop(5)
        assert receiver.spans == []


class TestServerSpan:
    def test_a_sampled_request_is_a_span_with_stable_attributes(self, tracing, receiver, monkeypatch):
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a,service.name=not-this")
        tracing(service_name="shop", service_version="1.2", environment="staging")
        before = counted("exported")
        request = Request(environ={"HTTP_TRACEPARENT": f"00-{TRACE}-{PARENT}-01", "HTTP_TRACESTATE": "a=1"})
        begun = request.begin()
        inside = trace.get_current_span()
        inside.set_attribute("app.user", 7)
        assert (inside.get_span_context().trace_id, inside.get_span_context().span_id) == (
            int(begun.trace_id, 16),
            int(begun.span_id, 16),
        )
        assert begun.end("/todos/<id>", "", 0.25)
        traces.stop(5)
        [span] = receiver.spans
        assert (span.name, span.kind, span.status) == ("GET /todos/<id>", "server", "unset")
        assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, begun.span_id, PARENT)
        assert span.trace_state == "a=1"
        assert span.end_ns - span.start_ns == 250_000_000
        assert abs(span.start_ns - time.time_ns()) < 60e9
        assert span.attributes == {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "http.route": "/todos/<id>",
            "url.path": "/todos/7",
            "url.scheme": "https",
            "user_agent.original": "curl/8",
            "client.address": "192.0.2.1",
            "network.protocol.version": "1.1",
            "app.user": 7,
        }
        expected = {
            "service.name": "shop",
            "service.version": "1.2",
            "deployment.environment.name": "staging",
            "service.instance.id": "host/worker-1",
            "team": "a",
        }
        assert expected.items() <= span.resource.items()
        assert counted("exported") == before + 1

    def test_without_a_route_or_a_known_method_the_name_stays_bounded(self, tracing, receiver):
        tracing()
        one(route="", status=404)
        one(route="", method="_OTHER", environ={"REQUEST_METHOD": "BREW"})
        traces.stop(5)
        first, second = receiver.spans
        assert (first.name, first.status) == ("GET", "unset")
        assert "error.type" not in first.attributes
        assert second.name == "HTTP"
        assert second.attributes["http.request.method"] == "_OTHER"
        assert second.attributes["http.request.method_original"] == "BREW"

    @pytest.mark.parametrize("ratio", [0.0, 1.0])
    def test_a_failed_request_is_kept_with_its_exception_sampled_or_not(self, tracing, receiver, ratio):
        tracing(sample_ratio=ratio)
        try:
            raise ConnectionError("postgresql://u:hunter2@db")
        except ConnectionError as caught:
            error = caught
        begun, kept = one(status=500, error=error, error_type="ConnectionError")
        traces.stop(5)
        [span] = receiver.spans
        assert kept
        assert begun.trace_flags == "01"
        assert (span.trace_id, span.span_id, span.parent_id) == (begun.trace_id, begun.span_id, "")
        assert (span.name, span.kind, span.status) == ("GET /todos/<id>", "server", "error")
        assert span.attributes["error.type"] == "ConnectionError"
        assert span.resource["service.instance.id"] == "host/worker-1"
        [(name, attributes)] = span.events
        assert name == "exception"
        assert attributes["exception.type"] == "ConnectionError"
        assert attributes["exception.message"] == "postgresql://u:***@db"
        assert "Traceback" in attributes["exception.stacktrace"]

    def test_an_unsampled_request_is_kept_if_slow_and_keeps_its_parent(self, tracing, receiver):
        tracing(sample_ratio=0.0, slow_seconds=0.5)
        one(seconds=0.49)
        caller = {"HTTP_TRACEPARENT": f"00-{TRACE}-{PARENT}-00", "HTTP_TRACESTATE": "a=1"}
        begun, kept = one(seconds=0.5, environ=caller)
        traces.stop(5)
        [span] = receiver.spans
        assert kept
        assert (span.trace_id, span.span_id, span.parent_id, span.trace_state) == (TRACE, begun.span_id, PARENT, "a=1")
        assert (span.status, span.attributes["http.response.status_code"]) == ("unset", 200)

    def test_hostile_texts_spoil_no_batch(self, tracing, receiver):
        tracing()
        dropped = counted("dropped")
        for n in range(20):
            request = Request(path="/\ud800" + "x" * 100_000, environ={"HTTP_USER_AGENT": "\udfff\x00"})
            begun = request.begin()
            if n == 7:
                trace.get_current_span().add_event("\ud800")  # which has no UTF-8
            begun.end("/", "", 0.01)
        traces.stop(5)
        assert len(receiver.spans) == 20
        assert counted("dropped") == dropped
        assert len(receiver.spans[0].attributes["url.path"]) < 2000

    def test_a_body_closed_in_another_context_leaves_no_complaint(self, tracing, receiver, caplog):
        tracing(sample_ratio=0.0)
        for _ in range(3):
            request = Request()
            contextvars.copy_context().run(lambda request=request: (request.begin(), trace.get_current_span()))
            thread = threading.Thread(target=traces.end, args=(request, "/", "", 0.01))
            thread.start()
            thread.join()
        assert [record.message for record in caplog.records] == []
        assert trace.get_current_span() is trace.INVALID_SPAN


class TestReceiverTrouble:
    """Whatever it does, no request waits, nothing piles up, and each span is counted exactly once."""

    SPANS = 500

    def load(self, seconds_allowed=2.0):
        """End spans, and hold that no request waited for any of them."""
        begun = time.monotonic()
        for _ in range(self.SPANS):
            one(status=500)
        assert time.monotonic() - begun < seconds_allowed

    def outcome(self, before):
        return counted("exported") - before[0], counted("dropped") - before[1]

    def before(self):
        return counted("exported"), counted("dropped")

    @pytest.mark.parametrize("trouble", ["refused", "500", "503", "503 later", "hang", "slow"])
    def test_a_worker_leaves_within_its_deadline(self, tracing, receiver, trouble):
        if trouble == "refused":
            receiver.close()
        elif trouble == "hang":
            receiver.hang()
        elif trouble == "slow":
            receiver.slow(3.0)
        else:
            receiver.status = int(trouble[:3])
            receiver.retry_after = 60 if trouble == "503 later" else 1
        before = self.before()
        tracing(span_queue=64, export_timeout=30.0)
        self.load()
        begun = time.monotonic()
        traces.stop(0.5)
        assert time.monotonic() - begun < 2.0
        assert self.outcome(before) == (0, self.SPANS)
        receiver.ok()
        time.sleep(0.1)
        assert sum(self.outcome(before)) == self.SPANS

    def test_a_receiver_that_comes_back_gets_what_comes_then(self, tracing, receiver):
        receiver.status = 500
        before = self.before()
        tracing(span_queue=64)
        for _ in range(32):
            one()
        wait_until(lambda: self.outcome(before) == (0, 32))
        receiver.ok()
        for _ in range(32):
            one(route="/later")
        receiver.wait_for(lambda spans: len(spans) == 32)
        traces.stop(5)
        assert self.outcome(before) == (32, 32)
        assert {span.name for span in receiver.spans} == {"GET /later"}

    def test_more_than_the_queue_holds_is_dropped_and_counted(self, tracing, receiver):
        receiver.hang()
        before = self.before()
        tracing(span_queue=100)
        self.load()
        receiver.ok()
        traces.stop(10)
        exported, dropped = self.outcome(before)
        assert exported == len(receiver.spans)
        assert 100 <= exported <= 200  # what waited, and what was under way
        assert exported + dropped == self.SPANS

    def test_a_partial_success_is_counted_as_such(self, tracing, receiver):
        receiver.reject = 3
        before = self.before()
        tracing()
        for _ in range(10):
            one()
        traces.stop(5)
        assert self.outcome(before) == (7, 3)
        assert len(receiver.spans) == 7

    def test_large_loads_arrive_whole(self, tracing, receiver):
        before = self.before()
        tracing(span_queue=100_000)
        threads = [threading.Thread(target=lambda: [one() for _ in range(500)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        traces.stop(30)
        assert self.outcome(before) == (4000, 0)
        assert len({span.span_id for span in receiver.spans}) == 4000

    def test_spans_that_end_after_the_end_are_counted(self, tracing, receiver):
        tracing()
        request = Request()
        begun = request.begin()
        before = self.before()
        traces.stop(1)
        begun.end("/", "", 0.01)
        assert self.outcome(before) == (0, 1)

    def test_trouble_is_said_once_and_so_is_its_end(self, tracing, receiver, caplog):
        caplog.set_level(logging.INFO)
        receiver.status = 400
        before = self.before()
        tracing(span_queue=16)
        for n in range(1, 4):
            for _ in range(8):
                one()
            wait_until(lambda n=n: self.outcome(before) == (0, 8 * n))
        receiver.ok()
        one()
        traces.stop(5)
        said = [record.getMessage() for record in caplog.records if record.name.startswith("observability")]
        assert len(said) == 2
        assert "400" in said[0]
        assert said[1] == "spans are exported again"
        assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def wait_until(predicate, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def run(code: str, **environ: str) -> str:
    """Run a program of its own: instrumentation and gevent's patch change a process for good."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


PROGRAM = """
    from observability import logs, store, catalogue, traces
    from observability.settings import Settings, load
    store.STORE.claims_lazily = False  # counts begin at zero
    import time
    from observability.context import current
    def request(work, **environ):
        begun = traces.TracedRequest("", "", "")
        begun.method, begun.path, begun.status, begun.error, begun.start = "GET", "/", 200, None, time.monotonic()
        begun.environ = {"REQUEST_METHOD": "GET", **environ}
        traces.begin(begun, begun.environ)
        token = current.set(begun)
        try: work()
        finally:
            traces.end(begun, "/work", "", 0.01)
            current.reset(token)
        return begun
    def counted(outcome):
        child = store.child(catalogue.SPANS, outcome); child.inc(0)
        return int(child.store.cells[child.places[0]])
    settings = load(Settings)
"""


def program(code: str, endpoint: str, patch: bool = False, **environ: str) -> str:
    head = "from gevent import monkey; monkey.patch_all()\nimport gevent\n" if patch else ""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_SAMPLER_ARG": "1"} | environ
    return run(head + textwrap.dedent(PROGRAM) + textwrap.dedent(code), **environ)


class TestLibraries:
    """Outgoing calls are children of the server span, whatever order things are imported in."""

    def received(self, receiver, name="GET /work"):
        [server] = [span for span in receiver.spans if span.kind == "server"]
        assert server.name == name
        children = [span for span in receiver.spans if span.kind != "server"]
        assert all(child.trace_id == server.trace_id for child in children)
        return server, children

    def test_sqlalchemy(self, receiver):
        code = """
            traces.instrument_libraries(settings); traces.instrument_libraries(settings)
            from sqlalchemy import create_engine, text
            engine = create_engine("sqlite://")  # before tracing starts, as an app's module does
            traces.start(settings, "w1"); traces.start(settings, "w2")
            def work():
                with engine.connect() as connection: connection.execute(text("select 41 + 1"))
            request(work)
            traces.stop(5)
        """
        program(code, receiver.endpoint)
        server, children = self.received(receiver)
        [statement] = [span for span in children if span.attributes.get("db.query.text") == "select 41 + 1"]
        assert statement.kind == "client"
        assert statement.attributes["db.system.name"] == "sqlite"
        assert statement.parent_id == server.span_id
        assert statement.resource["service.instance.id"] == "w1"

    @pytest.mark.parametrize("patch", [False, True])
    def test_requests_and_urllib3_pass_the_context_on_and_are_not_doubled(self, receiver, patch):
        code = """
            traces.instrument_libraries(settings)
            import json, sys, threading, http.server
            assert not {"requests", "urllib3"} & set(sys.modules)
            seen = []
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    seen.append(self.headers.get_all("traceparent"))
                    self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
                def log_message(self, *_): pass
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            import requests, urllib3
            traces.start(settings, "w1")
            def work():
                requests.get(url + "/by-requests"); urllib3.PoolManager().request("GET", url + "/by-urllib3")
            request(work)
            traces.stop(5)
            print(json.dumps(seen))
        """
        seen = json.loads(program(code, receiver.endpoint, patch))
        server, children = self.received(receiver)
        assert sorted(child.attributes["url.full"].rsplit("/")[-1] for child in children) == [
            "by-requests",
            "by-urllib3",
        ]
        assert all(child.parent_id == server.span_id for child in children)
        by_path = sorted(children, key=lambda child: child.attributes["url.full"])
        assert seen == [[f"00-{child.trace_id}-{child.span_id}-01"] for child in by_path]

    def test_redis(self, receiver, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        redis_server = shutil.which("redis-server")
        assert redis_server, "install Debian's redis-server"
        options = ["--port", str(port), "--save", "", "--dir", str(tmp_path), "--bind", "127.0.0.1"]
        server = subprocess.Popen([redis_server, *options], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: listens(port))
            code = f"""
                import redis
                traces.instrument_libraries(settings)
                client = redis.Redis(port={port})
                traces.start(settings, "w1")
                request(lambda: client.set("key", "hunter2"))
                traces.stop(5)
            """
            program(textwrap.dedent(code), receiver.endpoint)
        finally:
            server.terminate()
            server.wait(10)
        span, children = self.received(receiver)
        [child] = [child for child in children if child.name == "SET"]
        assert child.parent_id == span.span_id
        assert "hunter2" not in str(child.attributes)

    def test_unsampled_requests_have_no_children_but_pass_the_flag_on(self, receiver):
        code = """
            traces.instrument_libraries(settings)
            from sqlalchemy import create_engine, text
            from opentelemetry import propagate, trace
            engine = create_engine("sqlite://")
            traces.start(settings, "w1")
            carrier = {}
            def work():
                with engine.connect() as connection: connection.execute(text("select 1"))
                with trace.get_tracer("app").start_as_current_span("own"): propagate.inject(carrier)
            begun = request(work)
            assert carrier["traceparent"].startswith(f"00-{begun.trace_id}-"), carrier
            assert carrier["traceparent"].endswith("-00"), carrier
            traces.stop(5)
        """
        program(code, receiver.endpoint, OTEL_TRACES_SAMPLER_ARG="0")
        assert receiver.spans == []

    def test_exports_are_not_traced_themselves(self, receiver):
        code = """
            import requests, time
            traces.instrument_libraries(settings)
            traces.start(settings, "w1")
            for n in range(1, 4):
                for _ in range(8): request(lambda: None)  # half of the queue: exported at once
                while counted("exported") < 8 * n: time.sleep(0.01)
            traces.stop(5)
        """
        program(code, receiver.endpoint, OBSERVABILITY_SPAN_QUEUE="16")
        assert receiver.requests >= 3
        assert [span.kind for span in receiver.spans] == ["server"] * 24

    def test_what_outlives_its_request_stays_in_its_trace(self, receiver):
        code = """
            import contextvars
            from opentelemetry import trace
            traces.start(settings, "w1")
            kept = []
            begun = request(lambda: kept.append(contextvars.copy_context()))
            with kept[0].run(trace.get_tracer("app").start_span, "later") as span:
                assert span.parent.span_id == int(begun.span_id, 16)
            assert not trace.get_current_span().get_span_context().is_valid
            traces.stop(5)
        """
        program(code, receiver.endpoint)
        server, [child] = self.received(receiver)
        assert (child.name, child.trace_id, child.parent_id) == ("later", server.trace_id, server.span_id)

    def test_a_processor_of_the_apps_sees_every_sampled_request_and_may_ask_for_its_span(self, receiver):
        code = """
            from opentelemetry import trace
            from opentelemetry.sdk.trace import SpanProcessor
            seen = []
            class Mine(SpanProcessor):
                def on_start(self, span, parent_context=None): trace.get_current_span()
                def on_end(self, span): seen.append(span.name)
            traces.start(settings, "w1")
            trace.get_tracer_provider().add_span_processor(Mine())
            request(lambda: None)
            request(trace.get_current_span)
            assert seen == ["GET /work"] * 2, seen
            failures = store.child(catalogue.HOOK_FAILURES, "trace"); failures.inc(0)
            assert failures.store.cells[failures.places[0]] == 0
            traces.stop(5)
        """
        program(code, receiver.endpoint)
        assert [span.name for span in receiver.spans] == ["GET /work"] * 2

    def test_the_apps_own_spans_are_children(self, receiver):
        code = """
            from opentelemetry import trace
            tracer = trace.get_tracer("app")  # before tracing starts, as an app's module does
            traces.start(settings, "w1")
            def work():
                with tracer.start_as_current_span("price"): pass
            request(work)
            traces.stop(5)
        """
        program(code, receiver.endpoint)
        server, [child] = self.received(receiver)
        assert (child.name, child.scope, child.parent_id) == ("price", "app", server.span_id)


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class TestGevent:
    def test_greenlets_have_their_own_spans(self, receiver):
        code = """
            from opentelemetry import trace
            traces.start(settings, "w1")
            def work():
                mine = trace.get_current_span(); gevent.sleep(0.01)
                assert trace.get_current_span() is mine
                trace.get_current_span().set_attribute("id", f"{mine.get_span_context().span_id:016x}")
            gevent.joinall([gevent.spawn(request, work) for _ in range(100)], raise_error=True)
            traces.stop(5)
            assert (counted("exported"), counted("dropped")) == (100, 0)
        """
        program(code, receiver.endpoint, patch=True)
        assert len(receiver.spans) == 100
        assert all(span.attributes["id"] == span.span_id for span in receiver.spans)

    @pytest.mark.parametrize("trouble", ["hang", "refused", "503"])
    def test_trouble_delays_no_greenlet_and_no_exit(self, receiver, trouble):
        receiver.retry_after = 60
        {"hang": receiver.hang, "refused": receiver.close, "503": lambda: setattr(receiver, "status", 503)}[trouble]()
        code = """
            import time
            traces.start(settings, "w1")
            longest = 0
            def ticks():
                global longest
                while True:
                    begun = time.monotonic(); gevent.sleep(0.01); longest = max(longest, time.monotonic() - begun)
            gevent.spawn(ticks)
            for n in range(300):
                request(lambda: None)
                if n % 10 == 0: gevent.sleep(0.005)
            gevent.sleep(0.3)
            begun = time.monotonic()
            traces.stop(0.5)
            assert time.monotonic() - begun < 2, time.monotonic() - begun
            assert longest < 1, longest
            assert (counted("exported"), counted("dropped")) == (0, 300)
        """
        program(code, receiver.endpoint, patch=True, OBSERVABILITY_SPAN_QUEUE="64", OBSERVABILITY_EXPORT_TIMEOUT="30")


def test_a_fork_without_hooks_hangs_nothing_and_sends_each_span_once(receiver):
    code = """
        import multiprocessing
        traces.start(settings, "w1")
        request(lambda: None)
        def child():
            for _ in range(3): request(lambda: None)
            traces.stop(5)
            assert (counted("exported"), counted("dropped")) == (3, 0)
        children = [multiprocessing.get_context("fork").Process(target=child) for _ in range(3)]
        for each in children: each.start()
        for each in children: each.join(20)
        assert [each.exitcode for each in children] == [0, 0, 0]
        traces.stop(5)
    """
    program(code, receiver.endpoint)
    assert len(receiver.spans) == 10
    assert len({span.span_id for span in receiver.spans}) == 10


def test_an_exit_without_stop_hangs_nothing(receiver):
    receiver.hang()
    code = """
        traces.start(settings, "w1")
        for _ in range(600): request(lambda: None)
    """
    begun = time.monotonic()
    program(code, receiver.endpoint, OBSERVABILITY_EXPORT_TIMEOUT="30")
    assert time.monotonic() - begun < 20
