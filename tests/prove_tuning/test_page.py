"""What docs/tuning.md says was seen, was seen; and it was seen of the tuner that is there."""

import pytest

from tests.prove_tuning import page, plots, results, shipped, simulation
from tests.prove_tuning.scenarios import SCENARIOS

KEPT = results.Results.read()
AGAIN = "run `make prove-tuning ARGS={}`"
# What the tuner does not do yet as it must; the page says so in bold. One that is met has to go from here.
NOT_MET: dict[str, set[str]] = {}
IDS = [each.name for each in SCENARIOS]


def test_the_page_and_its_pictures_are_drawn_from_the_results():
    assert page.text(KEPT, page.PAGE.read_text()) == page.PAGE.read_text(), AGAIN.format("--page")
    for name, picture in page.pictures(KEPT).items():
        assert (plots.DIRECTORY / name).read_text() == picture, AGAIN.format("--page")


def test_no_two_scenarios_have_one_name():
    assert len({*IDS}) == len(IDS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=IDS)
def test_a_scenario_was_run_with_the_tuner_of_today(scenario):
    if why := KEPT.found.get("lacking", {}).get(scenario.name):
        pytest.skip(why)
    found = KEPT.trial(scenario.name)
    assert found is not None, AGAIN.format(scenario.name)
    assert found["fingerprint"] == shipped.fingerprint(), AGAIN.format(scenario.name)
    assert (found["about"], found["expects"]) == (scenario.about, scenario.expects), AGAIN.format(scenario.name)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=IDS)
def test_every_check_was_met_but_those_of_which_it_is_known(scenario):
    found = KEPT.trial(scenario.name)
    if found is None:
        pytest.skip(KEPT.found.get("lacking", {}).get(scenario.name, "not run yet"))
    assert {each["what"] for each in found["checks"] if not each["met"]} == NOT_MET.get(scenario.name, set())
    assert len(found["checks"]) >= 3, "what holds for every scenario is checked in each"
    assert found["timeline"], "nothing was recorded"


def test_the_days_were_simulated_with_the_tuner_of_today():
    assert results.DAYS in KEPT.found, AGAIN.format("days")
    assert KEPT.found[results.DAYS]["fingerprint"] == simulation.fingerprint(), AGAIN.format("days")
    assert KEPT.found[results.DAYS]["vetoes_broken"] == 0


def test_a_digest_is_of_what_the_code_does_and_not_of_what_it_says():
    said = 'THRESHOLD = 0.8  # measured\n\n\ndef f(x):\n    """Say."""\n    # why\n    return "# x"\n'
    again = 'THRESHOLD = 0.8\n\ndef f(x):\n    """Say it in\n    other words."""\n    return "# x"\n'
    assert list(shipped.code(said)) == list(shipped.code(again)) == ["THRESHOLD = 0.8", "def f(x):", '    return "# x"']
    assert list(shipped.code(said.replace("0.8", "0.9"))) != list(shipped.code(said))
