"""What each worker class can tell of itself from within: what waits in it, and what it holds.

The only place that knows attributes of gunicorn's worker classes; tests/gunicorn/test_versions.py checks that every
supported release has them. What is not there is None, and not shown.
"""

import itertools
from collections.abc import Iterator
from types import FrameType
from typing import Any

from observability import layout
from observability.store import STORE


class Inside:
    """A worker of a class that runs one request at a time and keeps no queue of its own: sync.

    Args:
        worker: gunicorn's worker, in its own process, the app loaded.
    """

    has_loop = False
    watched = False  # whether there is something to look at again and again

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def queued(self) -> int | None:
        """Return the requests that it has accepted and that wait for their turn."""
        return None

    def greenlets(self) -> int | None:
        """Return the greenlets that serve a connection."""
        return None

    def kept(self) -> int | None:
        """Return the connections that it holds while no request runs on them."""
        return None


class Gthread(Inside):
    """A pool of threads, with a queue without bounds before it."""

    watched = True

    def queued(self) -> int | None:
        """Return the length of the pool's own queue, which is private to the standard library."""
        queue = getattr(getattr(self.worker, "tpool", None), "_work_queue", None)
        return None if queue is None else int(queue.qsize())

    def kept(self) -> int | None:
        """Return the connections between two requests, and those that have not sent one yet."""
        held = [getattr(self.worker, name, None) for name in ("keepalived_conns", "pending_conns")]
        return None if None in held else sum(map(len, held))  # type: ignore[arg-type]


class Looping(Inside):
    """Requests share one event loop."""

    has_loop = watched = True

    def connections(self) -> int | None:
        """Return the client connections that it holds."""
        return None

    def kept(self) -> int | None:
        """Return the connections on which no request is in flight."""
        held = self.connections()
        return None if held is None else max(0, held - int(STORE.cells[layout.ACTIVE]))


class Asgi(Looping):
    """gunicorn's own ASGI worker counts its connections."""

    def connections(self) -> int | None:
        """Return gunicorn's count."""
        count = getattr(self.worker, "nr_conns", None)
        return None if count is None else int(count)


class Tornado(Looping):
    """A loop of Tornado's own, over asyncio's."""


class Gevent(Looping):
    """A greenlet a connection, in one pool a listener; only the frame of the worker's `run` knows those pools."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        import gevent

        self._main = gevent.getcurrent()  # hooks run in the greenlet that will call `run`
        self._pools: list[Any] = []

    def greenlets(self) -> int | None:
        """Return the greenlets in all pools."""
        return sum(pool.size - pool.free_count() for pool in self._pools) if self._pools else None

    connections = greenlets

    def serving(self) -> Iterator[Any]:
        """Yield the greenlets in all pools themselves."""
        return itertools.chain.from_iterable(list(pool.greenlets) for pool in self._pools)

    def find_pools(self) -> bool:
        """Look for the pools; called on the loop, while `run` waits. Tell whether they are known."""
        frame: FrameType | None = self._main.gr_frame
        while frame is not None and not self._pools:
            if frame.f_code.co_name == "run" and frame.f_locals.get("self") is self.worker:
                self._pools = [server.pool for server in frame.f_locals.get("servers", ())]
            frame = frame.f_back
        return bool(self._pools)


_CLASSES = {
    "gunicorn.workers.gthread": Gthread,
    "gunicorn.workers.ggevent": Gevent,
    "gunicorn.workers.gasgi": Asgi,
    "gunicorn.workers.gtornado": Tornado,
    "uvicorn.workers": Looping,
    "uvicorn_worker._workers": Looping,
    "aiohttp.worker": Looping,
}


def of(worker: Any) -> Inside:
    """Return what can be told of a worker, by the class that its own class descends from."""
    for base in type(worker).__mro__:
        if base.__module__ in _CLASSES:
            return _CLASSES[base.__module__](worker)
    return Inside(worker)
