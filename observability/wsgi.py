"""The middleware around a WSGI application.

It works under every worker class that runs WSGI, since it uses nothing of the server. Nothing in it may fail a request:
what goes wrong with the telemetry is counted, and the application answers as if it were not there.
"""

from __future__ import annotations  # the annotations of a function made in each request would cost a microsecond there

from collections.abc import Callable, Iterable, Iterator
from contextvars import Token
from typing import TYPE_CHECKING, Any

from observability import context, runtime
from observability.request import KEY, LONGEST_LENGTH, Meter, Request
from observability.store import STORE, Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask


_END: Any = object()
_MOST_STATUSES = 256
_codes: dict[str, int] = {}


def _code(status: str) -> int:
    """Return a status line's code."""
    code = _codes.get(status)
    if code is None:
        code = int(status[:3]) if status[:3].isdecimal() else 500  # else the server refuses it
        if len(_codes) < _MOST_STATUSES:
            _codes[status] = code
    return code


class WSGIRequest(Request):
    """One request as PEP 3333 has it, the `start_response` that its app is given, and the body that the server gets.

    The request is the current one only while the app's own code runs: a server that never closes a body would
    otherwise leave it to whatever comes next. Under gunicorn, which closes all, it is until then, which saves leaving
    it and coming back for each chunk; `token` says what to go back to.
    """

    __slots__ = ("body", "headers", "server_start", "server_write", "token")
    token: Token[context.RequestContext | None] | None
    server_start: Callable[..., Callable[[bytes], object]]
    body: Iterable[bytes]

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """Pass on the start of the response, and take what it tells."""
        if not isinstance(headers, list):  # against the specification, but servers take it: read it once
            headers = list(headers)
        try:
            self.headers = headers
            self.status = _code(status)
            self.learn_route()
        except Exception as error:
            runtime.failed("request", error)
        start = self.server_start
        self.server_write = start(status, headers) if exc_info is None else start(status, headers, exc_info)
        return self.write

    def write(self, data: bytes) -> object:
        """Pass on a part of the body that does not come by iteration."""
        self.sent += len(data)
        return self.server_write(data)

    def learn_route(self) -> None:
        """Take the route's template while Flask still knows it; it stays empty where none matched.

        Flask forgets the request before the middleware has its answer back, so this runs as the response starts.
        """
        rule = getattr(self.environ.get("werkzeug.request"), "url_rule", None)
        if rule is not None:
            self.route = rule.rule

    def __iter__(self) -> Iterator[bytes]:
        current = context.current
        chunks = token = None
        while True:
            if self.token is None:
                token = current.set(self)
            try:
                if chunks is None:
                    chunks = iter(self.body)
                chunk = next(chunks, _END)
            except BaseException as error:
                self.raised(error)
                raise
            finally:
                if token is not None:
                    current.reset(token)
            if isinstance(chunk, bytes):
                self.sent += len(chunk)
            elif chunk is _END:
                self.complete = True
                return
            else:  # the server refuses it
                self.raised(TypeError(f"the body yielded {type(chunk).__name__}, and not bytes"))
            yield chunk

    def close(self) -> None:
        """Close the body, and finish the request."""
        token, self.token = self.token or context.current.set(self), None
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
            self.body = ()  # it may hold the request in turn: no cycle for the collector
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.finish()
            try:  # noqa: SIM105 - suppress() would cost more than all else here
                context.current.reset(token)
            except ValueError:
                pass  # closed in another context than it began in


def _decoded(path: str) -> str:
    """Undo PEP 3333's latin-1 dress of the path's bytes."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


class Middleware(Meter):
    """Measures every request of a WSGI application.

    Args:
        app: the application.
        store: where the numbers go.
        flask: the Flask app behind it, which knows route templates; None for any other.
    """

    def __init__(self, app: WSGIApplication, store: Store = STORE, flask: Flask | None = None) -> None:
        super().__init__(store)
        self.app = app
        self.flask = flask

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run one request."""
        if KEY in environ:  # instrumented twice, or one instrumented app inside another
            return self.app(environ, start_response)
        if "asgi.scope" in environ and (around := environ["asgi.scope"].get(KEY)) is not None:
            return self.app(environ, _telling_route(around, environ, start_response))
        try:
            if self.epoch is not self.store.epoch:
                self.settle()
            environ[KEY] = True
            path = environ.get("PATH_INFO", "")
            request = WSGIRequest(self, environ, path if path.isascii() else _decoded(path))
        except Exception as error:
            runtime.failed("request", error)
            return self.app(environ, start_response)
        request.server_start, request.headers = start_response, []
        request.token = None
        token = context.current.set(request)
        try:
            body = self.app(environ, request.start_response)
        except BaseException as error:
            request.raised(error)
            request.route = request.route or self._matched(environ)
            request.finish()
            context.current.reset(token)
            raise
        file_wrapper: Any = environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
            context.current.reset(token)
            _watch_file(request, body)
            return body
        request.body = body
        if self.closes:
            request.token = token
        else:
            context.current.reset(token)
        return request

    def _matched(self, environ: WSGIEnvironment) -> str:
        """Match the route anew where Flask had no time to tell it: gunicorn's timeout ends a request by SystemExit."""
        if self.flask is None:
            return ""
        try:
            rule, _ = self.flask.url_map.bind_to_environ(environ).match(return_rule=True)
        except Exception:
            return ""  # there is none, or only a redirect
        return rule.rule


def _telling_route(around: Any, environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
    """Tell the instrumented ASGI app around this one its route: a2wsgi leaves the scope in the environ.

    Args:
        around: the ASGI app's request, which measures.
    """

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
        if rule is not None:
            around.mounted = rule.rule
        return start_response(status, headers, *exc_info)

    return start


def _watch_file(request: WSGIRequest, body: Any) -> None:
    """Leave a file to the server's sendfile, and learn of its end by its close: of its size only what is declared."""
    request.complete = True
    try:
        for name, value in request.headers:
            if name.lower() == "content-length" and value.isdecimal() and len(value) <= LONGEST_LENGTH:
                request.sent = int(value)
    except Exception as error:
        runtime.failed("request", error)
    inner = getattr(body, "close", None)

    def close() -> None:
        try:
            if inner is not None:
                inner()
        finally:
            request.finish()

    body.close = close
