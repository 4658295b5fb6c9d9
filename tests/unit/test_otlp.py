"""Export of spans: the bytes are those of OpenTelemetry's own encoder, and no receiver takes a worker with it."""

import base64
import contextlib
import email.utils
import gzip
import logging
import math
import os
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from observability import otlp_encoder
from observability.otlp import Sender
from observability.otlp_answer import rejected
from observability.otlp_encoder import Encoder
from observability.settings import Settings
from tests.otlp import decode

ROOT = Path(__file__).parents[2]
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
RESOURCES = [
    Resource({"service.name": "shop"}),
    Resource({"service.name": "shop"}),  # equal to the one before: one group
    Resource({"service.name": "shop"}, "https://opentelemetry.io/schemas/1.30.0"),
    Resource({}),
]
SCOPES = [
    None,
    InstrumentationScope("observability"),
    InstrumentationScope("lib", "1.2"),
    InstrumentationScope("lib", "1.2"),
    InstrumentationScope("lib", "1.2", "https://example.com/schema"),
    InstrumentationScope("lib", "1.2", attributes={"a": 1, "b": ["x", "y"]}),
]


def context(trace_id=7, span_id=8, remote=False, state=None):
    return SpanContext(trace_id, span_id, remote, SAMPLED, TraceState(state or []))


def span(**about):
    return ReadableSpan(
        **{
            "name": "GET /todos/<id>",
            "context": context(),
            "kind": SpanKind.SERVER,
            "resource": RESOURCES[0],
            "instrumentation_scope": SCOPES[1],
            "start_time": 1_700_000_000_000_000_000,
            "end_time": 1_700_000_000_250_000_000,
        }
        | about
    )


def parsed(spans, encoder=None):
    body, count = (encoder or Encoder()).encode(spans)
    message = ExportTraceServiceRequest.FromString(body)
    assert sum(len(scope.spans) for each in message.resource_spans for scope in each.scope_spans) == count
    return message


def assert_same(spans, encoder=None):
    """Hold that ours is the library's; as bytes in one order, since NaN is not itself."""
    ours, theirs = parsed(spans, encoder), encode_spans(spans)
    if ours.SerializeToString(deterministic=True) != theirs.SerializeToString(deterministic=True):
        assert str(ours) == str(theirs)
        raise AssertionError("they differ in what has no text")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["x" * 127, "é" * 300, "GET"])
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 127, 128, 200, 1023, 1024, 16384])
plain_values = st.none() | st.booleans() | texts | integers | st.floats() | st.binary(max_size=9)
values = st.recursive(
    plain_values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(texts, values, max_size=6)
any_attributes = st.none() | mappings | mappings.map(lambda given: BoundedAttributes(4, given))
times = st.none() | st.integers(0, 2**64 - 1)
contexts = st.builds(
    context,
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.sampled_from([None, [("a", "1"), ("b@c", "2")]]),
)
spans = st.builds(
    ReadableSpan,
    name=texts,
    context=contexts,
    parent=st.none() | contexts,
    resource=st.sampled_from(RESOURCES),
    attributes=any_attributes,
    events=st.lists(st.builds(Event, texts, mappings, st.integers(0, 2**64 - 1)), max_size=2),
    links=st.lists(st.builds(Link, contexts, any_attributes), max_size=2),
    kind=st.sampled_from(SpanKind),
    status=st.builds(Status, st.sampled_from(StatusCode)) | texts.map(lambda text: Status(StatusCode.ERROR, text)),
    start_time=times,
    end_time=times,
    instrumentation_scope=st.sampled_from(SCOPES),
)


class TestEncoder:
    def test_a_servers_span_is_the_librarys(self):
        attributes = {"http.request.method": "GET", "http.response.status_code": 200, "url.path": "/todos/7"}
        caller = context(span_id=9, remote=True)
        assert_same([span(attributes=attributes, parent=caller), span(attributes=attributes), span()])

    @given(st.lists(spans, max_size=6))
    def test_whatever_spans_hold_it_is_the_librarys(self, batch):
        encoder = Encoder()
        assert_same(batch, encoder)
        assert_same(batch, encoder)  # now from what it kept

    def test_what_a_tracer_makes_is_the_librarys(self):
        made = []
        limits = SpanLimits(max_attributes=2, max_events=2, max_links=1, max_event_attributes=1, max_link_attributes=1)
        provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
        links = [Link(context(3, 4, remote=True), {"a": 1, "b": 2}), Link(context(5, 6))]
        tracer = provider.get_tracer("lib", "1.0")
        with tracer.start_as_current_span("outer", links=links, attributes={"a": 1, "b": "x", "c": [1, 2]}) as outer:
            with tracer.start_as_current_span("inner", kind=SpanKind.CLIENT) as inner:
                made.append(inner)
            for number in range(3):
                outer.add_event(f"event {number}", {"a": number, "b": True})
            outer.set_status(StatusCode.ERROR, "it failed")
            made.append(outer)
        assert (outer.dropped_attributes, outer.dropped_events, outer.dropped_links) == (1, 1, 1)
        assert_same(made)

    def test_values_that_are_equal_in_python_stay_apart(self):
        encoder = Encoder()
        for value in (1, True, 1.0, "1", b"1", 1, 0, False, 0.0, -0.0, math.nan, (1,), (True,), [1.0]):
            assert_same([span(attributes={"key": value})], encoder)

    def test_a_light_class_of_the_same_attributes_will_do(self):
        names = [name for name in dir(ReadableSpan) if not name.startswith("_") and name != "instrumentation_info"]
        original = span(attributes={"a": "b"}, parent=context(remote=True))
        light = type("Light", (), {name: getattr(original, name) for name in names})()
        light.attributes, light.events, light.links = {"a": "b"}, (), ()
        assert parsed([light]) == encode_spans([original])
        light.attributes = None
        assert parsed([light]) == encode_spans([span(parent=context(remote=True))])

    def test_an_empty_batch_is_an_empty_message(self):
        assert Encoder().encode([]) == (b"", 0)

    def test_what_is_kept_is_bounded(self):
        encoder = Encoder()
        for begin in range(0, 5000, 500):
            numbers = range(begin, begin + 500)
            batch = [
                span(
                    name=f"GET /{number}",
                    attributes={f"key {number}": f"value {number}", "number": number, "long": f"{number}" * 200},
                    resource=Resource({"service.name": f"{number}"}) if number % 10 == 0 else RESOURCES[0],
                    instrumentation_scope=InstrumentationScope(f"{number}") if number % 10 == 0 else SCOPES[1],
                )
                for number in numbers
            ]
            assert_same(batch, encoder)
        kept = [value for value in vars(encoder).values() if isinstance(value, dict)]
        assert len(kept) >= 4
        assert all(0 < len(each) <= otlp_encoder.MOST_KEPT for each in kept)
        kept_bytes = [value for each in kept for value in each.values() if isinstance(value, bytes)]
        assert max(map(len, kept_bytes)) <= otlp_encoder.LONGEST_KEPT


class Unprintable:
    def __repr__(self):
        raise RuntimeError


class Broken(Mapping):
    def __getitem__(self, key):
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError

    def __len__(self):
        return 1


LOOP: list[object] = ["x"]
LOOP += [LOOP, LOOP]
DEEP: list[object] = []
for _ in range(2000):
    DEEP = [DEEP]


class TestHostileSpans:
    """The library would lose the attribute, or the whole batch."""

    def sent(self, batch):
        return decode(Encoder().encode(batch)[0])

    def test_lone_surrogates_are_shown_wherever_they_are(self):
        bad = "a\ud800b"
        shown = r"a\ud800b"
        [sent] = self.sent(
            [
                span(
                    name=bad,
                    attributes={bad: bad, "list": [bad]},
                    events=[Event(bad, {bad: bad}, 5)],
                    status=Status(StatusCode.ERROR, bad),
                    resource=Resource({"service.name": bad}),
                    instrumentation_scope=InstrumentationScope(bad),
                )
            ]
        )
        assert (sent.name, sent.scope, sent.resource["service.name"]) == (shown, shown, shown)
        assert sent.attributes == {shown: shown, "list": [shown]}
        assert sent.events == [(shown, {shown: shown})]

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (2**63, "<integer of 64 bits>"),
            (-(2**63) - 1, "<integer of 64 bits>"),
            (10**5000, "<integer of 16610 bits>"),
            ([1, 2**70], [1, "<integer of 71 bits>"]),
            (ConnectionError("postgresql://u:hunter2@db"), "postgresql://u:***@db"),
            (Unprintable(), "<unprintable Unprintable: RuntimeError>"),
            (Broken(), "<unprintable Broken: RuntimeError>"),
            (LOOP, ["x", "<nested too deep>", "<nested too deep>"]),
        ],
        ids=["large", "small", "huge", "inside", "object", "unprintable", "broken", "loop"],
    )
    def test_a_value_without_a_place_is_shown(self, value, shown):
        [sent] = self.sent([span(attributes={"before": 1, "value": value, "after": 2})])
        assert sent.attributes == {"before": 1, "value": shown, "after": 2}

    def test_nesting_ends_somewhere(self):
        [sent] = self.sent([span(attributes={"deep": DEEP, "after": 2})])
        assert "nested too deep" in str(sent.attributes["deep"])
        assert sent.attributes["after"] == 2

    def test_numbers_that_do_not_fit_cost_only_themselves(self):
        batch = [
            span(start_time=-1, end_time=2**64),
            span(context=context(2**128 + 5, 2**64 + 6), parent=context(1, 2**64 + 7)),
            span(events=[Event("e", {}, 2**70)]),
        ]
        first, second, third = self.sent(batch)
        assert (first.start_ns, first.end_ns) == (0, 0)
        assert (int(second.trace_id, 16), int(second.span_id, 16), int(second.parent_id, 16)) == (5, 6, 7)
        assert third.events == [("e", {})]

    @pytest.mark.parametrize(
        "broken",
        [object(), span(attributes=Broken()), span(context=None), span(resource=object())],
        ids=["object", "attributes", "context", "resource"],
    )
    def test_a_span_that_cannot_be_read_is_left_out_alone(self, broken):
        body, count = Encoder().encode([span(name="before"), broken, span(name="after")])
        assert count == 2
        assert [each.name for each in decode(body)] == ["before", "after"]


class TestAnswer:
    @given(st.integers(0, 2**63 - 1), texts)
    def test_a_partial_success_is_read_as_the_library_does(self, count, why):
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = count
        answer.partial_success.error_message = why
        body = answer.SerializeToString()
        assert rejected(body) == (count, why)
        assert rejected(body + b"\x7a\x02ab" + b"\x71" + b"8 bytes." + b"\x75" + b"four") == (count, why)  # unknown yet
        for size in range(1, len(body)):
            with pytest.raises(ValueError):  # noqa: PT011 - which one says nothing here
                rejected(body[:size])

    def test_nothing_and_an_empty_message_reject_nothing(self):
        assert rejected(b"") == rejected(b"\x0a\x00") == (0, "")

    def test_less_than_none_is_none(self):
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = -5
        assert rejected(answer.SerializeToString()) == (0, "")

    @given(st.binary())
    def test_nonsense_raises_nothing_but_what_it_says(self, body):
        with contextlib.suppress(ValueError):
            count, why = rejected(body)
            assert (count >= 0, type(why)) == (True, str)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def setup(self):
        super().setup()
        self.server.scripted.connections += 1

    def do_POST(self):
        scripted = self.server.scripted
        body = self.rfile.read(int(self.headers["Content-Length"]))
        scripted.requests.append((self.path, self.headers, body))
        scripted.asked.set()
        answer = scripted.answers.pop(0) if scripted.answers else (200, {}, b"")
        if callable(answer):
            self.close_connection = True
            answer(self)
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_CONNECT(self):
        self.server.scripted.requests.append((self.path, self.headers, b""))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            threading.Thread(target=self._relay, args=(far, self.connection), daemon=True).start()
            self._relay(self.connection, far)
        self.close_connection = True

    def _relay(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    scripted: "Scripted"

    def handle_error(self, request, client_address):
        pass  # a sender that trusts us not


class Scripted:
    """A receiver that answers as the test has it, and then takes everything."""

    def __init__(self) -> None:
        self.answers: list = []
        self.requests: list = []
        self.connections = 0
        self.asked = threading.Event()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.scripted = self
        self.port = self.server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def names(self):
        return [each.name for _, _, body in self.requests for each in decode(body)]


@pytest.fixture
def scripted(monkeypatch) -> Iterator[Scripted]:
    with running() as receiver:
        yield receiver


@contextlib.contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    receiver = Scripted()
    if tls is not None:
        receiver.server.socket = tls.wrap_socket(receiver.server.socket, server_side=True)
        receiver.endpoint = f"https://127.0.0.1:{receiver.port}"
    threading.Thread(target=receiver.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


def sender(endpoint: str, timeout: float = 10.0) -> Sender:
    return Sender(Settings(otlp_endpoint=endpoint, export_timeout=timeout))


AT_ONCE = {"Retry-After": "0"}
BATCH = [span(), span(), span()]


def short(handler):
    """Close in the middle of a body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(b"\x0a")


def silent(handler):
    """Close without a word."""


def gibberish(handler):
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")


def hanging(handler):
    time.sleep(20)


def chunked(handler):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 1
    body = answer.SerializeToString()
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for byte in body:
        handler.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


class TestSender:
    def test_a_batch_arrives_by_one_kept_connection(self, scripted):
        client = sender(scripted.endpoint + "/base/")
        assert [client.send(BATCH) for _ in range(3)] == [3, 3, 3]
        assert scripted.connections == 1
        path, headers, body = scripted.requests[0]
        assert (path, headers["Content-Type"]) == ("/base/v1/traces", "application/x-protobuf")
        assert headers["Host"] == f"127.0.0.1:{scripted.port}"
        assert len(decode(body)) == 3
        assert client.send([]) == 0
        assert len(scripted.requests) == 3

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_passing_trouble_is_tried_again(self, scripted, status):
        scripted.answers = [(status, AT_ONCE, b"later"), (status, AT_ONCE, b"later")]
        assert sender(scripted.endpoint).send(BATCH) == 3
        assert len(scripted.requests) == 3

    @pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500, 501])
    def test_other_trouble_is_not(self, scripted, status, caplog):
        scripted.answers = [(status, {"Retry-After": "0", "Location": scripted.endpoint}, b"x" * 1_000_000)]
        client = sender(scripted.endpoint)
        assert client.send(BATCH) == 0
        assert f"the receiver answers {status}" in caplog.text
        assert len(scripted.requests) == 1
        assert client.send(BATCH) == 3

    @pytest.mark.parametrize("answer", [short, silent, gibberish])
    def test_an_answer_that_breaks_off_is_asked_for_again(self, scripted, answer):
        scripted.answers = [answer]
        assert sender(scripted.endpoint).send(BATCH) == 3
        assert len(scripted.requests) == 2

    def test_a_kept_connection_that_the_receiver_closed_is_replaced_at_once(self, scripted):
        client = sender(scripted.endpoint, timeout=0.5)  # no time for a wait
        assert client.send(BATCH) == 3
        scripted.answers = [silent]
        assert client.send(BATCH) == 3
        assert scripted.connections == 2

    def test_tries_are_bounded(self, scripted):
        scripted.answers = [(503, AT_ONCE, b"")] * 100
        assert sender(scripted.endpoint).send(BATCH) == 0
        assert len(scripted.requests) == 6

    @pytest.mark.parametrize("after", ["60", "60.5", "in an hour"])
    def test_a_wait_beyond_the_deadline_is_not_begun(self, scripted, after):
        if after == "in an hour":
            after = email.utils.formatdate(time.time() + 3600, usegmt=True)
        scripted.answers = [(503, {"Retry-After": after}, b"")]
        begun = time.monotonic()
        assert sender(scripted.endpoint, timeout=30).send(BATCH) == 0
        assert time.monotonic() - begun < 10
        assert len(scripted.requests) == 1

    @pytest.mark.parametrize("after", ["nonsense", "inf", "-1", "", email.utils.formatdate(0, usegmt=True)])
    def test_retry_after_that_says_nothing_useful_stops_nothing(self, scripted, after):
        scripted.answers = [(503, {"Retry-After": after}, b"")]
        assert sender(scripted.endpoint).send(BATCH) == 3

    def test_the_timeout_holds_for_a_receiver_that_hangs(self, scripted, caplog):
        scripted.answers = [hanging] * 10
        begun = time.monotonic()
        assert sender(scripted.endpoint, timeout=0.5).send(BATCH) == 0
        assert time.monotonic() - begun < 5
        assert "timed out" in caplog.text
        assert len(scripted.requests) == 1

    def test_a_refused_connection_is_said(self, caplog):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert sender(f"http://127.0.0.1:{port}", timeout=0.5).send(BATCH) == 0
        assert "refused" in caplog.text

    @pytest.mark.parametrize("endpoint", ["http://127.0.0.1:99999", "http:", "http://[::1", "http://x y/"])
    def test_an_endpoint_that_is_none_is_said(self, endpoint, caplog):
        assert sender(endpoint, timeout=0.5).send(BATCH) == 0
        assert "spans cannot be exported" in caplog.text

    def test_close_cuts_a_wait_short(self, scripted):
        scripted.answers = [(503, {"Retry-After": "50"}, b"")]
        client = sender(scripted.endpoint, timeout=60)
        taken = []
        thread = threading.Thread(target=lambda: taken.append(client.send(BATCH)))
        thread.start()
        assert scripted.asked.wait(10)
        time.sleep(0.2)  # until it waits
        client.close()
        thread.join(10)
        assert taken == [0]
        client.close()  # again, without complaint

    def test_a_partial_success_is_counted(self, scripted):
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 2
        scripted.answers = [(200, {}, answer.SerializeToString()), chunked]
        client = sender(scripted.endpoint)
        assert [client.send(BATCH), client.send(BATCH)] == [1, 2]

    def test_why_all_are_rejected_is_said(self, scripted, caplog):
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 99
        answer.partial_success.error_message = "over quota"
        scripted.answers = [(200, {}, answer.SerializeToString())]
        assert sender(scripted.endpoint).send(BATCH) == 0
        assert "over quota" in caplog.text

    def test_an_answer_that_is_no_otlp_takes_nothing(self, scripted, caplog):
        scripted.answers = [(200, {}, b"<html>Welcome!</html>")]
        assert sender(scripted.endpoint).send(BATCH) == 0
        assert "no OTLP" in caplog.text

    def test_trouble_is_said_once_and_so_is_its_end(self, scripted, caplog):
        caplog.set_level(logging.INFO)
        scripted.answers = [(400, {}, b""), (500, {}, b"")]
        client = sender(scripted.endpoint)
        assert [client.send(BATCH) for _ in range(4)] == [0, 0, 3, 3]
        first, second = (record.getMessage() for record in caplog.records)
        assert first == "spans cannot be exported, and are dropped: the receiver answers 400 Bad Request"
        assert second == "spans are exported again"

    def test_what_cannot_be_encoded_costs_only_itself(self, scripted):
        assert sender(scripted.endpoint).send([span(), object(), span()]) == 2
        assert len(scripted.names()) == 2


class TestEnvironment:
    """OpenTelemetry's variables, as its own exporter reads them."""

    @pytest.mark.parametrize(("name", "decompress"), [("gzip", gzip.decompress), ("DEFLATE", zlib.decompress)])
    def test_compression(self, scripted, monkeypatch, name, decompress):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", name)
        assert sender(scripted.endpoint).send(BATCH) == 3
        [(_, headers, body)] = scripted.requests
        assert headers["Content-Encoding"] == name.lower()
        assert len(decode(decompress(body))) == 3

    def test_the_variable_for_traces_wins(self, scripted, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-a=all")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-b=traces")
        assert sender(scripted.endpoint).send(BATCH) == 3
        [(_, headers, _)] = scripted.requests
        assert (headers["Content-Encoding"], headers["X-A"], headers["X-B"]) == (None, None, "traces")

    def test_an_unknown_compression_is_said_and_left_out(self, scripted, monkeypatch, caplog):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
        assert sender(scripted.endpoint).send(BATCH) == 3
        assert "brotli" in caplog.text

    def test_headers(self, scripted, monkeypatch, caplog):
        given = "Authorization=Bearer%20a%3Db, api-key = k1 ,plain=a b,user-agent=mine,evil=hunter2%0d%0aX-Smuggled:1"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", given)
        assert sender(scripted.endpoint).send(BATCH) == 3
        [(_, headers, _)] = scripted.requests
        assert headers["Authorization"] == "Bearer a=b"
        assert (headers["Api-Key"], headers["Plain"], headers["User-Agent"]) == ("k1", "a b", "mine")
        assert (headers["Evil"], headers["X-Smuggled"]) == (None, None)
        assert "evil" in caplog.text
        assert "hunter2" not in caplog.text

    def test_a_user_in_the_endpoint_becomes_basic_authentication(self, scripted):
        endpoint = f"http://us%40er:hunter2@127.0.0.1:{scripted.port}"
        assert sender(endpoint).send(BATCH) == 3
        [(path, headers, _)] = scripted.requests
        assert headers["Authorization"] == "Basic " + base64.b64encode(b"us@er:hunter2").decode()
        assert path == "/v1/traces"

    def test_a_proxy_is_asked_unless_it_is_to_be_left_out(self, scripted, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://u:p@127.0.0.1:{scripted.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert sender("http://collector.example:4318").send(BATCH) == 3
        [(path, headers, _)] = scripted.requests
        assert (path, headers["Host"]) == ("http://collector.example:4318/v1/traces", "collector.example:4318")
        assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
        with running() as direct:
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert sender(direct.endpoint).send(BATCH) == 3
            assert [path for path, _, _ in direct.requests] == ["/v1/traces"]

    def test_certificates(self, certificate, monkeypatch, caplog):
        cert, key = certificate
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(cert, key)
        tls.load_verify_locations(cert)
        tls.verify_mode = ssl.CERT_REQUIRED
        with running(tls) as receiver:
            assert sender(receiver.endpoint, timeout=0.8).send(BATCH) == 0
            assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", cert)
            assert sender(receiver.endpoint, timeout=0.8).send(BATCH) == 0  # it wants one of us, too
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", cert)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", key)
            client = sender(receiver.endpoint)
            assert [client.send(BATCH), client.send(BATCH)] == [3, 3]

    def test_https_goes_through_a_proxys_tunnel(self, certificate, scripted, monkeypatch):
        cert, key = certificate
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(cert, key)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", cert)
        monkeypatch.setenv("https_proxy", f"http://u:p@127.0.0.1:{scripted.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with running(tls) as receiver:
            client = sender(receiver.endpoint)
            assert [client.send(BATCH), client.send(BATCH)] == [3, 3]
            client.close()
            [(target, headers, _)] = scripted.requests
            assert target == f"127.0.0.1:{receiver.port}"
            assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
            assert [path for path, _, _ in receiver.requests] == ["/v1/traces"] * 2
            assert not [each for _, each, _ in receiver.requests if "Proxy-Authorization" in each]

    def test_tls_works_under_gevent(self, certificate):
        cert, key = certificate
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(cert, key)
        code = """
            from gevent import monkey; monkey.patch_all()
            import sys, gevent
            from observability.otlp import Sender
            from observability.settings import Settings
            from tests.unit.test_otlp import BATCH
            client = Sender(Settings(otlp_endpoint=sys.argv[1]))
            assert gevent.spawn(client.send, BATCH).get() == 3
        """
        with running(tls) as receiver:
            subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code), receiver.endpoint],
                cwd=ROOT,
                env={**os.environ, "OTEL_EXPORTER_OTLP_CERTIFICATE": cert},
                check=True,
                timeout=60,
            )
            assert len(receiver.names()) == 3

    def test_a_certificate_that_is_missing_is_said(self, monkeypatch, caplog):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
        assert sender("https://127.0.0.1:1", timeout=0.5).send(BATCH) == 0
        assert "No such file" in caplog.text


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Make a certificate that is its own authority, for 127.0.0.1, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    assert openssl, "install Debian's openssl"
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    about = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [openssl, "req", "-x509", *kind, "-keyout", key, "-out", cert, *about], check=True, capture_output=True
    )
    return cert, key


def test_a_worker_loads_neither_an_http_client_nor_protobuf(scripted):
    code = f"""
import sys
from observability.otlp import Sender
from observability.settings import Settings
Sender(Settings(otlp_endpoint={scripted.endpoint!r})).send([object()])
dear = {{"requests", "urllib3", "google.protobuf", "opentelemetry.exporter", "opentelemetry.proto"}}
loaded = dear & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
