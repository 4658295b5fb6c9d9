"""Writes what was seen into the tables of docs/alerts.md."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from tests.prove import results, shipped, trial
from tests.prove.scaling import seconds
from tests.prove.scenarios import SCENARIOS
from tests.prove.stack import MONITORING, WATCHDOG
from tests.server import ROOT

PAGE: Final = ROOT / "docs/alerts.md"
TARGET_SECONDS: Final = 60  # from the fault to the webhook, as shipped
LATER: Final = {
    "ScrapeSlow": "a slow scrape is nothing that users feel"
}  # not among those that have to be told of so fast
SCRAPE: Final = re.compile(r"job_name: sightline\n\s+scrape_interval: (\w+)")
EVALUATION: Final = re.compile(r"evaluation_interval: (\w+)")
NONE: Final = "-"


def write(kept: results.Results) -> None:
    """Write the page anew."""
    PAGE.write_text(text(kept, PAGE.read_text()))


def text(kept: results.Results, before: str) -> str:
    """Return the page with its tables as the results and the rules have them."""
    tables = {
        "alerts": _alerts(kept),
        "as shipped": _as_shipped(kept),
        "proof": _proof(kept),
        "healthy": _healthy(kept),
        "seen on": _seen_on(kept),
    }
    return filled(before, tables)


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """Return a page with each block between its markers.

    Raises:
        ValueError: the page has no such markers.
    """
    for name, found in blocks.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not block.search(page):
            raise ValueError(f"the page has no place for {name}")
        page = block.sub(partial(_put, found), page)
    return page


def _put(block: str, place: re.Match[str]) -> str:
    return f"{place[1]}{block}\n{place[2]}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *rows])


def _trials(kept: results.Results, *, compressed: bool) -> list[trial.Result]:
    found = {each["scenario"]: each for each in kept.found[results.TRIALS] if each["compressed"] is compressed}
    return [found[each.name] for each in SCENARIOS if each.name in found]


def _alerts(kept: results.Results) -> str:
    rows = []
    for alert, found in shipped.alerts().items():
        severities = {rule["labels"]["severity"] for rule in found}
        severity = ", ".join(each for each in trial.WORST_FIRST if each in severities)
        summary = _plain(found[0]["annotations"]["summary"])
        rows.append([f"[{alert}](../runbooks/{alert}.md)", severity, summary, _proven(kept, alert)])
    return table(["Alert", "Severity", "What it says", "Proven by"], rows)


def _plain(summary: str) -> str:
    return re.sub(r"\{\{\s*\$labels\.(\w+)\s*\}\}", r"*\1*", summary)


def _proven(kept: results.Results, alert: str) -> str:
    """Name the scenarios in which an alert fired, or say why there is none."""
    if alert == WATCHDOG:
        return "every run"
    by = [each["scenario"] for each in kept.found[results.TRIALS] if each["alerts"].get(alert, {}).get("fired")]
    if by:
        return ", ".join(f"`{name}`" for name in dict.fromkeys(by))
    lacking = kept.found.get("lacking", {})
    why = [lacking[each.name] for each in SCENARIOS if alert in each.alerts and each.name in lacking]
    return f"none here: {why[0]}" if why else "**none**"


def _proof(kept: results.Results) -> str:
    heads = ["Scenario", "What happens", "Alert", "Severity", "Told after", "Over after", "Fires too", "Unrelated"]
    rows = []
    for each in _trials(kept, compressed=True) + [
        found for found in _trials(kept, compressed=False) if _only_as_shipped(found["scenario"])
    ]:
        for number, (alert, seen) in enumerate(each["alerts"].items()):
            first = [f"`{each['scenario']}`", each["about"]] if number == 0 else ["", ""]
            others = [", ".join(each["related"]), ", ".join(each["unrelated"])] if number == 0 else ["", ""]
            severity = seen["severities"][0] if seen["severities"] else NONE
            rows.append(
                [
                    *first,
                    alert,
                    severity,
                    _seconds(seen["told_seconds"]),
                    _over(each, seen),
                    *(x or NONE for x in others),
                ]
            )
    return table(heads, rows)


def _only_as_shipped(name: str) -> bool:
    return any(each.name == name and each.only_true_scale for each in SCENARIOS)


def _over(each: trial.Result, seen: dict[str, Any]) -> str:
    if not each["compressed"]:
        return "not waited for"
    over = seen["over_seconds"]
    return "before its end" if over is not None and over < 0 else _seconds(over)


def _seconds(found: float | None) -> str:
    return "never" if found is None else f"{found:.0f} s"


def intervals() -> tuple[float, float]:
    """Return how often servers are scraped and rules evaluated, as shipped."""
    config = (MONITORING / "prometheus/prometheus.yml").read_text()
    found = [pattern.search(config) for pattern in (SCRAPE, EVALUATION)]
    scrape, evaluation = (seconds(each[1]) if each else 0.0 for each in found)
    return scrape, evaluation


def at_most(told: float) -> float:
    """Return how long it takes for a fault that begins at the worst moment: a scrape and an evaluation longer."""
    return told + sum(intervals())


def _as_shipped(kept: results.Results) -> str:
    rows = []
    for each in _trials(kept, compressed=False):
        for alert, seen in each["alerts"].items():
            times = [_seconds(seen[key]) for key in ("held_seconds", "firing_seconds", "told_seconds")]
            told = seen["told_seconds"]
            most = "never" if told is None else f"{at_most(told):.0f} s"
            well = "yes" if told is not None and at_most(told) <= TARGET_SECONDS else "**no**"
            rows.append([alert, f"`{each['scenario']}`", *times, most, well])
    heads = ["Alert", "Scenario", "Holds after", "Fires after", "Told after", "At most", f"Within {TARGET_SECONDS} s"]
    return table(heads, sorted(rows))


def _healthy(kept: results.Results) -> str:
    heads = ["Worker class", "Requests", "Answered with an error or not", "Workers recycled", "Fired"]
    return table(
        heads,
        [
            [
                f"`{each['worker_class']}`",
                str(each["requests"]),
                str(each["not_answered_well"]),
                str(each["workers_recycled"]),
                ", ".join(each["fired"]) or "nothing but Watchdog",
            ]
            for each in kept.found[results.HEALTHY]
        ],
    )


def _seen_on(kept: results.Results) -> str:
    return seen_on(kept.found)


def seen_on(found: Mapping[str, Any]) -> str:
    """Say when, and with what, results were seen."""
    if "versions" not in found:
        return "Nothing has been seen yet."
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"Last seen at {found['when']} on {found['machine']['cores']} cores: {versions}."
