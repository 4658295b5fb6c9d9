"""Simulated days: the tuner against the usual fixed count, the best fixed count, and who knew each minute beforehand.

    python -m tests.prove_tuning.simulation

prints what came of them, as JSON, and draws docs/images/tuning-day.svg.
"""

import ast
import concurrent.futures
import hashlib
import inspect
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from observability.tuning import bounds, conditions, decision, load, table, thresholds, trends, verdict
from observability.tuning.model import Action, Limits
from observability.tuning.settings import Settings
from tests.prove_tuning import calibration, curve, day, day_plot, policy, queueing
from tests.prove_tuning.day import Day, Load
from tests.prove_tuning.facts import against
from tests.prove_tuning.policy import SERVER, Decided, Tuned
from tests.prove_tuning.queueing import Machine, Work

FLOOR: Final = 2
INTERVAL: Final = 10  # minutes from one point of the series to the next
BURSTS: Final = 14
_MOST_BEYOND: Final = 6  # counts above 2 x cores + 1 that are tried
_HOUR: Final = 3600.0
_RULES: Final = (table, thresholds, conditions, load, bounds, decision, verdict, trends, policy, day, curve, queueing)


@dataclass(frozen=True)
class Scenario:
    """One day.

    Args:
        name: of what kind it is.
        cores: of the server.
        low: requests a second at night.
        high: requests a second at the highest hump, without bursts.
        work: what a request needs in the mean.
        seed: of chance: another seed has other bursts, too.
    """

    name: str
    cores: float
    low: float
    high: float
    work: Work
    seed: int

    @property
    def load(self) -> Load:
        """What comes."""
        bursts = curve.bursts(random.Random(self.seed + 6), BURSTS)
        return Load(curve.Curve(self.low, self.high, bursts), self.work, self.seed)

    @property
    def usual(self) -> int:
        """The count that gunicorn's documentation recommends: https://docs.gunicorn.org/en/stable/design.html."""
        return round(2 * self.cores) + 1


_WAITING = Work(cpu=0.04, wait=0.12)
DAYS: Final = (
    Scenario("waiting", 4, 4.0, 40.0, _WAITING, 1),
    Scenario("waiting, other bursts", 4, 4.0, 40.0, _WAITING, 2),
    Scenario("waiting, others again", 4, 4.0, 40.0, _WAITING, 3),
    Scenario("computing", 4, 3.0, 32.0, Work(cpu=0.08, wait=0.04), 1),
    Scenario("two cores", 2, 2.0, 14.0, _WAITING, 1),
)


def run(say: Callable[[str], None] = print) -> dict[str, Any]:
    """Simulate all days, two at a time; the same code gives the same result.

    Args:
        say: told what is done, for whoever waits some minutes for it.
    """
    say("fitting the model to what was measured")
    fit = calibration.fit()
    machine = {"sharpness": round(fit.machine.sharpness, 4), "switching": round(fit.machine.switching, 5)}
    days = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=2) as pool:
        for number, found in enumerate(pool.map(simulated, DAYS, [fit] * len(DAYS)), 1):
            days.append(found)
            say(f"{number} of {len(DAYS)} days: {found['name']}")
    return {
        "fingerprint": fingerprint(),
        "objective_seconds": Limits.queue_objective,
        "calibration": {"error": round(fit.error, 4), **machine, "table": fit.table()},
        "vetoes_broken": sum(len(each["vetoes_broken"]) for each in days),
        "days": days,
    }


def simulated(scenario: Scenario, fit: calibration.Fit) -> dict[str, Any]:
    """Let one day pass under each fixed count, and under the tuner."""
    machine, fixed = fit.on(scenario.cores), {}
    for workers in range(FLOOR, scenario.usual + _MOST_BEYOND + 1):
        fixed[workers] = Day(machine, scenario.load, workers).run()
        if workers >= scenario.usual and not fixed[workers].minutes_over:
            break
    tuned, steps, broken = tuned_day(machine, scenario.load)
    usual = fixed[scenario.usual]
    enough = [workers for workers in sorted(fixed) if fixed[workers].minutes_over <= tuned.minutes_over]
    hours, over = day.ideal(fixed)
    return {
        "name": scenario.name,
        "cores": scenario.cores,
        "low": scenario.low,
        "high": scenario.high,
        "cpu_seconds": scenario.work.cpu,
        "wait_seconds": scenario.work.wait,
        "seed": scenario.seed,
        "usual": {"workers": scenario.usual, **_came_of(usual)},
        "best": {"workers": enough[0], **_came_of(fixed[enough[0]])} if enough else None,
        "tuner": {"steps": steps, **_came_of(tuned), "saved": round(1 - tuned.worker_hours / usual.worker_hours, 4)},
        "ideal": {"worker_hours": round(hours, 1), "minutes_over": over},
        "vetoes_broken": broken,
        "series": _series(scenario, tuned, usual, day.ideal_counts(fixed)) if scenario == DAYS[0] else [],
    }


def tuned_day(machine: Machine, coming: Load, workers: int = FLOOR) -> tuple[Day, int, list[str]]:
    """Let a day pass under the tuner; return it, the number of its steps, and what each broke that it must not."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(mode="apply", directory=Path(directory))
        tuned = Day(machine, coming, workers)
        tuner = Tuned(tuned, settings, Path(directory))
        tuned.run(tuner)
        broken = [each for decided in tuner.decisions for each in broken_by(decided, settings.limits)]
        return tuned, len(tuner.memory.history(SERVER).steps), broken


def broken_by(decided: Decided, limits: Limits) -> list[str]:
    """Return what a decision must not have done, by the facts alone and not by the code that decides."""
    signals, now = decided.signals, decided.signals.time
    since = [now - step.time for step in decided.history.steps]
    if decided.decision.action is Action.HOLD:
        return []
    growth = decided.decision.action is Action.ADD
    wait = limits.grow_seconds if growth else limits.shrink_seconds
    found = {
        "unsettled": signals.workers_live != signals.workers_target,
        "cool-down": any(seconds < wait for seconds in since),
        "hour": sum(seconds < _HOUR for seconds in since) >= limits.actions_per_hour,
        "floor": not growth and signals.workers_target <= limits.floor,
    }
    names = [name for name, is_so in found.items() if is_so]
    names += against(signals, limits) if growth else []
    return [f"{now:.0f} s: {decided.decision.rule} against {name}" for name in dict.fromkeys(names)]


def _came_of(passed: Day) -> dict[str, float | int]:
    return {"worker_hours": round(passed.worker_hours, 1), "minutes_over": passed.minutes_over}


def _series(scenario: Scenario, tuned: Day, usual: Day, ideal: list[int]) -> list[dict[str, float | int]]:
    """Return some points of a day: means, and minutes over the objective, of each interval."""
    coming = scenario.load.curve
    found: list[dict[str, float | int]] = []
    for begin in range(0, len(tuned.counts), INTERVAL):
        minutes = slice(begin, begin + INTERVAL)
        rates = [coming.rate(60.0 * minute) for minute in range(begin, begin + INTERVAL)]
        found.append(
            {
                "t": begin,
                "load": round(max(rates), 1),
                "tuner": _mean(tuned.counts[minutes]),
                "ideal": _mean(ideal[minutes]),
                "tuner_over": sum(each > tuned.objective for each in tuned.queues[minutes]),
                "usual_over": sum(each > usual.objective for each in usual.queues[minutes]),
            }
        )
    return found


def _mean(counts: list[int]) -> float:
    return round(sum(counts) / len(counts), 2)


def text(result: dict[str, Any]) -> str:
    """Return the days as a page has them: the picture, and what came of each."""
    head = ("Day", "Usual count", "Best fixed count", "Tuner", "Saved", "Ideal")
    rows = [head, tuple("---" for _ in head), *(_row(each) for each in result["days"])]
    broken, error = result["vetoes_broken"], result["calibration"]["error"]
    return "\n".join(
        [
            "![load, workers, and minutes over the objective](images/tuning-day.svg)",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            "Each has worker hours, and the minutes in which 95 of 100 requests waited for longer than the objective, "
            f"{result['objective_seconds'] * 1000:.0f} ms.",
            "The usual count is 2 x cores + 1; the best has the fewest workers at no more such minutes than the tuner; "
            "the ideal knows each minute beforehand.",
            f"Changes that a guard rail forbids: {broken}.",
            f"The model is {error * 100:.1f} % off what was measured on live servers, in the mean.",
        ]
    )


def _row(came: dict[str, Any]) -> tuple[str, ...]:
    usual, best, tuner, ideal = came["usual"], came["best"], came["tuner"], came["ideal"]
    what = f"{came['cpu_seconds'] * 1000:.0f} ms of CPU and {came['wait_seconds'] * 1000:.0f} ms of waiting"
    return (
        f"{came['name']}: {came['cores']:g} cores, {came['low']:g} to {came['high']:g} requests/s of {what}",
        f"{usual['workers']}: {_cost(usual)}",
        f"{best['workers']}: {_cost(best)}" if best else "none",
        f"{_cost(tuner)}, {tuner['steps']} changes",
        f"{tuner['saved'] * 100:.0f} %",
        _cost(ideal),
    )


def _cost(came: dict[str, Any]) -> str:
    return f"{came['worker_hours']:g} h, {came['minutes_over']} min"


def fingerprint() -> str:
    """Return a digest of what the result depends on: the code of table, thresholds, rails and model, but no words."""
    digest = hashlib.sha256(json.dumps([asdict(Limits()), [asdict(each) for each in DAYS]]).encode())
    for module in _RULES:
        digest.update(_code(module).encode())
    return digest.hexdigest()[:16]


def _code(module: ModuleType) -> str:
    """Return the names, numbers and kinds of all that a module says; comments and texts change nothing."""
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        said = node.value if isinstance(node, ast.Expr) else node
        if isinstance(said, ast.Constant) and isinstance(said.value, str):
            continue
        named = [
            getattr(node, name) for name in ("id", "attr", "arg", "name", "value", "module") if hasattr(node, name)
        ]
        plain = [str(each) for each in named if isinstance(each, str | int | float)]
        found.append(" ".join([type(node).__name__, *plain]))
    return "\n".join(found)


def main() -> int:
    """Simulate, print and draw."""
    result = run(lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(result, indent=1))
    day_plot.FILE.write_text(day_plot.svg(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
