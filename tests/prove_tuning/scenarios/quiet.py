"""Little to do, for long, and load that comes back before it is long."""

import itertools
from collections.abc import Sequence
from typing import Any, Final

from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Scenario, Setup
from tests.tuning.parts import SCALED

WORKERS: Final = 4
FLOOR: Final = 2
IDLE_SECONDS: Final = 60.0  # ten minutes as shipped, and the scrapes and rules a minute in 20 s
FACTOR: Final = 10
RETURNS: Final = 5  # times that the load comes back
BACK_SECONDS, AWAY_SECONDS = 30.0, 40.0  # every 12 minutes, by that factor
CLIENTS: Final = 4
WAITING: Final = "/faults/sleep?seconds=0.1"
LITTLE: Final = 2.0  # requests a second


def _load_gone(run: Run) -> None:
    with run.stack.tuner("tuner") as tuner, run.arrivals("/healthz", LITTLE):
        tuner.wait_fresh()
        run.mark("little to do")
        steps = WORKERS - FLOOR
        down = run.until(lambda: run.stack.target() == FLOOR, steps * 3 * IDLE_SECONDS, "the floor")
        run.check(f"{WORKERS} workers become {FLOOR}", down, f"{run.stack.target()} workers")
        run.rest(IDLE_SECONDS)  # nothing is to happen in it
        changes = run.stack.changes()
        one_less = [(each, each - 1) for each in range(WORKERS, FLOOR, -1)]
        run.check("one worker less at a time, and none below the floor", changes == one_less, f"{changes}")
        moments = [entry["time"] for entry in tuner.decisions("decision", "applied")]
        least = min((after - before for before, after in itertools.pairwise(moments)), default=0.0)
        run.check(f"at least {IDLE_SECONDS:.0f} s lie between two", least >= IDLE_SECONDS, f"{least:.0f} s")
        _comes_back(run, len(changes))


def _comes_back(run: Run, before: int) -> None:
    """Have the load return again and again, and go before the tuner may take it for gone."""
    for number in range(RETURNS):
        with run.clients(WAITING, CLIENTS):
            run.mark(f"load returns ({number + 1})")
            run.rest(BACK_SECONDS)
        run.rest(AWAY_SECONDS)
    run.mark("load has gone")
    made = run.stack.changes()[before:]
    turns = _turns(made)
    run.check("no flapping: the direction changes no more than twice", turns <= 2, f"{turns} times: {made}")
    workers = [after for _, after in made]
    run.check("the floor holds", min(workers, default=FLOOR) >= FLOOR, f"{workers}")
    run.numbers["changes_while_it_returned"] = len(made)
    run.numbers["returns"] = RETURNS


def _turns(changes: Sequence[tuple[int, int]]) -> int:
    """Count how often growth follows a removal, or a removal growth."""
    signs: list[Any] = [after - before for before, after in changes]
    return sum(one != other for one, other in itertools.pairwise(signs))


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="load-gone",
        about=f"{WORKERS} workers have next to nothing to do; then four clients come back for {BACK_SECONDS:.0f} s, "
        f"{RETURNS} times, and go for {AWAY_SECONDS:.0f} s",
        expects="one worker less at a time, down to the floor; no flapping while the load returns",
        run=_load_gone,
        setup=Setup(
            env={"WEB_CONCURRENCY": WORKERS},
            tuner_env={**SCALED, "TUNER_POLL_SECONDS": 5, "TUNER_SHRINK_SECONDS": IDLE_SECONDS}
            | {"TUNER_IDLE_SECONDS": IDLE_SECONDS},
            scaled=True,
        ),
        slow=True,
        scale=f"ten minutes are {IDLE_SECONDS:.0f} s (a factor of {FACTOR}), a minute of the rules is 20 s",
    ),
)
