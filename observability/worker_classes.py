"""The worker classes of the field: what each needs, and how many requests it can run at the same time.

docs/worker-classes.md says what each is for, and shows what was seen of each.
"""

import importlib.util
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class WorkerClass:
    """One value of gunicorn's `worker_class`.

    Args:
        name: what gunicorn takes.
        capacity: what bounds the requests that run at the same time: a setting, one at a time, or nothing that the
            worker enforces.
        package: what has to be installed for it, beside gunicorn.
        runs: the kind of app that it can call.
        greenlets: whether it runs on gevent, which patches the standard library.
    """

    name: str
    capacity: Literal["one", "threads", "worker_connections", "unbounded"]
    package: str = ""
    runs: Literal["WSGI", "ASGI", "aiohttp"] = "WSGI"
    greenlets: bool = False


_ALL = (
    WorkerClass("sync", "one"),
    WorkerClass("gthread", "threads"),
    WorkerClass("gevent", "worker_connections", "gevent", greenlets=True),
    WorkerClass("gevent_pywsgi", "worker_connections", "gevent", greenlets=True),
    WorkerClass("gevent_wsgi", "worker_connections", "gevent", greenlets=True),  # the same under an older name
    WorkerClass("tornado", "one", "tornado"),  # a WSGI app runs on its loop, and holds it
    WorkerClass("asgi", "unbounded", runs="ASGI"),  # gunicorn's own; it does not enforce worker_connections
    WorkerClass("uvicorn_worker.UvicornWorker", "unbounded", "uvicorn-worker", runs="ASGI"),
    WorkerClass("uvicorn.workers.UvicornWorker", "unbounded", "uvicorn", runs="ASGI"),
    WorkerClass("aiohttp.GunicornWebWorker", "unbounded", "aiohttp", runs="aiohttp"),
)
WORKER_CLASSES = {each.name: each for each in _ALL}

# What gunicorn has removed, and what to use instead.
REMOVED = {
    "eventlet": "gevent",
    "gaiohttp": "aiohttp.GunicornWebWorker for an aiohttp app, or asgi",
}


def installed(package: str) -> bool:
    """Tell whether a package is there, without importing it."""
    return not package or importlib.util.find_spec(package.replace("-", "_")) is not None


def capacity(worker_class: str, threads: int, worker_connections: int) -> int | None:
    """Return how many requests a worker can run at the same time; None where it sets no bound, or is not known.

    Args:
        worker_class: gunicorn's setting.
        threads: gunicorn's setting, which gthread takes.
        worker_connections: gunicorn's setting, which the gevent classes take.
    """
    known = WORKER_CLASSES.get(worker_class)
    bounds = {"one": 1, "threads": threads, "worker_connections": worker_connections}
    return bounds.get(known.capacity) if known is not None else None
