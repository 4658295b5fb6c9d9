"""The middleware of an aiohttp app: each kind of answer is one measurement."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer

from observability import layout, runtime
from observability.aiohttp_app import instrument
from observability.store import Store

Client = TestClient[web.Request, web.Application]
Line = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("OBSERVABILITY_DIR", str(tmp_path / "state"))
    made = Store(tmp_path / "state")
    made.claim()
    yield made
    assert made.cells[layout.ACTIVE] == made.cells[layout.STARTS] == 0
    made.slot.close()


async def answer(request: web.Request) -> Any:
    """Answer as the path asks for."""
    how = request.match_info["how"]
    if how == "raise":
        raise LookupError("mine")
    if how == "slow":
        raise TimeoutError
    if how == "away":
        raise web.HTTPServiceUnavailable(text="away")
    if how == "nothing":
        return None
    if how == "file":
        return web.FileResponse(Path(__file__))
    if how == "broken":
        response = web.StreamResponse(status=206)
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError("the stream broke")
    return web.Response(text="fine", status=201)


async def echo(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


def serve(store: Store, act: Callable[[Client], Awaitable[None]]) -> None:
    """Run an app, with one that it mounts, while `act` asks it."""
    app, mounted = web.Application(), web.Application()
    instrument(instrument(app, store), store)
    instrument(mounted, store)
    mounted.router.add_get("/{how}", answer)
    app.router.add_route("*", "/answer/{how}", answer)
    app.router.add_get("/echo", echo)
    app.add_subapp("/mounted/", mounted)

    async def run() -> None:
        async with TestServer(app) as server, TestClient(server) as client:
            await act(client)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "status", "seen"),
    [
        ("/answer/fine", 201, ("/answer/{how}", 201, None, 4)),
        ("/mounted/fine", 201, ("/mounted/{how}", 201, None, 4)),
        ("/answer/file", 200, ("/answer/{how}", 200, None, Path(__file__).stat().st_size)),
        ("/answer/away", 503, ("/answer/{how}", 503, "503", 4)),
        ("/answer/raise", 500, ("/answer/{how}", 500, "LookupError", 0)),
        ("/answer/slow", 504, ("/answer/{how}", 504, "TimeoutError", 0)),
        ("/answer/nothing", 500, ("/answer/{how}", 500, "TypeError", 0)),
        ("/nowhere", 404, ("", 404, None, 14)),
    ],
)
def test_each_kind_of_answer_is_counted_once(
    store: Store, lines: list[Line], path: str, status: int, seen: tuple[object, ...]
) -> None:
    async def act(client: Client) -> None:
        async with client.get(path, headers={"X-Request-Start": "t=1"}) as answered:
            await answered.read()
            assert answered.status == status

    serve(store, act)
    (line,) = lines
    assert seen == (
        line["http.route"],
        line["http.response.status_code"],
        line.get("error.type"),
        line["http.response.body.size"],
    )
    assert store.cells[layout.REQUESTS] == 1


def test_a_stream_that_breaks_keeps_its_status_and_names_the_error(store: Store, lines: list[Line]) -> None:
    async def act(client: Client) -> None:
        async with client.get("/answer/broken") as answered:
            assert answered.status == 206
            with pytest.raises(ClientPayloadError):
                await answered.read()

    serve(store, act)
    (line,) = lines
    assert (line["http.response.status_code"], line["error.type"], line["http.response.body.size"]) == (
        206,
        "RuntimeError",
        4,
    )


def test_a_head_request_has_no_body(store: Store, lines: list[Line]) -> None:
    async def act(client: Client) -> None:
        async with client.head("/answer/file") as answered:
            assert answered.status == 200

    serve(store, act)
    assert [line["http.response.body.size"] for line in lines] == [0]


def test_a_header_that_a_middleware_around_ours_sets_is_sent(store: Store, lines: list[Line]) -> None:
    @web.middleware
    async def cors(request: web.Request, handler: Any) -> web.StreamResponse:
        answered: web.StreamResponse = await handler(request)
        answered.headers["X-Cors"] = "yes"
        return answered

    app = web.Application()
    app.router.add_get("/{how}", answer)
    instrument(app, store).middlewares.insert(0, cors)

    async def run() -> None:
        async with TestServer(app) as server, TestClient(server) as client, client.get("/fine") as answered:
            assert (answered.status, await answered.text(), answered.headers["X-Cors"]) == (201, "fine", "yes")

    asyncio.run(run())
    (line,) = lines
    assert (line["http.response.status_code"], line["http.response.body.size"]) == (201, 4)


def test_a_client_cannot_hide_a_request_by_asking_for_an_upgrade(store: Store, lines: list[Line]) -> None:
    async def act(client: Client) -> None:
        async with client.get("/answer/fine", headers={"Upgrade": "websocket", "Connection": "upgrade"}) as answered:
            assert answered.status == 201

    serve(store, act)
    assert [line["http.response.status_code"] for line in lines] == [201]


def test_a_websocket_passes_through(store: Store, lines: list[Line]) -> None:
    async def act(client: Client) -> None:
        async with client.ws_connect("/echo") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            assert store.cells[layout.ACTIVE] == 0
        assert socket.closed

    serve(store, act)
    assert lines == []


@pytest.mark.parametrize("where", ["begin", "finish"])
def test_telemetry_that_fails_changes_no_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, lines: list[Line], where: str
) -> None:
    failures: list[str] = []
    monkeypatch.setattr(runtime, "failed", lambda place, _error: failures.append(place))

    async def act(client: Client) -> None:
        async with client.get("/answer/fine") as answered:
            assert (answered.status, await answered.text()) == (201, "fine")

    if where == "begin":
        monkeypatch.setattr("observability.traces.begin", lambda *_: 1 / 0)
    else:
        monkeypatch.setattr("observability.request.Meter.kind", lambda *_: 1 / 0)
    serve(store, act)
    assert failures == ["request"]
