"""An OTLP/HTTP receiver for tests: the real protocol, and the ways in which a real one fails."""

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came over the wire; ids are hexadecimal text."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    kind: str
    status: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    resource: dict[str, Any]
    scope: str


def decode(body: bytes) -> list[ReceivedSpan]:
    """Read an export request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        ReceivedSpan(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.trace_state,
            KINDS[span.kind],
            STATUSES[span.status.code],
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _attributes(span.attributes),
            [(event.name, _attributes(event.attributes)) for event in span.events],
            _attributes(by_resource.resource.attributes),
            by_scope.scope.name,
        )
        for by_resource in request.resource_spans
        for by_scope in by_resource.scope_spans
        for span in by_scope.spans
    ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        encoding = self.headers.get("Content-Encoding", "")
        body = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding, bytes)(body)
        if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
            self._answer(404, b"")
            return
        receiver.requests += 1
        receiver.delay()
        if receiver.status != 200:
            self._answer(receiver.status, b"")
            return
        spans = decode(body)
        rejected = min(receiver.reject, len(spans))
        receiver.add(spans[: len(spans) - rejected])
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = rejected
        self._answer(200, answer.SerializeToString())

    def _answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", str(self.server.receiver.retry_after))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the exporter has given up

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: "Receiver"


class Receiver:
    """Receives spans on a free loopback port.

    What it does may be changed while it runs: `status` (500, 503 with `retry_after`), `hang()`, `slow(seconds)`,
    `reject` (spans a request, as a partial success), and `ok()`.
    """

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.requests = 0
        self.retry_after = 1
        self._changed = threading.Condition()
        self._released = threading.Event()
        self.ok()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def ok(self) -> None:
        """Take everything at once, and release who hangs."""
        self.status, self.reject, self.seconds = 200, 0, 0.0
        self._released.set()

    def hang(self) -> None:
        """Accept connections, and never answer."""
        self._released.clear()

    def slow(self, seconds: float) -> None:
        """Answer each request after a time."""
        self.seconds = seconds

    def delay(self) -> None:
        """Wait as the present behaviour has it."""
        time.sleep(self.seconds)
        self._released.wait(60)

    def add(self, spans: list[ReceivedSpan]) -> None:
        """Keep what was received."""
        with self._changed:
            self.spans.extend(spans)
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[list[ReceivedSpan]], Any], timeout: float = 10.0) -> list[ReceivedSpan]:
        """Return the spans once the predicate holds for them.

        Raises:
            TimeoutError: it never did.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self.spans), timeout):
                raise TimeoutError(f"among {len(self.spans)} spans: {[span.name for span in self.spans][:50]}")
            return list(self.spans)

    def close(self) -> None:
        """Stop listening: from now on connections are refused."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
