"""The probe as a Starlette app, with a mounted part, and an instrumented Flask app mounted in it."""

import asyncio
import os
from collections.abc import AsyncIterator

from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

import observability
from tests import probe_app


async def index(_: Request) -> Response:
    return PlainTextResponse("ok")


async def item(request: Request) -> Response:
    number = request.path_params["number"]
    await asyncio.create_task(_annotate(number))
    return JSONResponse({"number": number, "worker": os.getpid()})


async def _annotate(number: int) -> None:
    observability.annotate(item=number)


async def sleep(request: Request) -> Response:
    await asyncio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("slept")


async def fail(_: Request) -> Response:
    raise ValueError("probe failed\nwith a second line")


async def stream(request: Request) -> Response:
    pause = float(request.query_params.get("pause", "0"))

    async def body() -> AsyncIterator[bytes]:
        for _ in range(request.path_params["chunks"]):
            await asyncio.sleep(pause)
            yield b"x" * 1000

    return StreamingResponse(body(), media_type="application/octet-stream")


def create_app() -> Starlette:
    app = observability.instrument(Starlette())
    app.router.routes += [
        Route("/", index),
        Route("/items/{number:int}", item, methods=["GET", "POST"]),
        Route("/sleep/{seconds}", sleep),
        Route("/fail", fail),
        Route("/stream/{chunks:int}", stream),
        Mount("/flask", app=WSGIMiddleware(probe_app.create_app())),  # type: ignore[arg-type]
    ]
    return app
