"""A small ASGI app without a framework that does what a test asks for, as tests/probe_app.py does it for WSGI."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import observability


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    what, _, argument = scope["path"].lstrip("/").partition("/")
    answer = await _do(what, argument)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": answer.encode()})


async def _lifespan(receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _do(what: str, argument: str) -> str:
    if what == "sleep":
        await asyncio.sleep(float(argument))
    elif what == "burn":
        until = time.monotonic() + float(argument)
        while time.monotonic() < until:
            pass
    elif what == "hold":
        return str(sum(range(10**12)))
    elif what == "eat":
        eaten = []
        while True:
            eaten.append(bytearray(1_000_000))
    elif what == "die" and argument.startswith("exit"):
        os._exit(int(argument[4:]))
    elif what == "die":
        signal.raise_signal(getattr(signal, f"SIG{argument}"))
    return "ok"


app = observability.instrument(application)
