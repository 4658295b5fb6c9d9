"""Caches: what is counted, what is measured, and that neither can fail the app."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from observability import caches, exposition, runtime, watch_cache
from observability.scrape import Scraper
from observability.store import Store
from tests.server import Samples


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("OBSERVABILITY_DIR", str(tmp_path / "state"))
    made = Store(tmp_path / "state")
    made.claim()
    monkeypatch.setattr(caches, "child", made.child)
    yield made
    made.slot.close()


@pytest.fixture
def samples(store: Store, tmp_path: Path) -> Samples:
    """Record what a cache in Redis and one in the process may see, and return what the agent would show."""
    redis, memory = watch_cache("todos", system="redis"), watch_cache("sessions")
    redis.record("get", "hit", 0.002, "GET")
    redis.record("get", "miss", 0.003, "GET")
    redis.record("get", "error", 0.25, "GET", ConnectionRefusedError())
    redis.record("set", "skipped")
    memory.record("get", "hit", 0.000002)
    page = exposition.write(Scraper(tmp_path / "state").scrape()[0], exposition.negotiate("")).decode()
    return Samples([sample for family in text_string_to_metric_families(page) for sample in family.samples])


def test_requests_are_counted_by_cache_operation_and_result(samples: Samples) -> None:
    counted = {tuple(sample.labels.values()): sample.value for sample in samples.select("cache_requests_total")}
    assert counted == {
        ("todos", "get", "hit"): 1,
        ("todos", "get", "miss"): 1,
        ("todos", "get", "error"): 1,
        ("todos", "set", "skipped"): 1,
        ("sessions", "get", "hit"): 1,
    }


def test_what_was_asked_is_timed_and_what_was_skipped_is_not(samples: Samples) -> None:
    name = "cache_request_duration_seconds"
    assert samples.sum(f"{name}_count", cache="todos", operation="get") == 3
    assert samples.sum(f"{name}_sum", cache="todos", operation="get") == pytest.approx(0.255)
    assert samples.sum(f"{name}_count", operation="set") == 0
    assert samples.sum(f"{name}_bucket", cache="sessions", le="1e-05") == 1


def test_a_cache_in_a_database_is_its_client_too(samples: Samples) -> None:
    """As OpenTelemetry has it: by system and command, with an error's type where there was one."""
    counted = {
        (each.labels["db_system_name"], each.labels["db_operation_name"], each.labels["error_type"]): each.value
        for each in samples.select("db_client_operation_duration_seconds_count")
    }
    assert counted == {("redis", "GET", ""): 2, ("redis", "GET", "ConnectionRefusedError"): 1}


def test_a_failure_of_ours_does_not_reach_the_app(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[str] = []
    monkeypatch.setattr(runtime, "failed", lambda where, _error: failures.append(where))
    monkeypatch.setattr(caches, "child", lambda *_: 1 / 0)
    watch_cache("todos").record("get", "hit", 0.1)
    assert failures == ["cache"]
