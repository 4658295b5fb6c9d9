"""The probe as an ASGI callable without a framework; it knows no routes, and no lifespan."""

import asyncio
import os
from typing import Any
from urllib.parse import parse_qs

import observability


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    name, _, value = scope["path"].strip("/").partition("/")
    if name == "fail":
        raise ValueError("probe failed\nwith a second line")
    if name == "sleep":
        await asyncio.sleep(float(value))
    if name == "items":
        observability.annotate(item=int(value))
    chunks, pause = 1, 0.0
    if name == "stream":
        chunks, pause = int(value), float(parse_qs(scope["query_string"].decode()).get("pause", ["0"])[0])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(chunks):
        await asyncio.sleep(pause)
        body = b"x" * 1000 if name == "stream" else str(os.getpid()).encode()
        await send({"type": "http.response.body", "body": body, "more_body": number + 1 < chunks})


def create_app() -> Any:
    return observability.instrument(app)
