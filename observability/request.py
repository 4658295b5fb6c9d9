"""One request is one measurement, one span, one log line, whatever the protocol that brought it.

wsgi.py, asgi.py and aiohttp_app.py say when a request begins, what its response is, and when its last byte is sent;
all that is recorded of it is recorded here. Nothing here may fail a request: what goes wrong is counted.
"""

from __future__ import annotations  # the annotations of a function made in each request would cost a microsecond there

import asyncio
import bisect
import sys
import time
from math import inf
from typing import Any

from observability import catalogue, layout, request_lines, runtime, traces
from observability.queue_time import queue_seconds
from observability.store import STORE, HistogramRecorder, Store

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
KEY = "observability.request"  # marks what a server hands to the app: this request is measured already
LONGEST_LENGTH = 15  # digits of a Content-Length that is believed
# nginx's status for a client that left before there was a response; no server sends it
CLIENT_CLOSED_REQUEST = 499
# A scrape takes one exemplar a bucket, and comes every few seconds: more would be written for nobody.
_EXEMPLAR_SECONDS = 1.0
_SCHEMES = frozenset({"http", "https"})
_BOUNDS = catalogue.DURATION_BUCKETS
_SIZES = catalogue.SIZE_BUCKETS


class Kind:
    """What all requests of one (method, route, status, scheme, error) share.

    Args:
        store: where the numbers go.
        labels: these five.
    """

    __slots__ = ("_shown", "_store", "duration", "line", "request_size", "response_size")

    def __init__(self, store: Store, labels: tuple[str, str, int, str, str]) -> None:
        def places(metric: catalogue.Metric, *values: str) -> list[int]:
            recorder: HistogramRecorder = store.child(metric, *values)
            return recorder.bind()

        method, route, status, scheme, error_type = labels
        self.duration = places(catalogue.REQUEST_DURATION, method, route, str(status), scheme, error_type)
        self.request_size = places(catalogue.REQUEST_BODY_SIZE, method, route)
        self.response_size = places(catalogue.RESPONSE_BODY_SIZE, method, route)
        self._store = store
        self._shown: dict[int, float] = {}
        self.line = request_lines.Line(scheme, error_type, bool(route) and not error_type and method != "_OTHER")

    def show(self, request: Request, bucket: int, duration: float) -> None:
        """Make a request the exemplar of its bucket, if the one before is old enough."""
        now = request.start + duration
        if now - self._shown.get(bucket, -inf) >= _EXEMPLAR_SECONDS:
            self._shown[bucket] = now
            ids = {"trace_id": request.trace_id, "span_id": request.span_id}
            self._store.exemplar(bucket, ids, duration)


class Meter:
    """What all requests of one instrumented app share: where they are counted.

    Args:
        store: where the numbers go.
    """

    def __init__(self, store: Store = STORE) -> None:
        self.store = store
        self.epoch: object = None
        self.owns_thread = True
        self.closes = False
        self._kinds: dict[tuple[str, str, int, str, str], Kind] = {}

    def settle(self) -> None:
        """Settle in this process: at the first request, and again after a fork, when the epoch is another one."""
        runtime.begin_process(self.store)
        self.epoch = self.store.epoch
        self._kinds.clear()
        self.owns_thread = _owns_thread()
        self.closes = not self.store.claims_lazily  # gunicorn's workers close each body where they began its request

    def kind(self, labels: tuple[str, str, int, str, str]) -> Kind:
        """Return what requests of these labels share; beyond the most label sets, they count in the overflow's."""
        found = self._kinds.get(labels)
        if found is None:
            found = Kind(self.store, labels)
            if len(self._kinds) < self.store.max_label_sets:
                self._kinds[labels] = found
            else:
                found.line.plain = False  # a text that is thrown away is not worth making
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


class Request(traces.TracedRequest):
    """One request, from the middleware's first line to the last byte of the body.

    Args:
        meter: what it is counted in.
        environ: what is known of it, under the names that CGI gave them and WSGI took over: REQUEST_METHOD,
            SERVER_PROTOCOL, REMOTE_ADDR, CONTENT_LENGTH, wsgi.url_scheme, and headers as HTTP_*. A WSGI environ as it
            is; for other protocols a dict of these few.
        path: the decoded path.
        ident: what runs it, as stacks name it; 0 for the present thread or greenlet.
    """

    __slots__ = ("complete", "cpu_start", "epoch", "flight", "in_flight", "meter", "queued", "route", "sent")

    def __init__(self, meter: Meter, environ: dict[str, Any], path: str, ident: int = 0) -> None:
        self.meter, self.environ, self.path = meter, environ, path
        self.status = self.sent = 0
        self.route = ""
        self.complete = False
        self.error = None
        self.fields = {}
        method = environ["REQUEST_METHOD"]
        self.method = method if method in METHODS else "_OTHER"
        traces.begin(self, environ)
        header = environ.get("HTTP_X_REQUEST_START")
        self.queued = queue_seconds(header, time.time()) if header else None
        self.cpu_start = time.thread_time() if meter.owns_thread else 0.0
        store = meter.store
        self.epoch: object = store.epoch
        self.start = start = time.monotonic()
        self.flight = store.slot.flight.enter(self.method, path, self.trace_id, start, ident)
        with store.lock:
            cells = store.cells
            # The starts first: a reader that comes between the two finds too little request time, and never too much.
            cells[layout.STARTS] += start
            cells[layout.ACTIVE] = active = cells[layout.ACTIVE] + 1.0
        self.in_flight = int(active)

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
            self.environ.pop(KEY, None)

    def abandon(self) -> None:
        """Leave the request unrecorded: it turned out to be none."""
        meter, self.meter = self.meter, None  # type: ignore[assignment]
        if meter is not None and self.epoch is meter.store.epoch:
            with meter.store.lock:
                self._leave(meter.store)

    def _record(self, meter: Meter, cpu: float | None) -> None:
        error_type = self.error_type()
        scheme = self.environ.get("wsgi.url_scheme", "")
        scheme = scheme if scheme in _SCHEMES else "_OTHER"
        store = meter.store
        if self.epoch is store.epoch:
            kind = meter.kind((self.method, self.route, self.status, scheme, error_type))
            duration, bucket = self._count(store, kind)
            if self.queued is not None:
                store.child(catalogue.REQUEST_QUEUE).observe(self.queued)
            if traces.end(self, self.route, error_type, duration):
                kind.show(self, bucket, duration)
            kind.line.write(self, duration, cpu)
        else:  # this is a forked child: the request is its parent's
            request_lines.write(self, scheme, error_type, time.monotonic() - self.start, cpu)

    def _count(self, store: Store, kind: Kind) -> tuple[float, int]:
        """Change all of the request's numbers between two steps of the sequence; return its duration and bucket."""
        received = self.environ.get("CONTENT_LENGTH")
        sent = self.sent
        sums, sizes = kind.duration, kind.response_size
        size_bucket = sizes[1 + bisect.bisect_left(_SIZES, sent)]
        with store.lock:
            # Timed under the lock: a scrape has counted the request up to now, and may not find less in the end.
            duration = time.monotonic() - self.start
            bucket = sums[1 + bisect.bisect_left(_BOUNDS, duration)]
            cells = store.cells
            sequence = cells[layout.SEQUENCE]
            cells[layout.SEQUENCE] = sequence + 1.0
            self.epoch = None
            store.slot.flight.leave(self.flight)
            cells[layout.ACTIVE] = active = cells[layout.ACTIVE] - 1.0
            cells[layout.STARTS] = cells[layout.STARTS] - self.start if active else 0.0  # drops what rounding left
            cells[layout.REQUESTS] += 1.0
            cells[layout.BUSY] += duration
            if self.status >= 500 or self.error is not None:
                cells[layout.ERRORS] += 1.0
            cells[sums[0]] += duration
            cells[bucket] += 1.0
            cells[sizes[0]] += sent
            cells[size_bucket] += 1.0
            if received:
                self._count_received(cells, kind, received)
            cells[layout.SEQUENCE] = sequence + 2.0
        return duration, bucket

    def _count_received(self, cells: Any, kind: Kind, received: str) -> None:
        size = float(received) if received.isdecimal() and len(received) <= LONGEST_LENGTH else 0.0
        if size:
            cells[kind.request_size[0]] += size
            cells[kind.request_size[1 + bisect.bisect_left(_SIZES, size)]] += 1.0

    def _leave(self, store: Store) -> None:
        """Take the request out of those in flight, once."""
        self.epoch = None
        store.slot.flight.leave(self.flight)
        cells = store.cells
        cells[layout.ACTIVE] -= 1.0
        cells[layout.STARTS] -= self.start
        if not cells[layout.ACTIVE]:
            cells[layout.STARTS] = 0.0  # drops what rounding left
