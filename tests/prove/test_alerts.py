"""A few representative scenarios and a healthy run, seen anew on each run of the tests; `make prove` runs them all."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.prove import healthy, results, trial
from tests.prove.scenarios import SCENARIOS
from tests.prove.stack import STOPPED

pytestmark = pytest.mark.alone

# A full server, dying workers, a dependency that is away, and a server that is not seen.
SHORT = ("threads-full", "crashes", "redis-gone", "agent-stopped")
HEALTHY = "gthread"


def _silent(_: str) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[trial.Result]]]:
    """Run all at a time, since each waits most of its time."""
    chosen = {each.name: each for each in SCENARIOS if each.name in SHORT}
    with ThreadPoolExecutor(len(SHORT)) as pool:
        found = {name: pool.submit(trial.run, chosen[name], compressed=True, say=_silent, lasts=30.0) for name in SHORT}
        try:
            yield found
        finally:
            STOPPED.set()  # a test was interrupted, if anything still runs
    STOPPED.clear()


@pytest.mark.parametrize("name", SHORT)
def test_a_fault_brings_its_alert_to_the_webhook_and_its_end_too(
    runs: dict[str, Future[trial.Result]], name: str
) -> None:
    found = runs[name].result()
    assert results.wrong(results.TRIALS, found) == [], found


def test_health_brings_nothing_but_the_watchdog() -> None:
    found = healthy.run(HEALTHY, say=_silent)  # alone: a machine that is full is not in health
    assert results.wrong(results.HEALTHY, found) == [], found
    assert found["workers_recycled"] > 0
    assert found["requests"] > 500
    assert found["not_answered_well"] == 0
