"""The middleware around a WSGI application.

It works under every worker class that runs WSGI, since it uses nothing of the server. Nothing in it may fail a request:
what goes wrong with the telemetry is counted, and the application answers as if it were not there.
"""

from __future__ import annotations  # the annotations of a function made in each request would cost a microsecond there

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from observability import context, runtime
from observability.request import KEY, LONGEST_LENGTH, Meter, Request
from observability.store import STORE, Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask


class WSGIRequest(Request):
    """One request as PEP 3333 has it."""

    __slots__ = ()

    def started(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Take what the start of the response tells."""
        self.status = int(status[:3]) if status[:3].isdecimal() else 500  # else the server refuses it
        self.learn_route()
        for name, value in headers:
            if len(name) == 14 and name.lower() == "content-length" and len(value) <= LONGEST_LENGTH:
                self.declared = int(value) if value.isdecimal() else 0

    def learn_route(self) -> None:
        """Take the route's template while Flask still knows it; it stays empty where none matched.

        Flask forgets the request before the middleware has its answer back, so this runs as the response starts.
        """
        rule = getattr(self.environ.get("werkzeug.request"), "url_rule", None)
        if rule is not None:
            self.route = rule.rule


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
        self._close: Callable[[], None] | None = getattr(body, "close", None)
        try:
            self._iterator = iter(body)
        except BaseException as error:  # it is none, and the server never gets to close it
            request.raised(error)
            self.close()
            raise

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
        if isinstance(chunk, bytes):
            self._request.sent += len(chunk)
        else:  # the server refuses it
            self._request.raised(TypeError(f"the body yielded {type(chunk).__name__}, and not bytes"))
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
            request = environ[KEY] = WSGIRequest(self, environ, _decoded(environ.get("PATH_INFO", "")))
        except Exception as error:
            runtime.failed("request", error)
            return self.app(environ, start_response)
        return self._run(request, environ, start_response)

    def _run(self, request: WSGIRequest, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            if not isinstance(headers, list):  # against the specification, but servers take it: read it once
                headers = list(headers)
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
