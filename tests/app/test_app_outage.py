"""Databases and caches that are slow, gone, and back again."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app.cache import Generations, MemoryCache, RedisCache
from observability import catalogue, store
from tests.server import free_port, wait_until
from tests.services import Postgres, Redis

PROBLEM = "application/problem+json"


def _count(operation: str, result: str) -> float:
    (place,) = store.child(catalogue.CACHE_REQUESTS, "todos", operation, result).bind()
    return store.STORE.cells[place]


def _assert_unavailable(client: FlaskClient) -> None:
    for answer in (client.get("/todos"), client.post("/todos", json={"title": "t"})):
        assert (answer.status_code, answer.content_type) == (503, PROBLEM)
        assert int(answer.headers["Retry-After"]) > 0
        assert "psycopg" not in answer.text


def test_postgres_down_gives_503_and_recovers(make: Callable[..., FlaskClient], postgres: Postgres) -> None:
    client = make(database_url=postgres.url)
    where = client.post("/todos", json={"title": "t"}).headers["Location"]
    postgres.stop()
    try:
        _assert_unavailable(client)
        assert client.get("/healthz").status_code == 200
    finally:
        postgres.start()
    assert client.get(where).json["title"] == "t"
    assert client.get("/todos").status_code == 200


def test_an_app_boots_while_postgres_is_down(make: Callable[..., FlaskClient], postgres: Postgres) -> None:
    """The tables are made by the first request that finds the database back."""
    postgres.query("DROP TABLE IF EXISTS todos")
    postgres.stop()
    try:
        client = make(database_url=postgres.url)
        _assert_unavailable(client)
    finally:
        postgres.start()
    assert client.post("/todos", json={"title": "t"}).status_code == 201


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_pool_that_runs_short_gives_503(
    request: pytest.FixtureRequest, make: Callable[..., FlaskClient], database: str
) -> None:
    """While one request holds the only connection, the next waits as long as set, and gets a 503."""
    url = request.getfixturevalue("postgres").url if database == "postgres" else ""
    client = make(database_url=url, pool_size=1, pool_overflow=0, pool_timeout=0.2, faults=True)
    held = threading.Thread(target=lambda: client.post("/faults/hold?seconds=3"))
    held.start()
    wait_until(lambda: client.get("/todos").status_code == 503, 3, "an empty pool")
    _assert_unavailable(client)
    held.join(20)
    assert client.get("/todos").status_code == 200


def test_sqlite_that_stays_locked_gives_503(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setattr("app.database.SQLITE_BUSY_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "data" / "todos.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = client.post("/todos", json={"title": "t"})
    assert (answer.status_code, answer.content_type) == (503, PROBLEM)
    other.execute("ROLLBACK")
    other.close()
    assert client.post("/todos", json={"title": "t"}).status_code == 201


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_todo_is_cached_and_a_write_is_seen(
    request: pytest.FixtureRequest, make: Callable[..., FlaskClient], kind: str
) -> None:
    """The second read is a hit, and a write through one worker is seen by another at once."""
    url = request.getfixturevalue("redis").url if kind == "redis" else ""
    here, there = make(redis_url=url), make(redis_url=url)
    where = here.post("/todos", json={"title": "old"}).headers["Location"]
    hits, misses = _count("get", "hit"), _count("get", "miss")
    assert [there.get(where).json["title"] for _ in range(3)] == ["old"] * 3
    assert (_count("get", "hit") - hits, _count("get", "miss") - misses) == (2, 1)
    here.put(where, json={"title": "new"})
    assert there.get(where).json["title"] == "new"
    here.delete(where)
    assert there.get(where).status_code == 404


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_slow_reader_does_not_undo_a_write(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """What was read before a write is not kept after it."""
    if kind == "redis":
        url = request.getfixturevalue("redis").url
        reader, writer = RedisCache(url, 30), RedisCache(url, 30)
    else:
        reader, writer = (MemoryCache(30, 10, Generations(tmp_path)) for _ in range(2))

    def slow() -> bytes:
        writer.forget("k")
        return b"old"

    assert reader.fetch("k", slow) == b"old"
    assert reader.fetch("k", lambda: b"new") == b"new"


def test_the_memory_cache_is_bounded_in_number_and_time(tmp_path: Path) -> None:
    cache = MemoryCache(0.05, 2, Generations(tmp_path))
    for key in "abc":
        cache.fetch(key, key.encode)
    assert cache.fetch("c", lambda: b"again") == b"c"
    assert cache.fetch("a", lambda: b"again") == b"again"
    time.sleep(0.1)
    assert cache.fetch("a", lambda: b"late") == b"late"


def test_a_directory_that_cannot_be_shared_costs_only_freshness(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = MemoryCache(30, 10, Generations(tmp_path / "file"))
    assert cache.fetch("k", lambda: b"old") == b"old"
    cache.forget("k")
    assert cache.fetch("k", lambda: b"new") == b"new"


def test_redis_killed_in_mid_flight_degrades_and_recovers(
    make: Callable[..., FlaskClient],
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without its cache the service answers from the database, counts it, says it once, and takes the cache back."""
    monkeypatch.setattr(RedisCache, "PAUSE_SECONDS", 0.5)
    client = make(redis_url=redis.url)
    where = client.post("/todos", json={"title": "old"}).headers["Location"]
    assert client.get(where).status_code == 200
    errors, skipped = _count("get", "error"), _count("get", "skipped")
    redis.kill()
    for _ in range(20):
        assert client.get(where).json["title"] == "old"
    assert client.put(where, json={"title": "new"}).status_code == 200
    assert client.get(where).json["title"] == "new"
    assert _count("get", "error") > errors
    assert _count("get", "skipped") > skipped

    redis.start()
    hits = _count("get", "hit")
    wait_until(lambda: client.get(where).json["title"] == "new" and _count("get", "hit") > hits, 10, "a hit")
    said = capfd.readouterr().out
    assert said.count("cache.down") == 1
    assert said.count("cache.up") == 1


def test_a_redis_that_hangs_does_not_make_every_request_wait(make: Callable[..., FlaskClient], redis: Redis) -> None:
    """One request pays the timeout, and the next ones pass by."""
    client = make(redis_url=redis.url)
    where = client.post("/todos", json={"title": "t"}).headers["Location"]
    client.get(where)
    errors = _count("get", "error")
    redis.pause()
    try:
        for _ in range(20):
            assert client.get(where).json["title"] == "t"
    finally:
        redis.resume()
    assert _count("get", "error") - errors <= 2  # with a trial after the pause, if this machine is slow


def test_a_redis_that_was_never_there_is_no_outage(make: Callable[..., FlaskClient]) -> None:
    client = make(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    where = client.post("/todos", json={"title": "t"}).headers["Location"]
    assert client.get(where).json["title"] == "t"
    assert client.delete(where).status_code == 204
    assert client.get(where).status_code == 404
