"""The middleware around an ASGI application.

It measures HTTP requests to their last byte, and passes websockets and the lifespan on untouched: a websocket is a
connection of minutes or hours, and would spoil what durations, requests in flight and the oldest request's age say.
"""

from __future__ import annotations  # the annotations of a function made in each request would cost a microsecond there

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from observability import context, logs, loops, runtime, traces
from observability.request import CLIENT_CLOSED_REQUEST, KEY, LONGEST_LENGTH, Meter, Request
from observability.routes import Routes
from observability.store import STORE, Store

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The headers that are wanted, by the names that CGI gives them.
_WANTED = {
    b"content-length": "CONTENT_LENGTH",
    b"traceparent": "HTTP_TRACEPARENT",
    b"tracestate": "HTTP_TRACESTATE",
    b"user-agent": "HTTP_USER_AGENT",
    b"x-request-start": "HTTP_X_REQUEST_START",
}
# https://asgi.readthedocs.io/en/latest/extensions.html: a server that can, sends a file itself
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})


class IncompleteResponse(RuntimeError):
    """The application returned before its response was complete; the server cuts the connection, or answers 500."""


def _environ(scope: Scope) -> dict[str, Any]:
    """Return what is to be known of a request under CGI's names."""
    client = scope.get("client")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "REMOTE_ADDR": client[0] if client else "",
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '')}",
        "wsgi.url_scheme": scope.get("scheme", "http"),
    }
    for name, value in scope["headers"]:
        known = _WANTED.get(name)
        if known is not None:
            text = value.decode("latin-1")
            environ[known] = f"{environ[known]},{text}" if known in environ else text
    return environ


class ASGIRequest(Request):
    """One request as ASGI has it, and the `receive` and `send` that its application is given."""

    __slots__ = ("declared", "gone", "mounted", "routes", "scope", "server_receive", "server_send", "started")

    def __init__(self, middleware: Middleware, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, _environ(scope), scope["path"], id(asyncio.current_task()))
        self.scope, self.server_receive, self.server_send = scope, receive, send
        self.started = self.gone = False
        self.declared = 0
        self.routes = middleware.routes
        self.mounted = ""  # the route within a WSGI app that the ASGI app mounts

    async def receive(self) -> Message:
        """Pass on what the server says, and note that the client has left."""
        message = await self.server_receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app answers, and count it; the last byte ends the request."""
        kind = message["type"]
        if kind == "http.response.start":
            try:
                self._start(message)
            except Exception as error:
                runtime.failed("request", error)
        try:
            await self.server_send(message)
        except OSError:  # as the specification has it since 2.4
            self.gone = True
            raise
        if kind in _BODIES:
            self.sent += len(message.get("body", b"")) if kind != "http.response.pathsend" else self.declared
            if not message.get("more_body", False):
                self.complete = True
                if self.status < 500:  # else wait for the app's end: it may raise what it has answered for
                    self.finish()

    def _start(self, message: Message) -> None:
        self.started = True
        self.status = int(message["status"])
        self.learn_route()
        headers = message.get("headers", ())
        if not isinstance(headers, list | tuple):  # any iterable will do, and the server has to read it too
            message["headers"] = headers = list(headers)
        for name, value in headers:
            if len(name) == 14 and name.lower() == b"content-length" and len(value) <= LONGEST_LENGTH:
                self.declared = int(value) if value.isdigit() else 0

    def learn_route(self) -> None:
        """Take the route's template: the framework has left the matched route in the scope."""
        try:
            self.route = self.routes.template(self.scope, self.mounted)
        except Exception as error:
            runtime.failed("request", error)

    def raised(self, error: BaseException) -> None:
        """Note what left the app; where its client had left before, that is the reason."""
        if isinstance(error, asyncio.CancelledError) and not self.gone:
            self.gone = _has_left(self.server_receive)
        if not self.gone:
            self.error = error
            if not self.started:
                self.status = 500

    def end(self) -> None:
        """Record the request, now that the app has returned or raised, unless its last byte did."""
        if not self.started:
            self.status = CLIENT_CLOSED_REQUEST if self.gone else 500
            self.learn_route()
        if not self.complete and not self.gone and self.error is None:
            self.error = IncompleteResponse("the application returned before its response was complete")
        self.finish()

    def finish(self) -> None:
        """Record the request, once, and leave its span: the app goes on after the last byte."""
        super().finish()
        traces.leave(self)

    def error_type(self) -> str:
        """Name what failed; empty for a request that did not."""
        return "client_disconnected" if self.gone else super().error_type()


def _has_left(receive: Receive) -> bool:
    """Ask the server whether the client has left, without waiting for the answer.

    gunicorn cancels an app that has not noticed it for some seconds; a worker that shuts down cancels too.
    """
    try:
        asking = receive()
        try:
            asking.send(None)  # type: ignore[attr-defined]
        except StopIteration as answer:
            return bool(answer.value["type"] == "http.disconnect")
        finally:
            asking.close()  # type: ignore[attr-defined]
    except Exception:
        return False
    return False


class Middleware(Meter):
    """Measures every HTTP request of an ASGI application.

    Args:
        app: the application.
        store: where the numbers go.
    """

    def __init__(self, app: App, store: Store = STORE) -> None:
        super().__init__(store)
        self.app = app
        self.routes = Routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, or pass on what is none."""
        if loops.on_first_loop:  # empty from the first scope on, which is the lifespan's where the server has one
            loops.entered()
        if scope["type"] != "http" or KEY in scope:  # instrumented twice, or one instrumented app inside another
            await self.app(scope, receive, send)
            return
        try:
            if self.epoch is not self.store.epoch:
                self.settle()
            request = scope[KEY] = ASGIRequest(self, scope, receive, send)
        except Exception as error:
            runtime.failed("request", error)
            await self.app(scope, receive, send)
            return
        await self._run(request, scope)

    async def _run(self, request: ASGIRequest, scope: Scope) -> None:
        around = context.current.get()
        context.current.set(request)
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as error:
            request.raised(error)
            if request.complete and isinstance(error, Exception):
                self._tell(error)
            raise
        finally:
            request.end()
            if around is not None or request.error is None:  # else what the server logs of it has the request's ids
                context.current.set(around)
            scope.pop(KEY, None)  # it holds the scope in turn: no cycle for the collector

    def _tell(self, error: Exception) -> None:
        """Log what the app raised after its response, an error page most often: only gunicorn's own class does not."""
        if self.store.slot.note.get("worker_class") == "asgi":
            logs.write("error", "observability.asgi", "Exception in ASGI application", {}, error)
