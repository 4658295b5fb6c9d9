"""Writes what was seen into docs/tuning.md, and the plots beside it."""

from typing import Any, Final

from tests.prove.page import filled, seen_on, table
from tests.prove_tuning import day_plot, plots
from tests.prove_tuning.results import DAYS, Results
from tests.prove_tuning.scenarios import SCENARIOS
from tests.prove_tuning.trial import Result
from tests.server import ROOT

PAGE: Final = ROOT / "docs/tuning.md"
STORY: Final = "waiting-load"
NOT_YET: Final = "Not seen yet."


def write(kept: Results) -> None:
    """Write the page and the plots anew."""
    for name, picture in pictures(kept).items():
        (plots.DIRECTORY / name).write_text(picture)
    PAGE.write_text(text(kept, PAGE.read_text()))


def pictures(kept: Results) -> dict[str, str]:
    """Return every plot by the name of its file."""
    found = {each.name: (kept.trial(each.name), each.plot) for each in SCENARIOS}
    drawn = {f"tuning-{name}.svg": plots.draw(trial, plot) for name, (trial, plot) in found.items() if trial and plot}
    days = {day_plot.FILE.name: day_plot.svg(kept.found[DAYS])} if DAYS in kept.found else {}
    return drawn | days


def text(kept: Results, before: str) -> str:
    """Return the page with its blocks as the results have them."""
    blocks = {
        "story": _story(kept.trial(STORY)),
        "scenarios": _scenarios(kept),
        "checks": _checks(kept),
        "plots": _plots(kept),
        "days": _days(kept.found.get(DAYS)),
        "seen on": seen_on(kept.found),
    }
    return filled(before, blocks)


def _story(trial: Result | None) -> str:
    """Tell one tuning, with the numbers that were seen."""
    if trial is None:
        return NOT_YET
    numbers = trial["numbers"]
    told = [f"{number}. {line}" for number, line in enumerate(_told(trial, numbers), 1)]
    return "\n".join(["![workers, queue and what happened when](images/tuning-waiting-load.svg)", "", *told])


def _told(trial: Result, numbers: dict[str, Any]) -> list[str]:
    grown = [each for each in trial["decisions"] if each["outcome"] == "applied"]
    judged = [each for each in trial["decisions"] if each["kind"] == "outcome"]
    recommended = [each for each in trial["decisions"] if each["mode"] == "recommend"]
    advised = [each for each in recommended if each["action"] == "add_worker"][-1]
    lines = [
        f"Four clients ask two sync workers for what waits 0.2 s, and never pause. Two of them wait: "
        f"{_ms(numbers['queue_p95_with_two_workers'])} (p95), by the clients' own clocks.",
        f"In recommend mode the tuner says, and changes nothing: *{advised['reason']}* "
        f"It advises `{numbers['advice'].replace(', ', '` `')}`.",
        "The load goes, and the alerts with it. It returns, and now the tuner may act.",
    ]
    for step, outcome in zip(grown, judged, strict=False):
        lines.append(
            f"At {step['t']:.0f} s it takes {step['before']} workers to {step['workers']}; at {outcome['t']:.0f} s it "
            f"judges that, *{outcome['outcome']}*: {outcome['reason']}"
        )
    return [
        *lines,
        f"The clients waited less than the objective of 50 ms {numbers['recovery_seconds']:.0f} s after the alert; "
        f"with {numbers['workers_after_growth']} workers they wait {_ms(numbers['queue_p95_after_growth'])} (p95), and "
        "the tuner stops there.",
        f"The server is restarted with the advised lines. Two workers now take the same load: "
        f"{_ms(numbers['queue_p95_with_threads'])} (p95). No request failed at any time.",
    ]


def _ms(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{seconds * 1000:.0f} ms"


def _scenarios(kept: Results) -> str:
    rows = []
    for each in SCENARIOS:
        trial = kept.trial(each.name)
        seen = _seen(trial) if trial else _lacking(kept, each.name)
        rows.append([f"`{each.name}`", each.about, each.expects, seen])
    return table(["Scenario", "What happens", "What must be seen", "Seen"], rows)


def _lacking(kept: Results, name: str) -> str:
    why = kept.found.get("lacking", {}).get(name)
    return f"not here: {why}" if why else "**not seen yet**"


def _seen(trial: Result) -> str:
    """Say what was seen, in a line."""
    missed = [each for each in trial["checks"] if not each["met"]]
    if missed:
        return "**not met**: " + "; ".join(f"{each['what']} ({_plain(each['seen'])})" for each in missed)
    return f"all {len(trial['checks'])} [checks](#{_anchor(trial)}) met, in {trial['seconds']:.0f} s"


def _anchor(trial: Result) -> str:
    return str(trial["scenario"])


def _checks(kept: Results) -> str:
    """List every check of every scenario, with the number or the words behind it."""
    trials = [trial for each in SCENARIOS if (trial := kept.trial(each.name))]
    return "\n\n".join(map(_of_one, trials)) or NOT_YET


def _of_one(trial: Result) -> str:
    rows = [[each["what"], _plain(each["seen"]), "yes" if each["met"] else "**no**"] for each in trial["checks"]]
    heads = ["Must be seen", "Seen", "Met"]
    return f"### {trial['scenario']}\n\nTime: {trial['scale']}.\n\n{table(heads, rows)}"


def _plain(seen: object) -> str:
    return "-" if seen in (None, "") else str(seen).replace("|", "\\|").replace("\n", " ").replace("<", "\\<")


def _plots(kept: Results) -> str:
    shown = [each for each in SCENARIOS if each.plot and each.name != STORY and kept.trial(each.name)]
    return "\n\n".join(f"![{each.name}: {each.about}](images/tuning-{each.name}.svg)" for each in shown) or NOT_YET


def _days(found: dict[str, Any] | None) -> str:
    """Compare what came of the simulated days, in worker-hours and minutes over the objective."""
    if found is None:
        return NOT_YET
    rows = []
    for each in found["days"]:
        work = f"{_ms(each['cpu_seconds'])} of CPU and {_ms(each['wait_seconds'])} of waiting"
        load = f"{each['low']:g} to {each['high']:g} req/s of {work}, on {each['cores']:g} cores"
        counts = [_came_of(each[name]) for name in ("usual", "best", "tuner", "ideal")]
        rows.append([each["name"], load, *counts, f"{each['tuner']['saved'] * 100:.0f} %"])
    heads = ["Day", "Load", "2 x cores + 1", "Best fixed count", "The tuner", "Ideal", "Saved"]
    calibrated = found["calibration"]
    return (
        f"{table(heads, rows)}\n\n"
        f"Each has its worker-hours, and the minutes in which 95 of 100 requests waited longer than "
        f"{_ms(found['objective_seconds'])}.\n"
        "The best fixed count is the least that is over the objective for no more minutes than the tuner; who knew the "
        "day beforehand, minute by minute, would have the ideal.\n"
        "Saved are the tuner's worker-hours, of those of 2 x cores + 1.\n"
        f"In all these days the tuner made {found['vetoes_broken']} changes against a guard rail; "
        f"the model is {calibrated['error'] * 100:.0f} % off what was measured, in the mean."
    )


def _came_of(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    workers = f"{found['workers']} workers: " if "workers" in found else ""
    return f"{workers}{found['worker_hours']:.0f} h, {found['minutes_over']} min over"
