"""One request is one measurement, one span, one log line: the middleware around a WSGI application.

It works under every worker class, since it uses nothing of the server. Nothing in it may fail a request: what goes
wrong with the telemetry is counted, and the application answers as if it were not there.
"""

from __future__ import annotations  # the annotations of a function made in each request would cost a microsecond there

import bisect
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from observability import catalogue, context, layout, logs, runtime, traces
from observability.queue_time import queue_seconds
from observability.store import STORE, HistogramRecorder, Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_SCHEMES = frozenset({"http", "https"})
_KEY = "observability.request"
_BOUNDS = catalogue.DURATION_BUCKETS
_SIZES = catalogue.SIZE_BUCKETS
_LONGEST_LENGTH = 15  # digits of a Content-Length that is believed


class _Places:
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


class Request(context.RequestContext):
    """One request, from the middleware's first line to the last byte of the body."""

    __slots__ = (
        "complete",
        "cpu_start",
        "declared",
        "environ",
        "epoch",
        "error",
        "flight",
        "in_flight",
        "method",
        "middleware",
        "path",
        "queued",
        "route",
        "sent",
        "start",
        "status",
        "trace",
    )

    def __init__(self, middleware: Middleware, environ: WSGIEnvironment) -> None:
        self.middleware, self.environ = middleware, environ
        self.status = self.sent = 0
        self.declared = 0
        self.route = ""
        self.complete = False
        self.error: BaseException | None = None
        method = environ["REQUEST_METHOD"]
        self.method = method if method in METHODS else "_OTHER"
        self.path = _decoded(environ.get("PATH_INFO", ""))
        self.trace = trace = traces.begin(environ)
        super().__init__(trace.trace_id, trace.span_id, trace.trace_flags)
        header = environ.get("HTTP_X_REQUEST_START")
        self.queued = queue_seconds(header, time.time()) if header else None
        self.cpu_start = time.thread_time() if middleware.owns_thread else 0.0
        store = middleware.store
        self.start = time.monotonic()
        self.epoch = store.epoch
        self.flight = store.slot.flight.enter(self.method, self.path, self.trace_id, self.start)
        with store.lock:
            cells = store.cells
            cells[layout.SEQUENCE] += 1.0
            cells[layout.ACTIVE] += 1.0
            cells[layout.STARTS] += self.start
            cells[layout.SEQUENCE] += 1.0
            self.in_flight = int(cells[layout.ACTIVE])

    def started(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Take what the start of the response tells."""
        self.status = int(status[:3])
        self.learn_route()
        for name, value in headers:
            if len(name) == 14 and name.lower() == "content-length" and len(value) <= _LONGEST_LENGTH:
                self.declared = int(value)

    def raised(self, error: BaseException) -> None:
        """Note what left the app: before the first byte of the body the server still answers 500 for it."""
        self.error = error
        if not self.sent:
            self.status = 500

    def learn_route(self) -> None:
        """Take the route's template while Flask still knows it; it stays empty where none matched.

        Flask forgets the request before the middleware has its answer back, so this runs as the response starts.
        """
        rule = getattr(self.environ.get("werkzeug.request"), "url_rule", None)
        if rule is not None:
            self.route = rule.rule

    def error_type(self) -> str:
        """Name what failed; empty for a request that did not."""
        if self.error is not None:
            return type(self.error).__name__
        if not self.complete:
            return "client_disconnected"
        return str(self.status) if self.status >= 500 else ""

    def finish(self) -> None:
        """Record the request, once; called when its body is closed or the application has raised."""
        middleware, self.middleware = self.middleware, None  # type: ignore[assignment]
        if middleware is None:
            return
        cpu = time.thread_time() - self.cpu_start if middleware.owns_thread else None
        try:
            self._record(middleware, cpu)
        except Exception as error:
            runtime.failed("request", error)
        finally:
            if self.epoch is middleware.store.epoch:  # not counted: then at least not in flight for ever
                with middleware.store.lock:
                    self._leave(middleware.store)
            self.environ.pop(_KEY, None)  # it holds the environ in turn: no cycle for the collector

    def _record(self, middleware: Middleware, cpu: float | None) -> None:
        route, error_type = self.route, self.error_type()
        failed = self.status >= 500 or self.error is not None
        scheme = self.environ.get("wsgi.url_scheme", "")
        scheme = scheme if scheme in _SCHEMES else "_OTHER"
        store = middleware.store
        duration = time.monotonic() - self.start
        if self.epoch is store.epoch:  # else this is a forked child: the request is its parent's
            labels = (self.method, route, str(self.status), scheme, error_type)
            duration, bucket = self._count(store, middleware.places(labels), failed)
            if self.queued is not None:
                store.child(catalogue.REQUEST_QUEUE).observe(self.queued)
            if self.trace.end(self, route, error_type, duration):
                ids = {"trace_id": self.trace_id, "span_id": self.span_id}
                store.exemplar(bucket, ids, duration)
        self._log(route, scheme, error_type, failed, duration, cpu)

    def _count(self, store: Store, places: _Places, failed: bool) -> tuple[float, int]:
        """Change all of the request's numbers between two steps of the sequence; return its duration and bucket."""
        received = self.environ.get("CONTENT_LENGTH") or ""
        size = float(received) if received.isdecimal() and len(received) <= _LONGEST_LENGTH else 0.0
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


def _decoded(path: str) -> str:
    """Undo PEP 3333's latin-1 dress of the path's bytes."""
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


class Body:
    """A response's body, measured to its end.

    The request is the current one only while the app's own code runs: a server that never closes a body would
    otherwise leave it to whatever comes next.
    """

    __slots__ = ("_close", "_iterator", "_request")

    def __init__(self, request: Request, body: Iterable[bytes]) -> None:
        self._request = request
        self._iterator = iter(body)
        self._close: Callable[[], None] | None = getattr(body, "close", None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = context.current.set(self._request)
        try:
            chunk = next(self._iterator)
        except StopIteration:
            self._request.complete = True
            raise
        except BaseException as error:
            self._request.raised(error)
            raise
        finally:
            context.current.reset(token)
        self._request.sent += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the body, and finish the request."""
        token = context.current.set(self._request)
        try:
            if self._close is not None:
                self._close()
        except BaseException as error:
            self._request.error = error
            raise
        finally:
            self._request.finish()
            context.current.reset(token)


class Middleware:
    """Measures every request of a WSGI application.

    Args:
        app: the application.
        store: where the numbers go.
        flask: the Flask app behind it, which knows route templates; None for any other.
    """

    def __init__(self, app: WSGIApplication, store: Store = STORE, flask: Flask | None = None) -> None:
        self.app = app
        self.flask = flask
        self.store = store
        self.epoch: object = None
        self.owns_thread = True
        self._places: dict[tuple[str, str, str, str, str], _Places] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run one request."""
        if _KEY in environ:  # instrumented twice, or one instrumented app inside another
            return self.app(environ, start_response)
        try:
            if self.epoch is not self.store.epoch:
                self._begin_process()
            request = environ[_KEY] = Request(self, environ)
        except Exception as error:
            runtime.failed("request", error)
            return self.app(environ, start_response)
        return self._run(request, environ, start_response)

    def _run(self, request: Request, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            try:
                request.started(status, headers)
            except Exception as error:
                runtime.failed("request", error)
            write = start_response(status, headers, *exc_info)

            def counted(data: bytes) -> object:
                request.sent += len(data)
                return write(data)

            return counted

        token = context.current.set(request)
        try:
            body = self.app(environ, start)
        except BaseException as error:
            request.raised(error)
            request.route = request.route or self._matched(environ)
            request.finish()
            raise
        finally:
            context.current.reset(token)
        file_wrapper: Any = environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
            _watch_file(request, body)
            return body
        return Body(request, body)

    def _matched(self, environ: WSGIEnvironment) -> str:
        """Match the route anew where Flask had no time to tell it: gunicorn's timeout ends a request by SystemExit."""
        if self.flask is None:
            return ""
        try:
            rule, _ = self.flask.url_map.bind_to_environ(environ).match(return_rule=True)
        except Exception:
            return ""  # there is none, or only a redirect
        return rule.rule

    def _begin_process(self) -> None:
        """Settle in a process: at the first request, and again after a fork."""
        runtime.begin_process(self.store)
        self.epoch = self.store.epoch
        self._places.clear()
        monkey = sys.modules.get("gevent.monkey")
        self.owns_thread = monkey is None or not monkey.is_module_patched("threading")

    def places(self, labels: tuple[str, str, str, str, str]) -> _Places:
        """Return where a label set is counted; beyond the most label sets, the overflow's place."""
        found = self._places.get(labels)
        if found is None:
            found = _Places(self.store, labels)
            if len(self._places) < self.store.max_label_sets:
                self._places[labels] = found
        return found


def _watch_file(request: Request, body: Any) -> None:
    """Leave a file to the server's sendfile, and learn of its end by its close: of its size only what is declared."""
    request.complete, request.sent = True, request.declared
    inner = getattr(body, "close", None)

    def close() -> None:
        try:
            if inner is not None:
                inner()
        finally:
            request.finish()

    body.close = close


def _note_exception(_sender: object, exception: BaseException, **_: object) -> None:
    """Remember what a handler raised: Flask makes it a 500 before the middleware could see it."""
    request = context.current.get()
    if isinstance(request, Request):
        request.error = exception
        request.learn_route()


def instrument(app: Flask | WSGIApplication) -> Any:
    """Measure an application: all that a Flask app, or any WSGI callable, needs.

    A Flask app is changed in place; any other callable is wrapped. The result is what the server should run.
    """
    runtime.prepare()
    inner = getattr(app, "wsgi_app", None)
    if inner is None:
        return app if isinstance(app, Middleware) else Middleware(app)
    if not isinstance(inner, Middleware):
        from flask import got_request_exception  # a WSGI app without Flask does not pay for its import

        flask = cast("Flask", app)
        flask.wsgi_app = Middleware(inner, flask=flask)  # type: ignore[method-assign]
        got_request_exception.connect(_note_exception, app)
    return app
