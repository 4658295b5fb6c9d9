"""The middleware around any ASGI application, by what a server cannot be made to do at will."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router

import observability
from observability import context, layout, runtime
from observability.asgi import Middleware
from observability.page import Page
from observability.routes import Routes
from observability.scrape import Scraper
from observability.store import Store

DURATION = "http_server_request_duration_seconds"
LEFT = {"type": "http.disconnect"}
Line = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("OBSERVABILITY_DIR", str(tmp_path / "state"))
    made = Store(tmp_path / "state")
    made.claim()
    yield made
    made.slot.close()


def scope(path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"x")],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        **more,
    }


class Client:
    """Calls an app as an ASGI server would, and keeps what it was told.

    Args:
        leaves_after: bodies after which the client is gone; the server says so to who asks, and takes no notice else.
        refuses: whether the server raises instead, as the specification has it since 2.4.
    """

    def __init__(self, leaves_after: int | None = None, refuses: bool = False) -> None:
        self.leaves_after, self.refuses = leaves_after, refuses
        self.status = 0
        self.bodies: list[bytes] = []
        self._asked = False

    @property
    def gone(self) -> bool:
        return self.leaves_after is not None and len(self.bodies) >= self.leaves_after

    async def receive(self) -> Any:
        if not self._asked and not self.gone:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while not self.gone:
            await asyncio.sleep(0.001)
        return LEFT

    async def send(self, message: Any) -> None:
        if self.gone and self.refuses:
            raise OSError("the client has left")
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.bodies.append(message["body"])

    def get(self, app: Any, path: str = "/", **more: Any) -> "Client":
        asyncio.run(app(scope(path, **more), self.receive, self.send))
        return self


def page(store: Store) -> Page:
    assert store._directory is not None
    return Scraper(store._directory).scrape()[0]


def counted(store: Store) -> list[tuple[str, str, str, float]]:
    """Return route, status, error type and count of every series of the duration; nothing may be in flight."""
    assert store.cells[layout.ACTIVE] == store.cells[layout.STARTS] == 0
    found = []
    for labels, points in page(store)[DURATION].children.items():
        known = dict(labels)
        count = sum(point.value for (suffix, _), point in points.items() if suffix == "_bucket")
        found.append((known["http_route"], known["http_response_status_code"], known["error_type"], count))
    return sorted(found)


async def answer(send: Any, *bodies: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for number, body in enumerate(bodies, 1):
        await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})


async def plain(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, b"a", b"b")


def test_an_answer_passes_through_and_is_counted(store: Store, lines: list[Line]) -> None:
    client = Client().get(Middleware(plain, store), "/grüße")
    assert (client.status, client.bodies) == (200, [b"a", b"b"])
    assert counted(store) == [("", "200", "", 1)]
    (line,) = lines
    assert (line["http.response.body.size"], line["url.path"], line["client.address"]) == (2, "/grüße", "127.0.0.1")
    assert "cpu_seconds" not in line
    assert store.cells[layout.REQUESTS] == 1


def test_an_exception_passes_through_unchanged(store: Store, lines: list[Line]) -> None:
    raised = KeyError("mine")

    async def failing(*_: Any) -> None:
        raise raised

    with pytest.raises(KeyError) as caught:
        Client().get(Middleware(failing, store))
    assert caught.value is raised
    assert counted(store) == [("", "500", "KeyError", 1)]
    assert store.cells[layout.ERRORS] == 1


def test_a_stream_that_breaks_keeps_its_status_and_names_the_error(store: Store, lines: list[Line]) -> None:
    async def breaking(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("the stream broke")

    with pytest.raises(RuntimeError):
        Client().get(Middleware(breaking, store))
    assert counted(store) == [("", "200", "RuntimeError", 1)]


@pytest.mark.parametrize(("started", "status"), [(False, "500"), (True, "200")])
def test_an_app_that_does_not_finish_its_response_has_failed(
    store: Store, lines: list[Line], started: bool, status: str
) -> None:
    async def silent(_scope: Any, _receive: Any, send: Any) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200})

    Client().get(Middleware(silent, store))
    assert counted(store) == [("", status, "IncompleteResponse", 1)]


def test_what_runs_after_the_last_byte_is_not_part_of_the_request(store: Store, lines: list[Line]) -> None:
    seen = []

    async def after() -> None:
        seen.append((store.cells[layout.REQUESTS], store.cells[layout.ACTIVE]))
        raise ValueError("too late to fail the request")

    async def index(_: Any) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(after))

    app = Starlette(routes=[Route("/", index)])
    with pytest.raises(ValueError, match="too late"):
        Client().get(Middleware(app, store))
    assert seen == [(1, 0)]
    assert counted(store) == [("/", "200", "", 1)]


def test_the_error_behind_a_frameworks_error_page_is_named(store: Store, lines: list[Line]) -> None:
    async def fail(_: Any) -> PlainTextResponse:
        raise LookupError("behind the page")

    app = Starlette(routes=[Route("/x/{name}", fail)])
    client = Client()
    with pytest.raises(LookupError):
        client.get(Middleware(app, store), "/x/y")
    assert client.bodies == [b"Internal Server Error"]
    assert counted(store) == [("/x/{name}", "500", "LookupError", 1)]
    assert lines[0]["http.response.body.size"] == len(b"Internal Server Error")


def test_a_5xx_without_an_exception_is_named_by_its_status(store: Store, lines: list[Line]) -> None:
    async def unavailable(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, b"later", status=503)

    Client().get(Middleware(unavailable, store))
    assert counted(store) == [("", "503", "503", 1)]


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("refuses", [False, True], ids=["told to who asks", "refused at the next byte"])
def test_a_client_that_leaves_a_stream_is_no_failure(store: Store, lines: list[Line], refuses: bool) -> None:
    async def index(_: Any) -> StreamingResponse:
        return StreamingResponse(endless())

    app = Middleware(Starlette(routes=[Route("/", index)]), store)
    version = {"spec_version": "2.4" if refuses else "2.3"}
    with contextlib.suppress(Exception):  # Starlette's ClientDisconnect
        Client(leaves_after=3, refuses=refuses).get(app, asgi=version)
    assert counted(store) == [("/", "200", "client_disconnected", 1)]
    assert store.cells[layout.ERRORS] == 0
    assert lines[0]["http.response.body.size"] >= 3  # a server that only tells who asks takes some more


def test_a_client_that_leaves_before_the_response_is_a_499(store: Store, lines: list[Line]) -> None:
    async def patient(_scope: Any, receive: Any, _send: Any) -> None:
        while await receive() != LEFT:
            pass
        raise ConnectionError("nobody there")

    with pytest.raises(ConnectionError):
        Client(leaves_after=0).get(Middleware(patient, store))
    assert counted(store) == [("", "499", "client_disconnected", 1)]
    assert store.cells[layout.ERRORS] == 0


@pytest.mark.parametrize(
    ("leaves_after", "status", "error"), [(None, "500", "CancelledError"), (0, "499", "client_disconnected")]
)
def test_a_cancelled_request_is_counted_once_with_its_reason(
    store: Store, lines: list[Line], leaves_after: int | None, status: str, error: str
) -> None:
    async def waiting(*_: Any) -> None:
        await asyncio.sleep(60)

    async def serve() -> None:
        client = Client(leaves_after)
        task = asyncio.create_task(Middleware(waiting, store)(scope(), client.receive, client.send))  # type: ignore[arg-type]
        while not store.cells[layout.ACTIVE]:
            await asyncio.sleep(0)
        client._asked = True
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    assert counted(store) == [("", status, error, 1)]


def test_requests_at_the_same_time_are_kept_apart(store: Store, lines: list[Line]) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        async def note() -> None:
            await asyncio.sleep(0.001)
            observability.annotate(seen=scope["path"])

        await asyncio.gather(note(), asyncio.sleep(0.002))
        await answer(send, b"x")

    async def serve() -> None:
        middleware = Middleware(app, store)
        await asyncio.gather(
            *(middleware(scope(f"/{number}"), (client := Client()).receive, client.send) for number in range(50))
        )

    asyncio.run(serve())
    assert len(lines) == 50
    assert all(line["seen"] == line["url.path"] for line in lines)
    assert max(line["in_flight"] for line in lines) == 50
    assert counted(store) == [("", "200", "", 50)]


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_what_is_no_request_passes_through_untouched(store: Store, lines: list[Line], kind: str) -> None:
    passed: list[Any] = []

    async def app(*arguments: Any) -> None:
        passed.extend(arguments)

    async def receive() -> Any: ...

    async def send(_: Any) -> None: ...

    given = {"type": kind}
    asyncio.run(Middleware(app, store)(given, receive, send))
    assert passed == [given, receive, send]
    assert given == {"type": kind}
    assert lines == []


@pytest.mark.parametrize("where", ["begin", "finish", "route"])
def test_telemetry_that_fails_changes_no_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, lines: list[Line], where: str
) -> None:
    failures: list[str] = []
    monkeypatch.setattr(runtime, "failed", lambda place, _error: failures.append(place))
    middleware = Middleware(plain, store)
    Client().get(middleware)
    if where == "begin":
        monkeypatch.setattr("observability.traces.begin", lambda *_: 1 / 0)
    elif where == "finish":
        monkeypatch.setattr(middleware, "kind", lambda _labels: 1 / 0)
    else:
        monkeypatch.setattr(middleware.routes, "template", lambda *_: 1 / 0)
    assert Client().get(middleware).bodies == [b"a", b"b"]
    assert failures == ["request"]
    assert store.cells[layout.ACTIVE] == store.cells[layout.STARTS] == 0


def test_instrumenting_twice_measures_once(store: Store, lines: list[Line]) -> None:
    Client().get(Middleware(Middleware(plain, store), store))
    assert counted(store) == [("", "200", "", 1)]


def test_headers_are_read_as_bytes_and_a_repeated_one_is_joined(store: Store, lines: list[Line]) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = [
        (b"traceparent", f"00-{trace}-00f067aa0ba902b7-01".encode()),
        (b"user-agent", "Grüße".encode("latin-1")),
        (b"content-length", b"12"),
        (b"x-request-start", b"t=nonsense"),
    ]
    Client().get(Middleware(plain, store), headers=headers)
    Client().get(Middleware(plain, store), headers=[*headers, headers[0]])
    assert [line["user_agent.original"] for line in lines] == ["Grüße"] * 2
    assert "queue_seconds" not in lines[0]
    ((_, points),) = page(store)["http_server_request_body_size_bytes"].children.items()
    assert points["_sum", float("inf")].value == 24


def test_the_request_is_the_current_one_inside_only(store: Store, lines: list[Line]) -> None:
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        seen.append(context.current.get())
        await answer(send, b"x")

    async def serve() -> None:
        client = Client()
        await Middleware(app, store)(scope(), client.receive, client.send)
        seen.append(context.current.get())

    asyncio.run(serve())
    assert seen[0] is not None
    assert seen[1] is None


def test_a_file_that_the_server_sends_has_its_declared_size(store: Store, lines: list[Line]) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"4711")]})
        await send({"type": "http.response.pathsend", "path": "/etc/hostname"})

    async def serve() -> None:
        async def send(_: Any) -> None: ...

        await Middleware(app, store)(scope(), Client().receive, send)

    asyncio.run(serve())
    assert lines[0]["http.response.body.size"] == 4711
    assert counted(store) == [("", "200", "", 1)]


async def endpoint(_: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


def flask_app() -> flask.Flask:
    app = flask.Flask("mounted")
    app.add_url_rule("/items/<int:number>", view_func=lambda number: str(number))
    return observability.instrument(app)


API = [Route("/items/{number:int}", endpoint, methods=["GET"]), Route("/", endpoint)]
ROUTED = Starlette(
    routes=[
        Route("/", endpoint),
        Route("/same/{name}", endpoint),
        Mount("/v1", routes=API),
        Mount("/v2", routes=API),
        Mount("/{tenant}/deep", app=Starlette(routes=[Mount("/er", routes=[Route("/{path:path}", endpoint)])])),
        Mount("/flask", app=WSGIMiddleware(flask_app())),  # type: ignore[arg-type]
        Host("other.example", app=Router(routes=[Route("/here/{x}", endpoint)])),
    ]
)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/same/x", "/same/{name}"),
        ("/v1/items/7", "/v1/items/{number:int}"),
        ("/v2/items/7", "/v2/items/{number:int}"),  # the same route object, under two mounts
        ("/v2/", "/v2/"),
        ("/acme/deep/er/a/b/c", "/{tenant}/deep/er/{path:path}"),
        ("/flask/items/7", "/flask/items/<int:number>"),  # counted once, though both apps are instrumented
        ("/flask/nothing", "/flask/{path}"),
        ("/v1/nothing", "/v1/{path}"),
        ("/nothing", ""),
    ],
)
def test_a_route_is_named_by_its_whole_template(store: Store, lines: list[Line], path: str, route: str) -> None:
    middleware = Middleware(ROUTED, store)
    for _ in range(2):  # also once it is known
        Client().get(middleware, path)
    assert [(found[0], found[3]) for found in counted(store)] == [(route, 2)]


def test_a_method_that_a_route_does_not_take_has_its_route(store: Store, lines: list[Line]) -> None:
    assert Client().get(Middleware(ROUTED, store), "/v1/items/7", method="DELETE").status == 405
    assert counted(store) == [("/v1/items/{number:int}", "405", "", 1)]


def test_an_endpoint_alone_tells_the_route(store: Store, lines: list[Line]) -> None:
    """Starlette before 1.0 leaves no route in the scope."""

    async def older(scope: Any, receive: Any, send: Any) -> None:
        await ROUTED(scope, receive, send)

    async def forgetting(given: Any, receive: Any, send: Any) -> None:
        async def without_route(message: Any) -> None:
            given.pop("route", None)
            await send(message)

        await older(given, receive, without_route)

    middleware = Middleware(forgetting, store)
    Client().get(middleware, "/same/x")
    Client().get(middleware, "/v2/items/7")
    assert [found[0] for found in counted(store)] == ["/same/{name}", "/v2/items/{number:int}"]


def test_a_router_that_fastapi_includes_has_its_prefix() -> None:
    """Recent FastAPI (0.165) keeps an included router as one entry, whose contexts know the whole path."""
    shared = SimpleNamespace(path="/x/{y}", endpoint=None)

    def included(prefix: str) -> Any:
        context = SimpleNamespace(path=prefix + "/x/{y}", starlette_route=None, original_route=shared, endpoint=None)
        return SimpleNamespace(effective_route_contexts=lambda: [context])

    mount = SimpleNamespace(path="/sub", app=None, routes=[included("/c")])
    router = SimpleNamespace(routes=[included("/a"), included("/b"), mount])
    routes = Routes()
    for path in ("/a/x/1", "/b/x/2", "/sub/c/x/3"):
        expected = path[:-1] + "{y}"
        assert routes.template({"route": shared, "router": router, "path": path}) == expected


def test_headers_that_can_be_read_once_reach_the_server(store: Store, lines: Any) -> None:
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = (pair for pair in [(b"x-of", b"the app"), (b"content-length", b"two")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    class Keeping(Client):
        async def send(self, message: Any) -> None:
            seen.extend(message.get("headers", ()))
            await super().send(message)

    Keeping().get(Middleware(app, store))
    assert seen == [(b"x-of", b"the app"), (b"content-length", b"two")]
    assert [count for *_, count in counted(store)] == [1]
