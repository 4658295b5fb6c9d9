"""Faults on purpose, so that alerts, dashboards and the tuner can be seen at work; off unless FAULTS_ENABLED.

Each is a function that does it and says what it did. Its parameters are a struct, read from the query string, and
none goes beyond its maximum.
"""

import ctypes
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NoReturn

import msgspec
from flask import Blueprint, Response, jsonify
from msgspec import Meta
from sqlalchemy import text

from app import inputs
from app.database import Database
from app.problems import Problem
from observability import annotate, get_logger

MAX_SLEEP_SECONDS: Final = 120
MAX_CPU_SECONDS: Final = 60
MAX_BLOCK_SECONDS: Final = 120
MAX_HOLD_SECONDS: Final = 60
MAX_LEAK_MIB: Final = 64  # at a time
MAX_LEAKED_MIB: Final = 256  # in a worker
MAX_EXIT_CODE: Final = 255

_MIB: Final = 2**20
_SIGNALS: Final = {"segv": signal.SIGSEGV, "kill": signal.SIGKILL}
_leaked: list[bytes] = []
_leaking = threading.Lock()
_log = get_logger("app.faults")

Did = dict[str, Any]


class Injected(Exception):
    """What the fail fault raises: an error that nobody has foreseen."""


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    pass


class SleepFor(_Parameters):
    """How long to sleep."""

    seconds: Annotated[float, Meta(ge=0, le=MAX_SLEEP_SECONDS)] = 1.0


class BurnFor(_Parameters):
    """How long to burn CPU."""

    seconds: Annotated[float, Meta(ge=0, le=MAX_CPU_SECONDS)] = 1.0


class BlockFor(_Parameters):
    """How long to block; with `gil`, no other thread of the worker runs meanwhile."""

    seconds: Annotated[float, Meta(ge=0, le=MAX_BLOCK_SECONDS)] = 1.0
    gil: bool = False


class HoldFor(_Parameters):
    """How long to hold a connection."""

    seconds: Annotated[float, Meta(ge=0, le=MAX_HOLD_SECONDS)] = 1.0


class FailRate(_Parameters):
    """Share of requests that fail."""

    rate: Annotated[float, Meta(ge=0, le=1)] = 1.0


class LeakSize(_Parameters):
    """How much to leak."""

    mib: Annotated[int, Meta(ge=1, le=MAX_LEAK_MIB)] = 8


class CrashHow(_Parameters):
    """How to die; `code` is the exit code, and gunicorn takes 3 and 4 as a reason to halt the whole server."""

    how: Literal["exit", "segv", "kill"] = "exit"
    code: Annotated[int, Meta(ge=0, le=MAX_EXIT_CODE)] = 1


@contextmanager
def _timed() -> Iterator[Did]:
    did: Did = {}
    started = time.monotonic()
    yield did
    did["seconds"] = round(time.monotonic() - started, 3)


def sleep(asked: SleepFor) -> Did:
    """Wait, as for a slow upstream; a gevent worker goes on with other requests."""
    with _timed() as did:
        time.sleep(asked.seconds)
    return did


def cpu(asked: BurnFor) -> Did:
    """Burn CPU without a pause."""
    with _timed() as did:
        until = time.monotonic() + asked.seconds
        while time.monotonic() < until:
            pass
    return did


def block(asked: BlockFor) -> Did:
    """Block the thread in C, where no gevent patch reaches: a gevent worker stands still."""
    library = ctypes.PyDLL(None) if asked.gil else ctypes.CDLL(None)  # PyDLL keeps the GIL during the call
    with _timed() as did:
        library.usleep(ctypes.c_uint(round(asked.seconds * 1_000_000)))
    return did | {"gil": asked.gil}


def fail(asked: FailRate) -> Did:
    """Raise an uncaught exception at a rate."""
    if random.random() < asked.rate:  # noqa: S311 - chance, not a secret
        raise Injected(f"injected at rate {asked.rate:g}")
    return {"failed": False, "rate": asked.rate}


def leak(asked: LeakSize) -> Did:
    """Keep memory until `DELETE /faults/leak`, or the worker's end."""
    with _leaking:
        total = asked.mib + _leaked_mib()
        if total > MAX_LEAKED_MIB:
            detail = f"Expected `int` <= {MAX_LEAKED_MIB - _leaked_mib()}: this worker leaks {_leaked_mib()} already"
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"A worker leaks at most {MAX_LEAKED_MIB} MiB.",
                [{"parameter": "mib", "detail": detail}],
            )
        _leaked.append(b"\x01" * (asked.mib * _MIB))  # not zeros, which the kernel would not back with memory
    return {"leaked_mib": asked.mib, "total_mib": total, "worker_pid": os.getpid()}


def free() -> Did:
    """Free what this worker leaks."""
    with _leaking:
        freed = _leaked_mib()
        _leaked.clear()
    return {"freed_mib": freed, "worker_pid": os.getpid()}


def _leaked_mib() -> int:
    return sum(map(len, _leaked)) // _MIB


def crash(asked: CrashHow) -> NoReturn:
    """End the worker at once, by an exit code, SIGSEGV or SIGKILL; no answer is sent."""
    _log.warning("fault.crash", how=asked.how, code=asked.code)
    if asked.how in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[asked.how])
        time.sleep(1)  # the signal may be delivered to another thread first
    os._exit(asked.code)


def hold(database: Database, asked: HoldFor) -> Did:
    """Hold a database connection, so that the pool runs short."""
    with database.transaction() as connection, _timed() as did:
        connection.execute(text("SELECT 1"))
        time.sleep(asked.seconds)
    return did


def blueprint(database: Database) -> Blueprint:
    """Make the routes under /faults."""
    routes = Blueprint("faults", __name__, url_prefix="/faults")
    faults: dict[str, tuple[type[_Parameters], Callable[[Any], Did]]] = {
        "sleep": (SleepFor, sleep),
        "cpu": (BurnFor, cpu),
        "block": (BlockFor, block),
        "fail": (FailRate, fail),
        "leak": (LeakSize, leak),
        "crash": (CrashHow, crash),
        "hold": (HoldFor, partial(hold, database)),
    }
    listed = [_describe(name, *fault) for name, fault in faults.items()]

    @routes.get("")
    def index() -> Response:
        return jsonify(faults=listed)

    @routes.delete("/leak")
    def leak_delete() -> Response:
        return jsonify(fault="leak", did=free())

    for name, fault in faults.items():
        # GET as well, which is wrong for what has effects, but is what browsers and load generators send.
        routes.add_url_rule(f"/{name}", name, partial(_inject, name, *fault), methods=["GET", "POST"])
    return routes


def _inject(name: str, parameters: type[_Parameters], run: Callable[[Any], Did]) -> Response:
    annotate(fault=name)
    return jsonify(fault=name, did=run(inputs.query(parameters)))


def _describe(name: str, parameters: type[_Parameters], run: Callable[[Any], Did]) -> dict[str, Any]:
    schema = msgspec.json.schema_components([parameters])[1][parameters.__name__]
    about = (run.func if isinstance(run, partial) else run).__doc__
    return {"fault": name, "path": f"/faults/{name}", "about": about, "parameters": schema["properties"]}
