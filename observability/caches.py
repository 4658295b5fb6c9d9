"""What a cache does: hits, misses and errors, and how long its answers take.

OpenTelemetry has no convention for caches. Requests and their results are counted under names of our own, the same for
every kind of cache; one in a database such as Redis is that database's client too, and is measured as such as well.
"""

from observability import catalogue, runtime
from observability.store import child


class CacheWatch:
    """Measures one cache.

    Args:
        name: the cache's, as its metrics carry it.
        system: the database that it lives in, by OpenTelemetry's name, such as redis; empty for one inside the process.
    """

    def __init__(self, name: str, system: str = "") -> None:
        self.name = name
        self.system = system

    def record(
        self,
        operation: str,
        result: str,
        seconds: float | None = None,
        command: str = "",
        error: BaseException | None = None,
    ) -> None:
        """Count a request to the cache. Never raises.

        Args:
            operation: what was asked for: get, set, or delete.
            result: what came of it: of a get, hit or miss; of the others, ok; of any, error or skipped.
            seconds: how long it took; None where nothing was asked, since the cache was just seen down.
            command: the database's command, such as GET; ignored without a `system`.
            error: why it failed.
        """
        try:
            child(catalogue.CACHE_REQUESTS, self.name, operation, result).inc()
            if seconds is None:
                return
            child(catalogue.CACHE_DURATION, self.name, operation).observe(seconds)
            if self.system:
                kind = type(error).__name__ if error else ""
                child(catalogue.DATABASE_OPERATION, self.system, command, kind).observe(seconds)
        except Exception as failure:
            runtime.failed("cache", failure)


def watch_cache(name: str, system: str = "") -> CacheWatch:
    """Make what a cache tells its requests to; `system` names the database that it lives in, if any."""
    return CacheWatch(name, system)
