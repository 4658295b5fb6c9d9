"""Two small apps, WSGI and ASGI, that wait, block, compute or collect garbage as they are asked."""

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable, Iterable
from typing import Any

import observability

LIBC = ctypes.CDLL(None)


def _do(path: str) -> None:
    what, seconds = path.strip("/").split("/")
    if what == "wait":
        time.sleep(float(seconds))  # another greenlet's turn, where gevent has patched it
    if what == "block":
        LIBC.poll(None, 0, int(float(seconds) * 1000))  # a driver written in C: no patch reaches it
    if what == "spin":
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            pass
    if what == "collect":
        gc.collect(int(seconds))


def _wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    _do(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


async def _asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"].startswith("/wait/"):
        await asyncio.sleep(float(scope["path"].rpartition("/")[2]))
    else:
        _do(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


wsgi = observability.instrument(_wsgi)
asgi = observability.instrument(_asgi)
