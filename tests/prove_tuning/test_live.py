"""One tuning and hostile notifications, seen anew on each run of the tests; `make prove-tuning` runs all scenarios."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.prove.stack import STOPPED
from tests.prove_tuning import plots, results, trial
from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Scenario, Setup
from tests.prove_tuning.scenarios import SCENARIOS, growth

pytestmark = pytest.mark.alone


def _grow(run: Run) -> None:
    with run.stack.tuner("tuner") as tuner:
        growth.grow(run, tuner, count=3)


def _break(run: Run) -> None:
    run.check("what holds", True)
    raise AssertionError("broken on purpose")


NAMED = {each.name: each for each in SCENARIOS}
# A minute is 20 s here, and the tuner acts from the start.
SHORT = (
    replace(NAMED["waiting-load"], run=_grow, setup=Setup(scaled=True)),
    NAMED["webhooks-hostile"],
)
BROKEN = Scenario("broken", "it breaks", "a check that is not met", _break, Setup(scaled=True, alertmanager=False))


def _silent(_: str) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[trial.Result]]]:
    """Run all at a time, since each waits most of its time."""
    with ThreadPoolExecutor(len(SHORT) + 1) as pool:
        try:
            yield {each.name: pool.submit(trial.run, each, say=_silent) for each in (*SHORT, BROKEN)}
        finally:
            STOPPED.set()  # a test was interrupted, if anything still runs
    STOPPED.clear()


@pytest.mark.parametrize("scenario", SHORT, ids=lambda each: each.name)
def test_what_must_be_seen_is_seen(runs: dict[str, Future[trial.Result]], scenario: Scenario) -> None:
    found = runs[scenario.name].result()
    assert results.wrong(found) == [], found["decisions"]
    assert len(found["checks"]) > 5
    assert plots.draw(found, scenario.plot).count("<path") > 10


def test_a_scenario_that_breaks_is_not_met_and_leaves_a_result(runs: dict[str, Future[trial.Result]]) -> None:
    found = runs[BROKEN.name].result()
    assert results.wrong(found) == ["the scenario runs to its end (AssertionError: broken on purpose)"]
