"""The model of a server is near what real ones did, and the tuner gets through a morning of load on it."""

import pytest

from observability.tuning.settings import Settings
from tests.prove_tuning import calibration, curve
from tests.prove_tuning.day import Day, Load, ideal
from tests.prove_tuning.policy import SERVER, Tuned
from tests.prove_tuning.queueing import Machine, Work

SEVEN, NINE = 7.5 * curve.HOUR, 9 * curve.HOUR
MORNING = Load(curve.Curve(4.0, 40.0, ()), Work(cpu=0.04, wait=0.12), seed=1, start=SEVEN, end=NINE)
FOUR_CORES = Machine(4.0, 3.2, 0.0085)


@pytest.fixture(scope="module")
def fit():
    return calibration.fit()


def test_the_model_is_near_what_it_is_fitted_to(fit):
    assert fit.error < 0.05


def test_and_near_what_it_was_not_fitted_to(fit):
    """But for two workers with requests of 100 ms: 25 a second is more than there can be."""
    for row in fit.table():
        if row["load"] == "waiting" and row["workers"] > 2:
            assert row["model"] == pytest.approx(row["measured"], rel=0.15)


def test_more_workers_wait_less_and_cost_more():
    few, more = (Day(FOUR_CORES, MORNING, workers).run() for workers in (3, 8))
    assert few.minutes_over > more.minutes_over == 0
    assert (few.worker_hours, more.worker_hours) == (3 * 1.5, 8 * 1.5)
    hours, over = ideal({3: few, 8: more})
    assert over == 0
    assert few.worker_hours < hours <= more.worker_hours


def test_the_tuner_follows_a_morning(tmp_path):
    """It stuck where a step was judged by the backlog before it, and where a learned ceiling held at any load."""
    day = Day(FOUR_CORES, MORNING, workers=2)
    tuned = Tuned(day, Settings(mode="apply", directory=tmp_path), tmp_path)
    day.run(tuned)
    steps = tuned.memory.history(SERVER).steps
    assert day.server.workers >= 4
    assert {step.after - step.before for step in steps} <= {1, -1}
    alone = Day(FOUR_CORES, MORNING, workers=2).run()
    assert max(day.queues[-15:]) < 1 < max(alone.queues[-15:])
