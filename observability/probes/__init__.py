"""Saturation of a worker, read from inside by its class, and of a server, read from outside through the kernel.

From inside: what waits in the worker, how late its event loop runs, and the line that blocks it. `start` runs in the
worker once the app is loaded: a thread from before gevent's patch would end with a KeyError.
"""

import asyncio
import contextvars
import gc
import os
from collections.abc import Callable
from typing import Any

from observability import loops, runtime, stacks
from observability.probes import inside, native
from observability.probes.collector import Collector
from observability.probes.inside import Inside
from observability.probes.loop import TICK_SECONDS, Clock
from observability.probes.watch import Watch

_inside: Inside | None = None  # of a worker whose asyncio loop has not been entered yet
_collector: Collector | None = None
_clock: Clock | None = None


def start(worker: Any) -> None:
    """Begin to watch this worker; called in its process, the app loaded, before it serves. Never raises."""
    try:
        found = inside.of(worker)
        _watch_collector()
        if isinstance(found, inside.Gevent):
            _watch_gevent(found)
        elif found.has_loop:
            _await_loop(found, worker)
        elif found.watched:
            _run(found)
    except Exception as error:
        runtime.failed("probes", error)


def on_loop() -> None:
    """Begin to watch the asyncio loop that runs now, once in a worker; else do nothing. Never raises."""
    global _inside
    found, _inside = _inside, None
    if found is None:
        return
    try:
        loop, clock = asyncio.get_running_loop(), Clock()
        clock.begin()

        def tick() -> None:
            clock.tick()
            call_later()

        def call_later() -> None:
            loop.call_later(TICK_SECONDS, tick, context=contextvars.Context())  # not the request's that happens to run

        call_later()
        _run(found, clock, loop.is_running)
    except Exception as error:
        runtime.failed("probes", error)


def _watch_collector() -> None:
    global _collector
    _collector = Collector()
    gc.callbacks.append(_collector)


def _watch_gevent(found: inside.Gevent) -> None:
    import gevent

    clock = Clock()

    def ticking() -> None:
        clock.begin()
        known = False
        while True:
            gevent.sleep(TICK_SECONDS)
            clock.tick()
            if not known and (known := found.find_pools()):
                stacks.greenlets.append(found.serving)

    gevent.spawn(ticking)
    _run(found, clock)


def _await_loop(found: Inside, worker: Any) -> None:
    """Have `on_loop` called as early as the class lets us: its loop runs only after every hook."""
    global _inside
    _inside = found
    loops.on_first_loop.append(on_loop)  # uvicorn's worker makes its loop when it runs
    loop = getattr(worker, "loop", None)
    if isinstance(found, inside.Tornado):
        from tornado.ioloop import IOLoop

        loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]
    if loop is not None:
        loop.call_soon(on_loop)


def _run(found: Inside, clock: Clock | None = None, runs: Callable[[], bool] = lambda: True) -> None:
    global _clock
    _clock = clock
    native.start_thread(Watch(found, runtime.settings().blocked_seconds, clock, runs).run)


def stop() -> None:
    """Stop judging the loop: the worker leaves, and what it still does may take its time."""
    if _clock is not None:
        _clock.end()


def _forget() -> None:
    """Leave off in a forked child: the thread is not there, and the worker is its parent."""
    global _inside, _clock
    _inside = _clock = None
    loops.on_first_loop.clear()
    if _collector in gc.callbacks:
        gc.callbacks.remove(_collector)


os.register_at_fork(after_in_child=_forget)
