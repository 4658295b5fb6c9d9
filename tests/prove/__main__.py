"""`python -m tests.prove`: inject each fault, see its alerts, and write what was seen into the results and the page."""

import argparse
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from scripts import interrupts, packages
from scripts.problem import Problem, report
from tests.prove import healthy, page, results, trial
from tests.prove.scenario import Scenario
from tests.prove.scenarios import SCENARIOS
from tests.prove.scenarios.certificate import EXPORTER
from tests.prove.stack import STOPPED, Stopped

HEALTHY = "healthy"
CLASSES = ("sync", "gthread", "gevent")  # of the healthy runs
Run = Callable[[trial.Say], trial.Result]


@dataclass(frozen=True)
class Task:
    """One thing to run.

    Args:
        name: how its progress is called.
        kind: under what its result is kept.
        run: takes a function that shows the progress, and returns the result.
        alone: whether nothing else may run meanwhile.
    """

    name: str
    kind: str
    run: Run
    alone: bool = False


def _trial(scenario: Scenario, *, compressed: bool) -> Task:
    def run(say: trial.Say) -> trial.Result:
        return trial.run(scenario, compressed=compressed, say=say)

    return Task(scenario.name + ("" if compressed else ", as shipped"), results.TRIALS, run, scenario.alone)


def tasks(names: Sequence[str]) -> list[Task]:
    """Return what is to be run; without names, all.

    Raises:
        Problem: a name is that of no scenario.
    """
    known = {each.name for each in SCENARIOS} | {HEALTHY}
    if unknown := set(names) - known:
        raise Problem(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    chosen = [each for each in SCENARIOS if not names or each.name in names]
    found = [
        _trial(each, compressed=compressed) for each in chosen if not each.lacking() for compressed in each.scales()
    ]
    if not names or HEALTHY in names:
        for worker_class in CLASSES:
            run = partial(_healthy, worker_class)
            found.append(Task(f"{HEALTHY}, {worker_class}", results.HEALTHY, run))
    return found


def _healthy(worker_class: str, say: trial.Say) -> trial.Result:
    return healthy.run(worker_class, say=say)


def _say(name: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {name}: {text}", file=sys.stderr, flush=True)


def _run(task: Task, kept: results.Results, lock: threading.Lock) -> bool:
    """Run a task, keep its result at once, and say whether it was as it should be."""
    _say(task.name, "starts")
    try:
        found = task.run(partial(_say, task.name))
    except Stopped:
        return False
    except BaseException as error:  # a test's tools fail with a BaseException of pytest's
        traceback.print_exc()
        _say(task.name, f"FAILED: {type(error).__name__}")
        return False
    with lock:
        kept.add(task.kind, found)
        kept.write()
    wrong = results.wrong(task.kind, found)
    _say(task.name, f"{'FAILED: ' + '; '.join(wrong) if wrong else 'ok'}, after {found['seconds']:.0f} s")
    return not wrong


def run(wanted: Iterable[Task], jobs: int, kept: results.Results) -> bool:
    """Run all, some at a time, and those that stand alone in the end."""
    wanted, lock = list(wanted), threading.Lock()
    together = [task for task in wanted if not task.alone]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            ended = list(pool.map(lambda task: STOPPED.is_set() or _run(task, kept, lock), together))
        except KeyboardInterrupt:
            STOPPED.set()  # leaving the block waits for what runs
            raise
    return all([*ended, *[_run(task, kept, lock) for task in wanted if task.alone]])


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
    well = run(tasks(options.names), options.jobs, kept)
    kept.write()
    page.write(kept)
    return 0 if well else 1


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


if __name__ == "__main__":
    sys.exit(report(main))
