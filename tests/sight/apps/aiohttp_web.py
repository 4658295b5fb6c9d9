"""The probe as an aiohttp app."""

import asyncio
import os

from aiohttp import web

import observability


async def index(_: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


async def item(request: web.Request) -> web.StreamResponse:
    observability.annotate(item=int(request.match_info["number"]))
    return web.json_response({"number": int(request.match_info["number"]), "worker": os.getpid()})


async def sleep(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(float(request.match_info["seconds"]))
    return web.Response(text="slept")


async def fail(_: web.Request) -> web.StreamResponse:
    raise ValueError("probe failed\nwith a second line")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(int(request.match_info["chunks"])):
        await asyncio.sleep(float(request.query.get("pause", "0")))
        await response.write(b"x" * 1000)
    return response


def create_app() -> web.Application:
    app = observability.instrument(web.Application())
    app.router.add_get("/", index)
    app.router.add_route("*", "/items/{number}", item)
    app.router.add_get("/sleep/{seconds}", sleep)
    app.router.add_get("/fail", fail)
    app.router.add_get("/stream/{chunks}", stream)
    return app
