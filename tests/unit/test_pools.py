"""Connection pools: what lends, what waits, what is left, whatever the pool's kind and its connections' end."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from observability import exposition, pools, runtime, watch_pool
from observability.scrape import Scraper
from observability.store import Store
from tests.server import Samples, wait_until


class Seen:
    """What the agent would show.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self.scraper = Scraper(directory)

    def samples(self) -> Samples:
        page = exposition.write(self.scraper.scrape()[0], exposition.negotiate("")).decode()
        return Samples([sample for family in text_string_to_metric_families(page) for sample in family.samples])

    def get(self, name: str, pool: str = "main", **labels: str) -> float | None:
        """Return a value of a pool, by the end of its metric's name; None where it is not shown."""
        name = f"db_client_connection_{name}"
        found = [each.value for each in self.samples().select(name, db_client_connection_pool_name=pool, **labels)]
        assert len(found) <= 1
        return found[0] if found else None

    def state(self, pool: str = "main") -> tuple[float | None, float | None, float | None]:
        """Return how many are idle, used, and waited for."""
        counts = (self.get("count", pool, db_client_connection_state=state) for state in ("idle", "used"))
        return *counts, self.get("pending_requests", pool)  # type: ignore[return-value]

    def times(self, kind: str) -> tuple[float, float]:
        """Return how many times were measured, and their sum."""
        return self.get(f"{kind}_time_seconds_count") or 0.0, self.get(f"{kind}_time_seconds_sum") or 0.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("OBSERVABILITY_DIR", str(tmp_path / "state"))
    made = Store(tmp_path / "state")
    made.claim()
    monkeypatch.setattr(pools, "STORE", made)
    monkeypatch.setattr(pools, "child", made.child)
    monkeypatch.setattr(pools, "_watches", {})
    yield made
    made.slot.close()


@pytest.fixture
def seen(store: Store, tmp_path: Path) -> Seen:
    return Seen(tmp_path / "state")


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Return a function that makes a watched engine; QueuePool with one connection by default."""
    made = []

    def engine(kind: type[Pool] = QueuePool, name: str = "main", **options: Any) -> Engine:
        if kind is QueuePool:
            options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 10, **options}
        arguments = {"check_same_thread": False}
        url = f"sqlite:///{tmp_path}/data"
        made.append(watch_pool(create_engine(url, poolclass=kind, connect_args=arguments, **options), name=name))
        return made[-1]

    yield engine
    for each in made:
        each.dispose()


def test_a_pool_that_is_not_used_is_not_shown(make: Callable[..., Engine], seen: Seen) -> None:
    """One that a master made for its workers is not one more pool."""
    make()
    assert seen.state() == (None, None, None)
    assert seen.get("max") is None


def test_connections_are_idle_or_used(make: Callable[..., Engine], seen: Seen) -> None:
    engine = make(pool_size=2, max_overflow=3)
    with engine.connect():
        assert seen.state() == (0, 1, 0)
        with engine.connect():
            assert seen.state() == (0, 2, 0)
        assert seen.state() == (1, 1, 0)
    assert seen.state() == (2, 0, 0)
    assert (seen.get("idle_max"), seen.get("max")) == (2, 5)
    assert seen.get("timeouts_total") == 0
    assert [seen.times(kind)[0] for kind in ("wait", "use", "create")] == [2, 2, 2]
    engine.dispose()
    assert seen.state() == (0, 0, 0)


def test_who_waits_is_seen_while_it_waits_and_how_long_afterwards(make: Callable[..., Engine], seen: Seen) -> None:
    engine = make()
    held = engine.connect()
    waiting = [threading.Thread(target=lambda: engine.connect().close()) for _ in range(3)]
    begun = time.perf_counter()
    for thread in waiting:
        thread.start()
    wait_until(lambda: seen.state() == (0, 1, 3), 10, "three that wait")
    assert seen.times("wait")[0] == 1, "they have none yet"
    waited = time.perf_counter() - begun
    held.close()
    for thread in waiting:
        thread.join(10)
    assert seen.state() == (1, 0, 0)
    count, total = seen.times("wait")
    assert count == 4
    assert total > waited, "the sum of all three"
    count, total = seen.times("use")
    assert count == 4
    assert total > waited, "the one that held it"
    assert seen.times("create")[0] == 1


def test_a_timeout_is_counted_and_its_wait_too(make: Callable[..., Engine], seen: Seen) -> None:
    """Without the wait of those that got none, a pool that serves nobody would look fast."""
    engine = make(pool_timeout=0.05)
    with engine.connect():
        for _ in range(2):
            with pytest.raises(PoolTimeoutError, match="QueuePool limit"):
                engine.connect()
        assert seen.state() == (0, 1, 0)
    assert seen.get("timeouts_total") == 2
    count, total = seen.times("wait")
    assert count == 3
    assert total >= 0.1
    assert seen.times("use")[0] == 1


def test_an_overflow_connection_is_closed_when_it_is_given_back(make: Callable[..., Engine], seen: Seen) -> None:
    engine = make(max_overflow=2)
    held = [engine.connect() for _ in range(3)]
    assert seen.state() == (0, 3, 0)
    for connection in held:
        connection.close()
    assert seen.state() == (1, 0, 0)
    assert (seen.get("idle_max"), seen.get("max")) == (1, 3)


def test_an_invalidated_connection_is_none_and_the_next_is_a_new_one(make: Callable[..., Engine], seen: Seen) -> None:
    engine = make()
    with engine.connect() as connection:
        connection.invalidate()
        assert seen.state() == (0, 0, 0)
    with engine.connect() as connection:
        assert seen.state() == (0, 1, 0)
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert seen.state() == (1, 0, 0)
    assert seen.times("create")[0] == 2


def test_a_detached_connection_is_no_more_the_pools(make: Callable[..., Engine], seen: Seen) -> None:
    with make().connect() as connection:
        connection.detach()
        assert seen.state() == (0, 0, 0)
    assert seen.state() == (0, 0, 0)


def test_a_connection_that_is_forgotten_comes_back(make: Callable[..., Engine], seen: Seen) -> None:
    """Python's garbage collection returns what the app did not."""
    make().pool.connect()
    gc.collect()
    assert seen.state() == (1, 0, 0)


def test_a_database_that_is_away_leaves_nothing_behind(make: Callable[..., Engine], seen: Seen) -> None:
    engine = make()

    @event.listens_for(engine, "do_connect")
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        engine.connect()
    assert seen.state() == (0, 0, 0)
    assert (seen.times("wait")[0], seen.times("create")[0], seen.times("use")[0]) == (1, 0, 0)
    event.remove(engine, "do_connect", refuse)
    engine.connect().close()
    assert seen.state() == (1, 0, 0)


def test_a_connection_that_cannot_be_set_up_is_not_counted(make: Callable[..., Engine], seen: Seen) -> None:
    """SQLAlchemy closes it without a word."""
    engine = make()

    @event.listens_for(engine, "connect")
    def fail(*_: object) -> None:
        raise ValueError

    with suppress(ValueError):
        engine.connect()
    gc.collect()
    assert seen.state() == (0, 0, 0)


def test_a_disposed_pool_is_followed_by_its_successor(make: Callable[..., Engine], seen: Seen) -> None:
    """What it had lent comes back to nowhere, and is closed."""
    engine = make()
    lent = engine.connect()
    engine.dispose()
    with engine.connect():
        assert seen.state() == (0, 2, 0)
    lent.close()
    del lent
    gc.collect()
    assert seen.state() == (1, 0, 0)
    assert seen.get("max") == 1
    held = engine.connect()
    waiting = threading.Thread(target=lambda: engine.connect().close())
    waiting.start()
    wait_until(lambda: seen.state() == (0, 1, 1), 10, "one that waits")
    held.close()
    waiting.join(10)


def test_an_engine_that_is_dropped_takes_its_connections_along(
    store: Store, seen: Seen, recwarn: pytest.WarningsRecorder
) -> None:
    engine = watch_pool(create_engine("sqlite://", poolclass=QueuePool, pool_size=3), name="main")
    engine.connect().close()
    assert (seen.state(), seen.get("max")) == ((1, 0, 0), 13)
    del engine
    gc.collect()
    assert (seen.state(), seen.get("max")) == ((0, 0, 0), None)


def test_engines_of_one_name_are_added_up_and_others_are_apart(make: Callable[..., Engine], seen: Seen) -> None:
    with make().connect(), make(pool_size=2).connect(), make(name="replica").connect():
        assert seen.state() == (0, 2, 0)
        assert seen.get("max") == 3
        assert (seen.state("replica"), seen.get("max", "replica")) == ((0, 1, 0), 1)


def test_an_engine_that_is_watched_twice_is_counted_once(make: Callable[..., Engine], seen: Seen) -> None:
    engine = make()
    assert watch_pool(engine, name="main") is engine
    engine.connect().close()
    assert seen.state() == (1, 0, 0)
    assert seen.times("wait")[0] == 1


def test_connections_from_before_it_was_watched_are_seen_once_they_are_used(
    store: Store, seen: Seen, tmp_path: Path
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/data", poolclass=QueuePool)
    lent = engine.connect()
    watch_pool(engine, name="main")
    lent.close()
    with engine.connect():
        assert seen.state() == (0, 1, 0)
    engine.dispose()


@pytest.mark.parametrize(
    ("kind", "used", "after", "limits"),
    [
        (NullPool, (0, 2, 0), (0, 0, 0), (None, None)),
        (StaticPool, (0, 1, 0), (1, 0, 0), (None, None)),  # one connection, lent to all at once
        (SingletonThreadPool, (0, 1, 0), (1, 0, 0), (None, None)),  # one a thread, lent to it again and again
    ],
)
def test_a_pool_of_another_kind_shows_what_it_has(
    make: Callable[..., Engine], seen: Seen, kind: type[Pool], used: object, after: object, limits: object
) -> None:
    engine = make(kind)
    with engine.connect(), engine.connect():
        assert seen.state() == used
    assert seen.state() == after
    assert (seen.get("idle_max"), seen.get("max")) == limits


@pytest.mark.parametrize(
    ("options", "limits"),
    [({"pool_size": 2, "max_overflow": -1}, (2, None)), ({"pool_size": 0}, (None, None))],
)
def test_a_limit_that_there_is_not_is_not_shown(
    make: Callable[..., Engine], seen: Seen, options: dict[str, int], limits: object
) -> None:
    make(**options).connect().close()
    assert (seen.get("idle_max"), seen.get("max")) == limits


def test_a_forked_child_begins_anew_and_its_end_takes_its_gauges(
    make: Callable[..., Engine], store: Store, seen: Seen
) -> None:
    """With preload a worker may get the master's engine; what the master has lent is not the worker's."""
    engine = make()
    lent = engine.connect()
    ready, release = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            pools._begin_processes()  # as at a fork: this store is not the process's own
            store.after_fork()
            store.claim()
            engine.dispose(close=False)
            with engine.connect():
                os.write(ready[1], b"1")
                os.read(release[0], 1)
            code = 0
        finally:
            os._exit(code)
    os.read(ready[0], 1)
    assert seen.state() == (0, 2, 0), "the parent's and the child's"
    assert seen.get("max") == 2
    os.write(release[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert seen.state() == (0, 1, 0)
    assert seen.get("max") == 1
    assert seen.times("wait")[0] == 2, "what was counted stays"
    lent.close()


def test_a_fork_forgets_who_waited_and_what_was_lent() -> None:
    """Nobody else comes along into the child."""
    watch = pools._watches.setdefault("forked", pools._Watch("forked"))
    watch.pending, watch.used = 2, {1: 0.0}
    pid = os.fork()
    if pid == 0:
        os._exit(0 if (watch.pending, watch.used) == (0, {}) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    del pools._watches["forked"]


@pytest.mark.parametrize(
    ("url", "options", "name"),
    [
        ("postgresql+psycopg://user:secret@db.example:5432/shop", {}, "db.example:5432/shop"),
        ("postgresql+psycopg://user:secret@db.example/shop", {"pool_logging_name": "orders"}, "orders"),
        ("sqlite:////tmp/some/file", {}, "sqlite"),
    ],
)
def test_a_pool_without_a_name_gets_one_that_holds_no_secret(
    store: Store, url: str, options: dict[str, str], name: str
) -> None:
    watch_pool(create_engine(url, **options))
    assert list(pools._watches) == [name]


def test_what_cannot_be_watched_works_unwatched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[str] = []
    monkeypatch.setattr(runtime, "failed", lambda where, _error: failures.append(where))
    nothing = object()
    assert watch_pool(nothing) is nothing
    assert failures == ["watch_pool"]


def test_a_failure_of_ours_does_not_reach_the_app(
    make: Callable[..., Engine], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    monkeypatch.setattr(runtime, "failed", lambda where, _error: failures.append(where))
    engine = make()
    monkeypatch.setattr(pools._Watch, "_show", lambda _: 1 / 0)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert len(failures) >= 3
    assert set(failures) == {"pool"}


def test_a_sqlalchemy_that_hides_its_overflow_loses_only_the_maximum(
    make: Callable[..., Engine], seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = type("Hidden", (), {"size": lambda _: 2})()
    assert str(pools._most(hidden)) == "(2, nan)"
    engine = make(pool_size=2)
    monkeypatch.setattr(pools, "_most", lambda _pool, most=pools._most: most(hidden))
    engine.connect().close()
    assert (seen.state(), seen.get("idle_max"), seen.get("max")) == ((1, 0, 0), 2, None)


def test_many_threads_leave_a_true_count(make: Callable[..., Engine], seen: Seen) -> None:
    """Some break their connection, some wait for one in vain; in the end none is used and none is waited for."""
    engine = make(pool_size=2, max_overflow=1, pool_timeout=0.001)
    outcomes: list[bool] = []

    def use(number: int) -> None:
        for turn in range(50):
            try:
                with engine.connect() as connection:
                    if (number + turn) % 7 == 0:
                        connection.invalidate()
                outcomes.append(True)
            except PoolTimeoutError:
                outcomes.append(False)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    idle, used, pending = seen.state()
    assert (used, pending) == (0, 0)
    assert idle is not None
    assert 0 <= idle <= 2
    assert len(outcomes) == seen.times("wait")[0] == 400
    assert seen.get("timeouts_total") == outcomes.count(False)
    assert seen.times("use")[0] == outcomes.count(True)
