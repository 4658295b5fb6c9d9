"""One request is one measurement, one span, one log line, whatever the protocol that brought it.

wsgi.py, asgi.py and aiohttp_app.py say when a request begins, what its response is, and when its last byte is sent;
all that is recorded of it is recorded here. Nothing here may fail a request: what goes wrong is counted.
"""

from __future__ import annotations  # the annotations of a function made in each request would cost a microsecond there

import asyncio
import bisect
import sys
import time
from typing import Any

from observability import catalogue, context, layout, logs, runtime, traces
from observability.queue_time import queue_seconds
from observability.store import STORE, HistogramRecorder, Store

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
KEY = "observability.request"  # marks what a server hands to the app: this request is measured already
LONGEST_LENGTH = 15  # digits of a Content-Length that is believed
# nginx's status for a client that left before there was a response; no server sends it
CLIENT_CLOSED_REQUEST = 499
_SCHEMES = frozenset({"http", "https"})
_BOUNDS = catalogue.DURATION_BUCKETS
_SIZES = catalogue.SIZE_BUCKETS


class Places:
    """Where one (method, route, status, scheme, error) is counted in the slot's values."""

    __slots__ = ("duration", "labels", "request_size", "response_size")

    def __init__(self, store: Store, labels: tuple[str, str, str, str, str]) -> None:
        def places(metric: catalogue.Metric, *values: str) -> list[int]:
            recorder: HistogramRecorder = store.child(metric, *values)
            return recorder.bind()

        self.labels = labels
        self.duration = places(catalogue.REQUEST_DURATION, *labels)
        self.request_size = places(catalogue.REQUEST_BODY_SIZE, *labels[:2])
        self.response_size = places(catalogue.RESPONSE_BODY_SIZE, *labels[:2])


class Meter:
    """What all requests of one instrumented app share: where they are counted.

    Args:
        store: where the numbers go.
    """

    def __init__(self, store: Store = STORE) -> None:
        self.store = store
        self.epoch: object = None
        self.owns_thread = True
        self._places: dict[tuple[str, str, str, str, str], Places] = {}

    def settle(self) -> None:
        """Settle in this process: at the first request, and again after a fork, when the epoch is another one."""
        runtime.begin_process(self.store)
        self.epoch = self.store.epoch
        self._places.clear()
        self.owns_thread = _owns_thread()

    def places(self, labels: tuple[str, str, str, str, str]) -> Places:
        """Return where a label set is counted; beyond the most label sets, the overflow's place."""
        found = self._places.get(labels)
        if found is None:
            found = Places(self.store, labels)
            if len(self._places) < self.store.max_label_sets:
                self._places[labels] = found
        return found


def _owns_thread() -> bool:
    """Tell whether a request has its thread to itself, so that the thread's CPU time is the request's.

    It has not where greenlets share one, nor on an event loop: the tornado worker calls a WSGI app on its own.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return False
    try:
        return asyncio.get_running_loop() is None
    except RuntimeError:
        return True


class Request(context.RequestContext):
    """One request, from the middleware's first line to the last byte of the body.

    Args:
        meter: what it is counted in.
        environ: what is known of it, under the names that CGI gave them and WSGI took over: REQUEST_METHOD,
            SERVER_PROTOCOL, REMOTE_ADDR, CONTENT_LENGTH, wsgi.url_scheme, and headers as HTTP_*. A WSGI environ as it
            is; for other protocols a dict of these few.
        path: the decoded path.
        ident: what runs it, as stacks name it; 0 for the present thread or greenlet.
    """

    __slots__ = (
        "complete",
        "cpu_start",
        "declared",
        "environ",
        "epoch",
        "error",
        "flight",
        "in_flight",
        "meter",
        "method",
        "path",
        "queued",
        "route",
        "sent",
        "start",
        "status",
        "trace",
    )

    def __init__(self, meter: Meter, environ: dict[str, Any], path: str, ident: int = 0) -> None:
        self.meter, self.environ, self.path = meter, environ, path
        self.status = self.sent = 0
        self.declared = 0
        self.route = ""
        self.complete = False
        self.error: BaseException | None = None
        method = environ["REQUEST_METHOD"]
        self.method = method if method in METHODS else "_OTHER"
        self.trace = trace = traces.begin(environ)
        super().__init__(trace.trace_id, trace.span_id, trace.trace_flags)
        header = environ.get("HTTP_X_REQUEST_START")
        self.queued = queue_seconds(header, time.time()) if header else None
        self.cpu_start = time.thread_time() if meter.owns_thread else 0.0
        store = meter.store
        self.start = time.monotonic()
        self.epoch = store.epoch
        self.flight = store.slot.flight.enter(self.method, path, self.trace_id, self.start, ident)
        with store.lock:
            cells = store.cells
            cells[layout.SEQUENCE] += 1.0
            cells[layout.ACTIVE] += 1.0
            cells[layout.STARTS] += self.start
            cells[layout.SEQUENCE] += 1.0
            self.in_flight = int(cells[layout.ACTIVE])

    def learn_route(self) -> None:
        """Take the route's template from the framework, where it tells; it stays empty where none matched."""

    def raised(self, error: BaseException) -> None:
        """Note what left the app: before the first byte of the body the server still answers 500 for it."""
        self.error = error
        if not self.sent:
            self.status = 500

    def error_type(self) -> str:
        """Name what failed; empty for a request that did not."""
        if self.error is not None:
            return type(self.error).__name__
        if not self.complete:
            return "client_disconnected"
        return str(self.status) if self.status >= 500 else ""

    def finish(self) -> None:
        """Record the request, once; called at its last byte, when its client has left, or when the app has raised."""
        meter, self.meter = self.meter, None  # type: ignore[assignment]
        if meter is None:
            return
        cpu = time.thread_time() - self.cpu_start if meter.owns_thread else None
        self.status = self.status or 500  # the app never began its response: the server answers for it
        try:
            self._record(meter, cpu)
        except Exception as error:
            runtime.failed("request", error)
        finally:
            if self.epoch is meter.store.epoch:  # not counted: then at least not in flight for ever
                with meter.store.lock:
                    self._leave(meter.store)
            self.environ.pop(KEY, None)  # it holds the environ in turn: no cycle for the collector

    def abandon(self) -> None:
        """Leave the request unrecorded: it turned out to be none."""
        meter, self.meter = self.meter, None  # type: ignore[assignment]
        if meter is not None and self.epoch is meter.store.epoch:
            with meter.store.lock:
                self._leave(meter.store)

    def _record(self, meter: Meter, cpu: float | None) -> None:
        route, error_type = self.route, self.error_type()
        failed = self.status >= 500 or self.error is not None
        scheme = self.environ.get("wsgi.url_scheme", "")
        scheme = scheme if scheme in _SCHEMES else "_OTHER"
        store = meter.store
        duration = time.monotonic() - self.start
        if self.epoch is store.epoch:  # else this is a forked child: the request is its parent's
            labels = (self.method, route, str(self.status), scheme, error_type)
            duration, bucket = self._count(store, meter.places(labels), failed)
            if self.queued is not None:
                store.child(catalogue.REQUEST_QUEUE).observe(self.queued)
            if self.trace.end(self, route, error_type, duration):
                ids = {"trace_id": self.trace_id, "span_id": self.span_id}
                store.exemplar(bucket, ids, duration)
        self._log(route, scheme, error_type, failed, duration, cpu)

    def _count(self, store: Store, places: Places, failed: bool) -> tuple[float, int]:
        """Change all of the request's numbers between two steps of the sequence; return its duration and bucket."""
        received = self.environ.get("CONTENT_LENGTH") or ""
        size = float(received) if received.isdecimal() and len(received) <= LONGEST_LENGTH else 0.0
        with store.lock:
            # Timed under the lock: a scrape has counted the request up to now, and may not find less in the end.
            duration = time.monotonic() - self.start
            bucket = places.duration[1 + bisect.bisect_left(_BOUNDS, duration)]
            cells = store.cells
            cells[layout.SEQUENCE] += 1.0
            self._leave(store)
            cells[layout.REQUESTS] += 1.0
            cells[layout.BUSY] += duration
            if failed:
                cells[layout.ERRORS] += 1.0
            cells[places.duration[0]] += duration
            cells[bucket] += 1.0
            cells[places.response_size[0]] += self.sent
            cells[places.response_size[1 + bisect.bisect_left(_SIZES, self.sent)]] += 1.0
            if size:
                cells[places.request_size[0]] += size
                cells[places.request_size[1 + bisect.bisect_left(_SIZES, size)]] += 1.0
            cells[layout.SEQUENCE] += 1.0
        return duration, bucket

    def _leave(self, store: Store) -> None:
        """Take the request out of those in flight, once."""
        self.epoch = None
        store.slot.flight.leave(self.flight)
        cells = store.cells
        cells[layout.ACTIVE] -= 1.0
        cells[layout.STARTS] -= self.start
        if not cells[layout.ACTIVE]:
            cells[layout.STARTS] = 0.0  # drops what rounding left

    def _log(self, route: str, scheme: str, error_type: str, failed: bool, duration: float, cpu: float | None) -> None:
        environ = self.environ
        fields: dict[str, Any] = {
            "http.request.method": self.method,
            "url.path": self.path,
            "http.route": route,
            "http.response.status_code": self.status,
            "duration_seconds": round(duration, 6),
            "url.scheme": scheme,
            "client.address": environ.get("REMOTE_ADDR", ""),
            "user_agent.original": environ.get("HTTP_USER_AGENT", ""),
            "http.response.body.size": self.sent,
            "in_flight": self.in_flight,
        }
        if self.queued is not None:
            fields["queue_seconds"] = round(self.queued, 6)
        if cpu is not None:
            fields["cpu_seconds"] = round(cpu, 6)
        if error_type:
            fields["error.type"] = error_type
        if self.method == "_OTHER":
            fields["http.request.method_original"] = environ["REQUEST_METHOD"]
        if self.fields:
            fields = {**self.fields, **fields}
        body = f"{self.method} {route or self.path} {self.status}"
        logs.emit("error" if failed else "info", "http.server.request", fields, self, body)
