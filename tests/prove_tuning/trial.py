"""Runs one scenario, and checks what holds for all: nothing unsafe, nothing twice, no request lost by it."""

import copy
import itertools
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from observability.tuning.memory import Entry
from observability.tuning.model import Action, Limits, Outcome, Signals
from observability.tuning.settings import Settings, load_tuner
from observability.tuning.table import TABLE
from tests.prove.stack import WATCHDOG, Stopped
from tests.prove_tuning import shipped
from tests.prove_tuning.facts import against
from tests.prove_tuning.run import Run, Say
from tests.prove_tuning.scenario import Scenario
from tests.prove_tuning.stack import Stack
from tests.tuning.parts import Tuner

Result = dict[str, Any]
Line = dict[str, Any]
SHIPPED: Final = "as shipped"
SCALED: Final = "a minute is 20 s"
RELIEF: Final = frozenset(row.name for row in TABLE if row.relief)  # their removals wait no longer than growth does
_TOLERANCE_SECONDS: Final = 2.0  # an entry is written after the change was made
# What makes a server grow, by kind, action and outcome. One that failed may have been made: nobody answered in time.
_GROWTH: Final = frozenset(
    {
        ("decision", Action.ADD, Outcome.APPLIED),
        ("decision", Action.ADD, Outcome.FAILED),
        ("outcome", Action.REMOVE, Outcome.UNDONE),
    }
)


def run(scenario: Scenario, *, say: Say) -> Result:
    """Run a scenario; what breaks in it is a check that is not met."""
    begun, fingerprint = time.time(), shipped.fingerprint()  # as it is now: the tuner's processes are of this code
    with ExitStack() as around:
        setup = copy.deepcopy(scenario.setup)
        extra = scenario.arrange(setup, around) if scenario.arrange else None
        stack = around.enter_context(Stack(setup))
        found = Run(stack, say, extra)
        with found.recorder:
            _do(scenario, found)
        entries = stack.entries()
        _check(scenario, found, entries)
        return {
            "scenario": scenario.name,
            "about": scenario.about,
            "expects": scenario.expects,
            "scale": scenario.scale or (SCALED if setup.scaled else SHIPPED),
            "checks": found.checks,
            "numbers": found.numbers,
            "marks": found.marks,
            "alerts": _alerts(found),
            "decisions": [_thin(found, each) for each in entries],
            "timeline": found.timeline,
            "seconds": round(time.time() - begun, 1),
            "fingerprint": fingerprint,
        }


def _do(scenario: Scenario, found: Run) -> None:
    try:
        scenario.run(found)
    except Stopped:
        raise
    except BaseException as error:  # a test's tools fail with a BaseException of pytest's
        traceback.print_exc()
        found.check("the scenario runs to its end", False, f"{type(error).__name__}: {error}"[:300])


def _check(scenario: Scenario, found: Run, entries: Sequence[Entry]) -> None:
    """Check what holds for every scenario."""
    _check_growth(found, entries)
    settings = [load_tuner(tuner.env) for tuner in found.stack.tuners]
    early = [pair for pair in _pairs(entries) if settings and _too_soon(*pair, settings[0])]
    said = ", ".join(f"{_name(found, after)} after {_name(found, before)}" for before, after in early)
    found.check("no two changes within a cool-down", not early, said or f"{len(list(_changes(entries)))} changes")
    if asked := sum(len(each.samples) for each in found.asking if not each.faulty):
        failed = found.failures()
        seen = f"{len(failed)} of {asked}" + (f": {', '.join(failed[:3])}" if failed else "")
        allowed = f"no more than {scenario.failures} requests fail" if scenario.failures else "no request fails"
        found.check(allowed, len(failed) <= scenario.failures, seen)


def _check_growth(found: Run, entries: Sequence[Entry]) -> None:
    """Check each growth by the signals in its line of the log: what decided has its vetoes from the code that is tried.

    A growth that the tuner remembers and has no line of would go unseen, and is told as well.
    """
    grown = [(line, limits) for tuner in _logs(found) for line, limits in _growth(tuner)]
    wrong = [_broken(found, line, limits) for line, limits in grown]
    remembered = sum((each.kind, each.action, each.outcome) in _GROWTH for each in entries)
    if remembered > len(grown):
        wrong.append(f"{remembered - len(grown)} of {remembered} are in no log")
    said = ", ".join(filter(None, wrong))
    found.check("no growth against a veto", not said, said or f"none of {len(grown)}")


def _logs(found: Run) -> Iterable[Tuner]:
    """Return a tuner for each log that was written; one that is started again writes into the same."""
    return {tuner.log_path: tuner for tuner in found.stack.tuners if tuner.log_path.exists()}.values()


def _growth(tuner: Tuner) -> list[tuple[Line, Limits]]:
    limits = load_tuner(tuner.env).limits
    return [(line, limits) for line in tuner.lines() if _grows(line)]


def _grows(line: Line) -> bool:
    return (_kind(line), line.get("action"), line.get("outcome")) in _GROWTH


def _kind(line: Line) -> str:
    return str(line.get("event.name", "")).removeprefix("tuner.")


def _broken(found: Run, line: Line, limits: Limits) -> str:
    """Say what a growth broke; "" for nothing."""
    prefix = "signals."
    told = {name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)}
    signals = Signals(server=line["server"], **told)
    broken = against(signals, limits, decided=_kind(line) == "decision")
    target = signals.workers_target
    return f"{target} to {target + 1} at {found.at(signals.time)} s, {'/'.join(broken)}" if broken else ""


def _changes(entries: Iterable[Entry]) -> list[Entry]:
    """Return what changed the number of workers: what was done, and what was taken back."""
    return [
        each
        for each in entries
        if (each.kind, each.outcome) in {("decision", Outcome.APPLIED), ("outcome", Outcome.UNDONE)}
    ]


def _pairs(entries: Iterable[Entry]) -> list[tuple[Entry, Entry]]:
    """Return each change that was decided, with the one before it on the same server; taking back waits for nobody."""
    changes = sorted(_changes(entries), key=lambda each: (each.server, each.time))
    pairs = [pair for pair in itertools.pairwise(changes) if pair[0].server == pair[1].server]
    return [(before, after) for before, after in pairs if after.kind == "decision"]


def _too_soon(before: Entry, after: Entry, settings: Settings) -> bool:
    quick = after.action == Action.ADD or after.rule in RELIEF
    wait = settings.grow_seconds if quick else settings.shrink_seconds
    return after.time - before.time < wait - _TOLERANCE_SECONDS


def _name(found: Run, entry: Entry) -> str:
    return f"{entry.before} to {entry.workers} at {found.at(entry.time)} s"


def _alerts(found: Run) -> list[dict[str, Any]]:
    """Return when people were told that an alert fires, and when that it is over, whatever its severity."""
    told: list[dict[str, Any]] = []
    firing: dict[str, set[object]] = defaultdict(set)
    for notice in sorted(found.stack.people.all(), key=lambda each: (each.at, each.status == "resolved")):
        held = firing[notice.alert]
        fired = bool(held)
        (held.discard if notice.status == "resolved" else held.add)(notice.of)
        if bool(held) is not fired and notice.alert != WATCHDOG:
            told.append({"t": found.at(notice.at), "alert": notice.alert, "status": notice.status})
    return told


def _thin(found: Run, entry: Entry) -> dict[str, Any]:
    thin: dict[str, Any] = {
        "t": found.at(entry.time),
        "kind": entry.kind,
        "mode": str(entry.mode),
        "action": str(entry.action),
        "rule": entry.rule,
        "outcome": str(entry.outcome),
        "before": entry.before,
        "workers": entry.workers,
        "ceiling": entry.ceiling,
        "vetoes": list(entry.vetoes),
        "reason": entry.reason,
        "advice": [each.line for each in entry.advice],
    }
    return {key: value for key, value in thin.items() if value not in ([], "", 0)}
