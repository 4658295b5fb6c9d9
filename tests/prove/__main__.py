"""`python -m tests.prove`: inject each fault, see its alerts, and write what was seen into the results and the page."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from scripts import interrupts, packages
from scripts.problem import Problem, report
from tests.prove import healthy, page, pool, results, trial
from tests.prove.pool import Task
from tests.prove.scenario import Scenario
from tests.prove.scenarios import SCENARIOS
from tests.prove.scenarios.certificate import EXPORTER

HEALTHY = "healthy"
CLASSES = ("sync", "gthread", "gevent")  # of the healthy runs


def _trial(scenario: Scenario, kept: results.Results, *, compressed: bool) -> Task:
    def run(say: trial.Say) -> trial.Result:
        return trial.run(scenario, compressed=compressed, say=say)

    name = scenario.name + ("" if compressed else ", as shipped")
    return Task(name, run, partial(kept.keep, results.TRIALS), scenario.alone)


def tasks(names: Sequence[str], kept: results.Results) -> list[Task]:
    """Return what is to be run; without names, all.

    Raises:
        Problem: a name is that of no scenario.
    """
    known = {each.name for each in SCENARIOS} | {HEALTHY}
    if unknown := set(names) - known:
        raise Problem(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    chosen = [each for each in SCENARIOS if not names or each.name in names]
    found = [
        _trial(each, kept, compressed=compressed)
        for each in chosen
        if not each.lacking()
        for compressed in each.scales()
    ]
    if not names or HEALTHY in names:
        for worker_class in CLASSES:
            run = partial(_healthy, worker_class)
            found.append(Task(f"{HEALTHY}, {worker_class}", run, partial(kept.keep, results.HEALTHY)))
    return found


def _healthy(worker_class: str, say: trial.Say) -> trial.Result:
    return healthy.run(worker_class, say=say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"scenarios, or {HEALTHY}; without, all")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--page", action="store_true", help="write the page from the results that are there, and end")
    return parser


def main() -> int:
    """Do what was asked for."""
    options = _parser().parse_args()
    if options.list:
        for each in SCENARIOS:
            print(f"{each.name:20} {', '.join(each.alerts)}: {each.about}" + _in_brackets(each.lacking()))
        return 0
    if options.page:
        page.write(results.Results.read())
        return 0
    interrupts.install()
    if packages.missing((EXPORTER,)) and packages.installable():
        packages.install([EXPORTER.package], why="it probes from outside")
    kept = results.Results.read()
    kept.begin({each.name: each.lacking() for each in SCENARIOS})
    well = pool.run(tasks(options.names, kept), options.jobs)
    kept.write()
    page.write(kept)
    return 0 if well else 1


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


if __name__ == "__main__":
    sys.exit(report(main))
