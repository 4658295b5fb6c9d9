"""A read-through cache of single todos: inside the worker by default, in Redis by REDIS_URL.

A write may not be undone by a slow reader that read the old row just before it. Each cache has its own way to notice
that reader, so what it read is not kept.
"""

import mmap
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.processes import PerProcess
from app.settings import Settings
from observability import get_logger, watch_cache

T = TypeVar("T")
Load = Callable[[], bytes | None]

NAME = "todos"  # in the metrics
_log = get_logger("app.cache")


class Cache(Protocol):
    """Keeps what loading a key gave, for a while."""

    def fetch(self, key: str, load: Load) -> bytes | None:
        """Return the cached value, or else what `load` returns; None is not kept."""

    def forget(self, key: str) -> None:
        """Drop a key whose value has just been written to the database."""


def make(settings: Settings) -> Cache:
    """Make the cache that the settings ask for."""
    if settings.redis_url:
        return RedisCache(settings.redis_url, settings.cache_ttl)
    return MemoryCache(settings.cache_ttl, settings.cache_entries, Generations(settings.data_directory))


class Generations:
    """Tells all workers of a machine that a key was written: one random number a bucket of keys, in shared memory.

    A torn read of a number, or two keys in one bucket, only makes a cached value look old.
    """

    BUCKETS: Final = 8192
    WIDTH: Final = 8

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / "cache.generations").open("a+b") as file:
                file.truncate(self.BUCKETS * self.WIDTH)
                self._map = mmap.mmap(file.fileno(), self.BUCKETS * self.WIDTH)
        except OSError as error:
            _log.warning("cache.not_shared", error=str(error), consequence="stale for up to CACHE_TTL_SECONDS")
            self._map = mmap.mmap(-1, self.BUCKETS * self.WIDTH)

    def of(self, key: str) -> bytes:
        """Return the key's present generation."""
        at = self._at(key)
        return self._map[at : at + self.WIDTH]

    def change(self, key: str) -> None:
        """Begin a new generation of the key."""
        at = self._at(key)
        self._map[at : at + self.WIDTH] = os.urandom(self.WIDTH)

    def _at(self, key: str) -> int:
        return zlib.crc32(key.encode()) % self.BUCKETS * self.WIDTH


class MemoryCache:
    """A bounded cache inside the worker; the least recently used key leaves first.

    Args:
        ttl: seconds that a value is kept.
        entries: keys that are kept at most.
        generations: says whether a value is older than the last write to its key.
    """

    def __init__(self, ttl: float, entries: int, generations: Generations) -> None:
        self._ttl = ttl
        self._entries = entries
        self._generations = generations
        self._kept: OrderedDict[str, tuple[float, bytes, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._watch = watch_cache(NAME)

    def fetch(self, key: str, load: Load) -> bytes | None:
        """Return the cached value, or else what `load` returns; None is not kept."""
        begun = time.perf_counter()
        generation = self._generations.of(key)  # before the load: a write during it makes the value old
        value = self._get(key, generation)
        self._watch.record("get", "miss" if value is None else "hit", time.perf_counter() - begun)
        if value is None:
            value = load()
            if value is not None:
                self._set(key, generation, value)
        return value

    def forget(self, key: str) -> None:
        """Make the key's value old in every worker of this machine."""
        begun = time.perf_counter()
        self._generations.change(key)
        self._watch.record("delete", "ok", time.perf_counter() - begun)

    def _get(self, key: str, generation: bytes) -> bytes | None:
        with self._lock:
            until, of, value = self._kept.get(key, (0.0, b"", b""))
            if of != generation or time.monotonic() > until:
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return value

    def _set(self, key: str, generation: bytes, value: bytes) -> None:
        begun = time.perf_counter()
        with self._lock:
            self._kept[key] = (time.monotonic() + self._ttl, generation, value)
            if len(self._kept) > self._entries:
                self._kept.popitem(last=False)
        self._watch.record("set", "ok", time.perf_counter() - begun)


class RedisCache:
    """A cache that machines share; while it is down, the database answers alone.

    Args:
        url: where Redis is.
        ttl: seconds that a value is kept.
    """

    TIMEOUT_SECONDS: Final = 0.25  # longer, and the database would have been the faster way
    PAUSE_SECONDS: Final = 3.0  # how long a Redis that failed is left alone
    MAX_CONNECTIONS: Final = 10_000  # the worker's concurrency is the bound; running out would look like an outage
    BARRIER_SECONDS: Final = 10  # longer than any read of the database that a write may overtake
    _BARRIER: Final = b""  # stands for a key just written: no value, and none may be kept
    _PREFIX: Final = "sightline:"

    def __init__(self, url: str, ttl: int) -> None:
        self._url = url
        self._ttl = ttl
        self._redis = PerProcess(self._connect)
        self._down = False
        self._retry_at = 0.0
        self._watch = watch_cache(NAME, system="redis")

    def fetch(self, key: str, load: Load) -> bytes | None:
        """Return the cached value, or else what `load` returns; None is not kept."""
        name = self._PREFIX + key
        kept = self._try("get", "GET", lambda redis: redis.get(name))
        if kept:
            return bytes(kept)  # type: ignore[arg-type]  # the client's stubs cannot tell sync from async
        value = load()
        if value is not None and kept != self._BARRIER:
            self._try("set", "SET", lambda redis: redis.set(name, value, ex=self._ttl, nx=True))
        return value

    def forget(self, key: str) -> None:
        """Put a barrier in the key's place: a reader that read the old row cannot set it (NX) over it."""
        name = self._PREFIX + key
        self._try("delete", "SET", lambda redis: redis.set(name, self._BARRIER, ex=self.BARRIER_SECONDS))

    def _connect(self) -> Redis:
        pool = ConnectionPool.from_url(
            self._url,
            max_connections=self.MAX_CONNECTIONS,
            socket_timeout=self.TIMEOUT_SECONDS,
            socket_connect_timeout=self.TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        return Redis(connection_pool=pool)

    def _try(self, operation: str, command: str, call: Callable[[Redis], T]) -> T | None:
        """Do it unless Redis was just seen down; after the pause, one request finds out for all."""
        now = time.monotonic()
        if now < self._retry_at:
            self._watch.record(operation, "skipped")
            return None
        if self._down:
            self._retry_at = now + self.PAUSE_SECONDS
        begun = time.perf_counter()
        try:
            value = call(self._redis.get())
        except (RedisError, OSError) as error:
            self._watch.record(operation, "error", time.perf_counter() - begun, command, error)
            self._fell(error)
            return None
        result = "ok" if operation != "get" else "hit" if value else "miss"
        self._watch.record(operation, result, time.perf_counter() - begun, command)
        self._stands()
        return value

    def _fell(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + self.PAUSE_SECONDS
        if not self._down:
            _log.warning("cache.down", error=f"{type(error).__name__}: {error}")
        self._down = True

    def _stands(self) -> None:
        if self._down:
            _log.info("cache.up")
        self._down = False
        self._retry_at = 0.0
