"""The middleware of an aiohttp application, under aiohttp's own worker; imported only for one.

aiohttp sends a response after its middlewares have returned it. This one sends it, which aiohttp allows at any time and
does not repeat, so that a request is measured to its last byte. Where another middleware stands around it, which may
still change the response, it measures up to what the handler returns.
"""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from observability import context, runtime, traces
from observability.request import CLIENT_CLOSED_REQUEST, KEY, Meter, Request
from observability.store import STORE, Store

_WANTED = (
    ("Content-Length", "CONTENT_LENGTH"),
    ("traceparent", "HTTP_TRACEPARENT"),
    ("tracestate", "HTTP_TRACESTATE"),
    ("User-Agent", "HTTP_USER_AGENT"),
    ("X-Request-Start", "HTTP_X_REQUEST_START"),
)
# aiohttp 3.14 warns of keys that are plain text.
_KEY: Any = web.RequestKey(KEY, Request) if hasattr(web, "RequestKey") else KEY


def _environ(request: web.Request) -> dict[str, Any]:
    """Return what is to be known of a request under CGI's names."""
    version = request.version
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "REMOTE_ADDR": request.remote or "",
        "SERVER_PROTOCOL": f"HTTP/{version.major}.{version.minor}",
        "wsgi.url_scheme": request.scheme,
    }
    headers = request.headers
    for name, known in _WANTED:
        if name in headers:
            environ[known] = ",".join(headers.getall(name))
    return environ


class AiohttpRequest(Request):
    """One request as aiohttp has it."""

    __slots__ = ("gone", "outermost", "request")

    def __init__(self, meter: Meter, request: web.Request) -> None:
        super().__init__(meter, _environ(request), request.path, id(asyncio.current_task()))
        self.request = request
        self.gone = False
        outermost: Any = request.match_info.apps[0].middlewares[0]
        self.outermost = outermost is meter
        request.writer.on_body_write = self.wrote  # aiohttp 3.14 and later

    def wrote(self, size: int, _output: int) -> None:
        """Count bytes of the body."""
        self.sent += size

    def learn_route(self) -> None:
        """Take the route's template; it stays empty where none matched."""
        resource = self.request.match_info.route.resource
        if resource is not None:
            self.route = resource.canonical

    async def send(self, response: web.StreamResponse) -> None:
        """Send a response to its end, unless its client leaves: aiohttp finds that out for itself."""
        if not isinstance(response, web.StreamResponse):
            self.raised(TypeError(f"the handler returned a {type(response).__name__}"))
            return
        if isinstance(response, web.WebSocketResponse):
            return
        if not self.outermost:
            self.status, self.complete = response.status, True
            self.sent = self.sent or response.content_length or 0
            return
        try:
            await response.prepare(self.request)
            await response.write_eof()
        except ConnectionError:
            self.gone = True
        self.complete = not self.gone
        if isinstance(response, web.FileResponse) and not self.sent and self.method != "HEAD":
            self.sent = response.content_length or 0  # sent by the kernel

    def raised(self, error: BaseException) -> None:
        """Note what left the app; where its client had left before, that is the reason."""
        transport = self.request.transport
        self.gone = self.gone or transport is None or transport.is_closing()
        if self.gone:
            self.status = self.status or CLIENT_CLOSED_REQUEST
            return
        self.error = error
        if not self.request.writer.output_size:  # nothing is sent yet: aiohttp answers for the app
            self.status = 504 if isinstance(error, TimeoutError) else 500

    def finish(self) -> None:
        """Record the request, once, and leave its span: the app goes on after the last byte."""
        super().finish()
        traces.leave(self)

    def error_type(self) -> str:
        """Name what failed; empty for a request that did not."""
        return "client_disconnected" if self.gone else super().error_type()


class Middleware(Meter):
    """Measures every request of an aiohttp application but websockets, which live for minutes or hours."""

    __middleware_version__ = 1  # what aiohttp's decorator sets

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run one request."""
        if _KEY in request:
            return await handler(request)
        try:
            if self.epoch is not self.store.epoch:
                self.settle()
            measured = request[_KEY] = AiohttpRequest(self, request)
            measured.learn_route()
        except Exception as error:
            runtime.failed("request", error)
            return await handler(request)
        return await self._run(measured, handler)

    async def _run(self, measured: AiohttpRequest, handler: Handler) -> web.StreamResponse:
        around = context.current.get()
        context.current.set(measured)
        try:
            return await _answer(measured, handler)
        except web.HTTPException:
            raise  # a response, and sent
        except BaseException as error:
            measured.raised(error)
            raise
        finally:
            request = measured.request
            request.writer.on_body_write = None  # it holds the request in turn: no cycle for the collector
            request.pop(_KEY, None)
            measured.finish()
            if around is not None or measured.error is None:  # else what aiohttp logs of it has the request's ids
                context.current.set(around)


async def _answer(measured: AiohttpRequest, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(measured.request)
    except web.HTTPException as answer:
        await measured.send(answer)
        raise
    await measured.send(response)
    return response


async def _note_status(request: web.Request, response: web.StreamResponse) -> None:
    measured = request.get(_KEY)
    if measured is not None:
        measured.status = response.status
        if isinstance(response, web.WebSocketResponse):  # it lives for minutes or hours, and is no request
            measured.abandon()


def instrument(app: web.Application, store: Store = STORE) -> web.Application:
    """Put the middleware around all others of the app, and of the apps that it mounts."""
    if not any(isinstance(each, Middleware) for each in app.middlewares):
        app.middlewares.insert(0, Middleware(store))
        app.on_response_prepare.append(_note_status)
    return app
