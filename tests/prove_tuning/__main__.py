"""`python -m tests.prove_tuning`: run each scenario under the tuner's eyes, and write what was seen into the page."""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from scripts import interrupts
from scripts.problem import Problem, report
from tests.prove import pool
from tests.prove.pool import Task
from tests.prove_tuning import page, shipped, simulation, trial
from tests.prove_tuning.results import DAYS, Results
from tests.prove_tuning.scenario import Scenario
from tests.prove_tuning.scenarios import SCENARIOS


def tasks(names: Sequence[str], kept: Results) -> list[Task]:
    """Return what is to be run; without names, all.

    Raises:
        Problem: a name is that of no scenario.
    """
    known = {each.name for each in SCENARIOS} | {DAYS}
    if unknown := set(names) - known:
        raise Problem(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    wanted = [each for each in SCENARIOS if (not names or each.name in names) and not each.lacking()]
    chosen = sorted(wanted, key=lambda each: not each.slow)
    found = [Task(each.name, partial(_trial, each), kept.keep, each.alone) for each in chosen]
    if not names or DAYS in names:
        found.append(Task(DAYS, _days, kept.keep_days, alone=True))
    return found


def _trial(scenario: Scenario, say: pool.Say) -> trial.Result:
    return trial.run(scenario, say=say)


def _days(say: pool.Say) -> dict[str, Any]:
    begun = time.time()
    return {**simulation.run(say), "seconds": round(time.time() - begun, 1)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.prove_tuning", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"scenarios, or {DAYS} for the simulated days; without, all")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--page", action="store_true", help="write page and plots from the results, and end")
    parser.add_argument("--days", action="store_true", help="simulate the days, and nothing else")
    return parser


def main() -> int:
    """Do what was asked for."""
    options = _parser().parse_args()
    if options.list:
        for each in SCENARIOS:
            print(f"{each.name:20} {each.about}" + (f" ({why})" if (why := each.lacking()) else ""))
        return 0
    kept = Results.read()
    if options.page:
        page.write(kept)
        return 0
    interrupts.install()
    kept.begin({each.name: each.lacking() for each in SCENARIOS})
    shipped.fingerprint()  # kept from here on: CPython 3.11 fails where several threads parse at a time
    well = pool.run(tasks([DAYS] if options.days else options.names, kept), options.jobs)
    page.write(Results.read())
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(report(main))
