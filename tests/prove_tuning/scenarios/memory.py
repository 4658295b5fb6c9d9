"""Memory near its limit, with requests that wait."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.prove_tuning import groups
from tests.prove_tuning.groups import Group
from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Scenario, Setup
from tests.prove_tuning.scenarios.growth import ALERTS, WAITING
from tests.tuning.parts import Tuner

WORKERS = 3
CLIENTS = 6
NEAR = 0.84  # of the limit: below what the table calls short, and without room for one more
SHORT = 0.94
REMOVED_SECONDS = 60.0
FIRST_LIMIT = "2G"  # until it is known what the server needs


def _arrange(setup: Setup, around: ExitStack) -> Group:
    directory = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="sightline-group-")))
    return groups.grouped(setup, around, FIRST_LIMIT, directory)


def _memory_near(run: Run) -> None:
    group: Group = run.extra
    with run.stack.tuner("tuner") as tuner, run.clients(WAITING, CLIENTS):
        run.rest(10)  # each worker has served, and has all its pages
        group.limit = group.used / NEAR
        run.mark(f"limit of {group.limit / 2**20:.0f} MiB")
        run.numbers["memory_share_near"] = group.used / group.limit
        tuner.wait_fresh()
        _no_growth(run, tuner, group)
        _one_less(run, tuner, group)
    run.mark("load ends")
    run.check("the kernel has killed nothing", group.kills == 0, f"{group.kills} kills")


def _no_growth(run: Run, tuner: Tuner, group: Group) -> None:
    """Have requests wait while memory holds no worker more."""
    run.check("an alert of waiting requests fires", run.until(lambda: run.told(*ALERTS), 150, "an alert"))
    run.until(lambda: _held(tuner), run.window + 30, "a decision to hold")
    run.rest(run.window)  # nothing is to happen in it
    held = _held(tuner)
    ceilings = sorted({each["ceiling"] for each in held})
    run.check("no growth while memory is near its limit", run.stack.changes() == [], f"{run.stack.target()} workers")
    said = ", ".join(str(each) for each in ceilings)
    run.check("the ceiling by memory holds", bool(held) and max(ceilings) <= WORKERS, f"{said} workers are the most")
    run.numbers["memory_share_held"] = round(group.used / group.limit, 3)


def _held(tuner: Tuner) -> list[dict[str, Any]]:
    """Return the decisions of rows that would grow the server."""
    return [each for each in tuner.decisions("decision") if each["rule"] in {"io_wait", "backlog", "few_slots"}]


def _one_less(run: Run, tuner: Tuner, group: Group) -> None:
    """Lower the limit, and have the tuner remove a worker before the kernel does."""
    group.limit = group.used / SHORT
    lowered = run.seconds
    run.mark(f"limit of {group.limit / 2**20:.0f} MiB")
    gone = run.until(lambda: run.stack.changes() == [(WORKERS, WORKERS - 1)], REMOVED_SECONDS + 60, "a worker less")
    seconds = run.seconds - lowered
    what = f"one worker less within {REMOVED_SECONDS:.0f} s"
    run.check(what, gone and seconds <= REMOVED_SECONDS, f"after {seconds:.0f} s, {group.kills} kills")
    rules = [each["rule"] for each in tuner.decisions("decision", "applied")]
    run.check("the diagnosis is memory", rules == ["memory"], ", ".join(rules))
    run.until(lambda: tuner.decisions("outcome"), 2 * run.window + 60, "its judgement")
    run.rest(20)  # nothing is to happen in it
    run.check("it stays at that", run.stack.changes() == [(WORKERS, WORKERS - 1)], f"{run.stack.target()} workers")
    run.numbers["memory_share_after"] = round(group.used / group.limit, 3)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="memory-near",
        about=f"six clients have requests wait for {WORKERS} sync workers, whose control group is nearly full; then "
        "its limit is lowered",
        expects="no growth while memory is near its limit; with the limit lowered, one worker less before the kernel "
        "kills",
        run=_memory_near,
        setup=Setup(env={"WEB_CONCURRENCY": WORKERS}),
        arrange=_arrange,
        plot=("queue", "memory"),
        scale=f"as shipped; {groups.COPIED}",
        lacking=groups.lacking,
    ),
)
