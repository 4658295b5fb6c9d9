"""Runs one scenario, and says what was seen."""

import copy
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final

from tests.prove import shipped
from tests.prove.load import ask
from tests.prove.scenario import Scenario
from tests.prove.stack import WATCHDOG, Firing, Stack, rest
from tests.prove.webhook import Notice

Result = dict[str, Any]
Say = Callable[[str], None]

TOLD_WITHIN: Final = 150.0  # seconds from the fault; what has not come by then counts as never
OVER_WITHIN: Final = 150.0  # seconds from the end of the fault
LASTS_SECONDS: Final = 45.0  # at least, so that other alerts have their windows and waits to go wrong in
WORST_FIRST: Final = ("critical", "warning", "info")


def run(scenario: Scenario, *, compressed: bool, say: Say, lasts: float = LASTS_SECONDS) -> Result:
    """Inject the fault, and wait for its alerts and for their end; with the shipped durations, for the alerts only.

    Args:
        scenario: what to do.
        compressed: with scaled durations.
        say: takes words of progress.
        lasts: seconds that the fault lasts at least.
    """
    begun, known = time.time(), shipped.fingerprints()
    with ExitStack() as around:
        setup = copy.deepcopy(scenario.setup)
        extra = scenario.arrange(setup, around) if scenario.arrange else None
        stack = around.enter_context(Stack(setup, compressed=compressed))
        stack.extra = extra
        ask(stack.server.url + "/todos", "POST")
        stack.settle(scenario.settle)
        say("fault")
        fault = time.time()
        with scenario.inject(stack):
            told = _wait(lambda: all(stack.notices(alert, since=fault) for alert in scenario.alerts), TOLD_WITHIN)
            say("told" if told else "NOT told")
            if compressed:
                rest(fault + lasts - time.time())
        ended = time.time()
        if compressed:
            _wait(lambda: all(_over(stack, alert, fault) for alert in scenario.alerts), OVER_WITHIN)
        fired = stack.fired()
        found = {
            "scenario": scenario.name,
            "about": scenario.about,
            "compressed": compressed,
            "rules": {alert: known[alert] for alert in scenario.alerts},
            "alerts": {alert: _alert(stack, fired, alert, fault, ended) for alert in scenario.alerts},
            **_others(scenario, fired, fault),
            "watchdog": bool(stack.notices(WATCHDOG)),
            "fault_seconds": round(ended - fault, 1),
        }
    return found | {"seconds": round(time.time() - begun, 1)}


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.time() + seconds
    while not condition():
        if time.time() >= deadline:
            return False
        rest(0.1)
    return True


def _over(stack: Stack, alert: str, fault: float) -> list[Notice]:
    """Return the words that an alert is over, if all came: where it has severities, that its worst is."""
    told = stack.notices(alert, since=fault)
    worst = min((notice.labels["severity"] for notice in told), key=WORST_FIRST.index, default="")
    over = [each for each in stack.notices(alert, "resolved", fault) if each.labels["severity"] == worst]
    missing = {each.of for each in told if each.labels["severity"] == worst} - {each.of for each in over}
    return [] if missing else over


def _alert(stack: Stack, fired: Iterable[Firing], alert: str, fault: float, ended: float) -> Result:
    """Say when an alert's expression held, when it fired, when it was told of, and when it was told to be over."""
    firings = [each for each in fired if each.alert == alert and each.last >= fault]
    notices = stack.notices(alert, since=fault)
    over = _over(stack, alert, fault)
    severities = {each.labels["severity"] for each in firings}
    return {
        "fired": bool(firings and notices),
        "severities": [severity for severity in WORST_FIRST if severity in severities],
        "receivers": sorted({notice.receiver for notice in notices}),
        "held_seconds": _after(fault, [each.pending for each in firings]),
        "firing_seconds": _after(fault, [each.first for each in firings]),
        "told_seconds": _after(fault, [notice.at for notice in notices]),
        "over_seconds": round(max(notice.at for notice in over) - ended, 1) if over else None,
    }


def _after(fault: float, moments: list[float]) -> float | None:
    return round(min(moments) - fault, 1) if moments else None


def _others(scenario: Scenario, fired: Iterable[Firing], fault: float) -> Result:
    """Say what else fired: what is related, what is not, and what did before there was a fault."""
    names = {each.alert for each in fired if each.last >= fault} - {*scenario.alerts, WATCHDOG}
    return {
        "related": {alert: scenario.related[alert] for alert in sorted(names & scenario.related.keys())},
        "unrelated": sorted(names - scenario.related.keys()),
        "before": sorted({each.alert for each in fired if each.first < fault}),
    }
