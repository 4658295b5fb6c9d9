"""What a server tells of its database and its cache: the pool that runs short, the cache that is gone."""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
import requests
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import observability
from observability import catalogue, store
from tests.server import Samples, Server, wait_until
from tests.services import Postgres, Redis

APP = "app:create_app()"
POOL = {"db_client_connection_pool_name": "primary"}


def _pool(samples: Samples) -> tuple[float, float, float]:
    """Return how many connections are idle and used, and how many requests wait for one."""
    idle, used = (
        samples.sum("db_client_connection_count", db_client_connection_state=state, **POOL)
        for state in ("idle", "used")
    )
    return idle, used, samples.sum("db_client_connection_pending_requests", **POOL)


@pytest.mark.parametrize(
    "how",
    [
        {"GUNICORN_WORKER_CLASS": "gevent"},
        {"GUNICORN_WORKER_CLASS": "gthread", "GUNICORN_THREADS": 8, "GUNICORN_PRELOAD": 1},
    ],
    ids=["gevent", "gthread-preload"],
)
def test_a_pool_that_runs_short_is_seen_while_it_does(
    serve: Callable[..., Server], postgres: Postgres, how: dict[str, object]
) -> None:
    """A slow query holds the only connection: who waits is shown, then who waited in vain, then all is well again."""
    short = {"DATABASE_POOL_SIZE": 1, "DATABASE_POOL_OVERFLOW": 0, "DATABASE_POOL_TIMEOUT": 4}
    server = serve(APP, WEB_CONCURRENCY=1, DATABASE_URL=postgres.url, **short, **how)
    assert list(server.metrics().select("db_client_connection_max")) == [], "no pool yet, and none of the master's"
    with psycopg.connect(postgres.url) as other, ThreadPoolExecutor(3) as clients:
        other.execute("LOCK TABLE todos")
        slow = clients.submit(server.get, "/todos")
        wait_until(lambda: _pool(server.metrics()) == (0, 1, 0), 20, "a connection in use")
        waiting = [clients.submit(server.get, "/todos") for _ in range(2)]
        wait_until(lambda: _pool(server.metrics()) == (0, 1, 2), 20, "two requests that wait")
        assert [each.result().status_code for each in waiting] == [503, 503]
        other.rollback()
        assert slow.result().status_code == 200
    wait_until(lambda: _pool(server.metrics()) == (1, 0, 0), 20, "an idle connection")
    samples = server.metrics()
    assert samples.sum("db_client_connection_timeouts_total", **POOL) == 2
    assert samples.sum("db_client_connection_wait_time_seconds_count", **POOL) == 3
    assert samples.sum("db_client_connection_wait_time_seconds_sum", **POOL) > 2 * 3
    assert samples.sum("db_client_connection_use_time_seconds_sum", **POOL) > 3
    assert samples.sum("db_client_connection_create_time_seconds_count", **POOL) == 1
    assert samples.sum("db_client_connection_max", **POOL) == 1
    assert samples.sum("db_client_connection_idle_max", **POOL) == 1

    (pid,) = server.worker_pids()
    server.signal(signal.SIGKILL, pid)
    wait_until(lambda: list(server.metrics().select("db_client_connection_max")) == [], 20, "the worker's end")
    samples = server.metrics()
    assert _pool(samples) == (0, 0, 0)
    assert samples.sum("db_client_connection_timeouts_total", **POOL) == 2, "counters go on"
    server.wait_ready()  # a worker that still boots takes its time to leave


def test_a_cache_that_is_gone_is_counted_and_slows_nobody_down(serve: Callable[..., Server], redis: Redis) -> None:
    server = serve(APP, WEB_CONCURRENCY=1, REDIS_URL=redis.url, GUNICORN_GRACEFUL_TIMEOUT=1)
    made = requests.post(f"{server.url}/todos", json={"title": "t"}, timeout=20)
    look = partial(server.get, f"/todos/{made.json()['id']}")

    def results() -> dict[str, float]:
        return server.metrics().by("result", "cache_requests_total", cache="todos", operation="get")

    def seen(*wanted: str) -> bool:
        assert look().status_code == 200
        return all(results().get(result) for result in wanted)

    wait_until(lambda: seen("miss", "hit"), 20, "a hit")
    redis.kill()
    wait_until(lambda: seen("error", "skipped"), 20, "an error, and those that pass by after it")

    found, samples = results(), server.metrics()
    answered = {"db_system_name": "redis", "db_operation_name": "GET", "error_type": ""}
    commands = list(samples.select("db_client_operation_duration_seconds_count", db_operation_name="GET"))
    assert samples.sum("db_client_operation_duration_seconds_count", **answered) == found["hit"] + found["miss"]
    assert sum(each.value for each in commands if each.labels["error_type"]) == found["error"]
    asked = samples.sum("cache_request_duration_seconds_count", cache="todos", operation="get")
    assert asked == found["hit"] + found["miss"] + found["error"]
    assert samples.sum("cache_request_duration_seconds_sum", cache="todos", operation="get") < asked, "seconds"


def test_the_pool_of_an_async_engine_is_watched_too(postgres: Postgres) -> None:
    """One task waits for the connection that another one holds."""

    def now() -> list[float]:
        gauges = [
            store.child(catalogue.POOL_CONNECTIONS, "async", "idle"),
            store.child(catalogue.POOL_CONNECTIONS, "async", "used"),
            store.child(catalogue.POOL_PENDING, "async"),
        ]
        return [store.STORE.cells[gauge.bind()[0]] for gauge in gauges]

    async def hold_and_wait() -> None:
        url = postgres.url.replace("postgresql://", "postgresql+psycopg://")
        engine = observability.watch_pool(create_async_engine(url, pool_size=1, max_overflow=0), name="async")
        async with engine.connect() as held:
            assert (await held.execute(text("SELECT 1"))).scalar() == 1
            waits = asyncio.create_task(engine.connect().start())
            while now()[2] == 0:
                await asyncio.sleep(0.01)
            assert now() == [0, 1, 1]
        await (await waits).close()
        assert now() == [1, 0, 0]
        await engine.dispose()
        assert now() == [0, 0, 0]

    asyncio.run(asyncio.wait_for(hold_and_wait(), 20))
