"""What a SQLAlchemy connection pool does: connections idle and in use, who waits for one, and for how long.

Names are OpenTelemetry's: https://opentelemetry.io/docs/specs/semconv/database/database-metrics/#connection-pools.
SQLAlchemy is imported by whoever has an engine to be watched, and not before. All that is used of it is public (its
events, and `Pool.connect`), but for one attribute, which `_most` reads.
"""

import os
import weakref
from collections.abc import Callable
from functools import wraps
from math import nan
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from observability import catalogue, runtime
from observability.store import STORE, child

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

    Entry = ConnectionPoolEntry

E = TypeVar("E")
_BEGUN = "observability.begun"
_watches: dict[str, "_Watch"] = {}


def watch_pool(engine: E, name: str = "") -> E:
    """Measure the connection pool of an engine, as soon as it lends connections; return the engine.

    Never raises: what cannot be watched is logged, and works unwatched.

    Args:
        engine: SQLAlchemy's `Engine` or `AsyncEngine`.
        name: the pool's, as its metrics carry it; engines of one name are added up. Without one, it is the engine's
            `pool_logging_name`, or `host:port/database`, or the kind of an embedded database.
    """
    try:
        given: Any = engine
        sync: Engine = getattr(given, "sync_engine", given)
        name = name or _name_of(sync)
        _watches.setdefault(name, _Watch(name)).add(sync)
    except Exception as error:
        runtime.failed("watch_pool", error)
    return engine


def _name_of(engine: "Engine") -> str:
    url = engine.url
    given = getattr(engine.pool, "logging_name", None)
    return given or (f"{url.host}:{url.port or ''}/{url.database or ''}" if url.host else url.get_backend_name())


def _guarded(method: Callable[..., None]) -> Callable[..., None]:
    """Keep a failure of ours from the app: SQLAlchemy passes on whatever a listener raises."""

    @wraps(method)
    def guarded(*arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:
            runtime.failed("pool", error)

    return guarded


class _Watch:
    """All pools of one name in this process.

    A connection is known by its entry in the pool, which outlives reconnections. One that vanishes with its pool,
    when an engine is dropped, is never closed by SQLAlchemy: its entry's end tells.

    Args:
        name: the pools'.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self.open: dict[int, weakref.finalize[Any, Any]] = {}
        self.used: dict[int, float] = {}  # since when, by `perf_counter`
        self.pending = 0
        self.epoch: object = None
        self._gauges = (
            child(catalogue.POOL_PENDING, name),
            child(catalogue.POOL_CONNECTIONS, name, "used"),
            child(catalogue.POOL_CONNECTIONS, name, "idle"),
        )
        self._places: list[int] = []
        self._timeouts = child(catalogue.POOL_TIMEOUTS, name)
        self._create_time = child(catalogue.POOL_CREATE_TIME, name)
        self._wait_time = child(catalogue.POOL_WAIT_TIME, name)
        self._use_time = child(catalogue.POOL_USE_TIME, name)

    def add(self, engine: "Engine") -> None:
        """Watch one more engine."""
        from sqlalchemy import event

        if engine in self.engines:
            return
        self.engines.add(engine)
        weakref.finalize(engine, self._show_limits).atexit = False
        event.listen(engine, "do_connect", self._connecting, insert=True)  # before one that may connect by itself
        event.listen(engine, "connect", self._connected, insert=True)  # before what else sets the connection up
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)
        event.listen(engine, "close", self._closed)
        event.listen(engine, "detach", self._detached)
        # `dispose` makes another pool, which has the events of this one, but not what was put on it
        event.listen(engine, "engine_disposed", _guarded(self._time_connect))
        self._time_connect(engine)
        self._show_limits()

    def _time_connect(self, engine: "Engine") -> None:
        """Time `Pool.connect`, which every checkout goes through: there is no event for the wait before it."""
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        here = weakref.ref(engine.pool)  # no cycle: a pool without an engine is to end at once, as it would unwatched
        connect = type(engine.pool).connect

        def timed() -> "PoolProxiedConnection":
            pool: Any = here()  # alive: whoever calls this has it
            begun = perf_counter()
            self._wait()
            timed_out = False
            try:
                return connect(pool)
            except PoolTimeoutError:
                timed_out = True
                raise
            finally:
                self._waited(begun, timed_out)

        engine.pool.connect = timed  # type: ignore[method-assign]

    @_guarded
    def _wait(self) -> None:
        with STORE.lock:
            self.pending += 1
            self._show()

    @_guarded
    def _waited(self, begun: float, timed_out: bool) -> None:
        """Note the end of a wait, for nothing or not: without those, a pool that gives nobody any would look fast."""
        with STORE.lock:
            self.pending = max(0, self.pending - 1)  # a fork has begun anew, maybe
            self._show()
            self._wait_time.observe(perf_counter() - begun)
            if timed_out:
                self._timeouts.inc()

    def _connecting(self, _dialect: Any, entry: "Entry", _arguments: Any, _parameters: Any) -> None:
        entry.info[_BEGUN] = perf_counter()

    @_guarded
    def _connected(self, _connection: Any, entry: "Entry") -> None:
        begun = entry.info.pop(_BEGUN, None)
        with STORE.lock:
            self._opened(entry)
            if begun is not None:  # it is not told of where the app brings a `creator` of its own
                self._create_time.observe(perf_counter() - begun)

    def _opened(self, entry: "Entry") -> None:
        key = id(entry)
        if key not in self.open:
            self.open[key] = weakref.finalize(entry, self._gone, key)
            self.open[key].atexit = False

    @_guarded
    def _checked_out(self, _connection: Any, entry: "Entry", _proxy: Any) -> None:
        key = id(entry)
        with STORE.lock:
            if key not in self.open:  # opened before it was watched, or by this process's parent
                self._opened(entry)
            self.used[key] = perf_counter()
            self._show()

    @_guarded
    def _checked_in(self, _connection: Any, entry: "Entry") -> None:
        with STORE.lock:
            since = self.used.pop(id(entry), None)
            if since is not None:  # or it never was lent: it could not be connected
                self._use_time.observe(perf_counter() - since)
            self._show()

    @_guarded
    def _closed(self, _connection: Any, entry: "Entry") -> None:
        with STORE.lock:
            ended = self.open.pop(id(entry), None)
            if ended is not None:
                ended.detach()
            self._show()

    def _detached(self, _connection: Any, entry: "Entry") -> None:
        if entry.dbapi_connection is None:  # else it has a new connection by now, which is another's
            self._gone(id(entry))

    @_guarded
    def _gone(self, key: int) -> None:
        """Forget a connection that its pool has no more."""
        with STORE.lock:
            self.open.pop(key, None)
            self.used.pop(key, None)
            self._show()

    def _show(self) -> None:
        """Write the present state, the lock held: on every way in and out, hence straight to its places."""
        if self.epoch is not STORE.epoch:
            self._begin()
        used = len(self.used)
        idle = len(self.open) - used
        cells, places = STORE.cells, self._places
        cells[places[0]] = self.pending
        cells[places[1]] = used
        cells[places[2]] = idle if idle > 0 else 0  # an invalid connection is closed before it is returned

    def _begin(self) -> None:
        """Show a pool at its first use in a process: one that a master made and never uses would only mislead."""
        self.epoch = STORE.epoch
        self._places = [gauge.bind()[0] for gauge in self._gauges]
        self._timeouts.inc(0.0)
        self._show_limits()

    @_guarded
    def _show_limits(self) -> None:
        if self.epoch is STORE.epoch:
            limits = [_most(engine.pool) for engine in list(self.engines)]
            self._show_limit(catalogue.POOL_IDLE_MAX, [kept for kept, _ in limits])
            self._show_limit(catalogue.POOL_MAX, [most for _, most in limits])

    def _show_limit(self, metric: catalogue.Metric, of_pools: list[float]) -> None:
        child(metric, self.name).set(sum(of_pools) if of_pools else nan)  # a gauge that is no number is not shown

    def begin_process(self) -> None:
        """Start over in a forked child: what the parent has lent is not the child's."""
        self.open, self.used, self.pending = {}, {}, 0


def _most(pool: "Pool") -> tuple[float, float]:
    """Return how many connections a pool keeps at most, and how many it has at most; NaN where nothing says."""
    size = getattr(pool, "size", None)
    kept = size() if callable(size) else 0
    if kept <= 0:  # a pool that keeps none, or as many as it is asked for
        return nan, nan
    overflow = getattr(pool, "_max_overflow", -1)  # private: nothing public tells it; -1 is no limit
    return kept, kept + overflow if overflow >= 0 else nan


def _begin_processes() -> None:
    for watch in _watches.values():
        watch.begin_process()


os.register_at_fork(after_in_child=_begin_processes)
