"""What docs/alerts.md says was seen, was seen; and it was seen of the rules that are shipped."""

import pytest

from tests.prove import page, results, shipped
from tests.prove.scenarios import SCENARIOS
from tests.prove.stack import WATCHDOG

KEPT = results.Results.read()
RULES = shipped.alerts()
AGAIN = "run `make prove ARGS={}`"


def test_the_page_is_written_from_the_results():
    assert page.text(KEPT, page.PAGE.read_text()) == page.PAGE.read_text(), AGAIN.format("--page")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_scenario_names_alerts_that_there_are(scenario):
    assert {*scenario.alerts, *scenario.related} <= RULES.keys()
    assert not set(scenario.alerts) & scenario.related.keys()


def test_every_alert_has_a_scenario():
    assert RULES.keys() - {WATCHDOG} == {alert for each in SCENARIOS for alert in each.alerts}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_scenario_was_run_with_the_rules_of_today(scenario):
    if scenario.name in KEPT.found["lacking"]:
        pytest.skip(KEPT.found["lacking"][scenario.name])
    found = [each for each in KEPT.found[results.TRIALS] if each["scenario"] == scenario.name]
    assert sorted(each["compressed"] for each in found) == sorted(scenario.scales()), AGAIN.format(scenario.name)
    today = shipped.fingerprints()
    for each in found:
        assert each["rules"] == {alert: today[alert] for alert in scenario.alerts}, AGAIN.format(scenario.name)


def test_everything_was_as_it_should_be():
    wrong = {
        (kind, *results.key(kind, each)): results.wrong(kind, each)
        for kind in (results.TRIALS, results.HEALTHY)
        for each in KEPT.found[kind]
    }
    assert {name: found for name, found in wrong.items() if found} == {}


def test_a_full_server_and_dying_workers_are_told_of_within_a_minute():
    shipped = [each for each in KEPT.found[results.TRIALS] if not each["compressed"]]
    assert shipped
    late = {
        (each["scenario"], alert): seen["told_seconds"]
        for each in shipped
        for alert, seen in each["alerts"].items()
        if alert not in page.LATER and page.at_most(seen["told_seconds"]) > page.TARGET_SECONDS
    }
    assert late == {}
