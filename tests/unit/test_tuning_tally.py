"""The tuner's counters begin at 0 for what may be counted, so that the first of each kind is an increase."""

from math import inf

from hypothesis import assume, given
from hypothesis import strategies as st

from observability import catalogue
from observability.tuning.decision import decide
from observability.tuning.memory import MOST_SERVERS
from observability.tuning.model import Action, History, Limits, Outcome
from observability.tuning.tally import MOST_LABEL_SETS, Tally
from tests.unit.tuning_cases import CASES, NOW, servers

SERVER = "10.0.0.1:9101"
DECISIONS = catalogue.TUNER_DECISIONS


def counted(tally, server=SERVER):
    """Return the decisions that are shown of a server, by what stands beside its name."""
    found = tally.page().get(DECISIONS.name)
    points = found.children if found else {}
    shown = {tuple(value for _, value in labels): point["", inf].value for labels, point in points.items()}
    return {key[1:]: value for key, value in shown.items() if key[0] == server}


def looked(server=SERVER):
    tally = Tally()
    tally.set(catalogue.TUNER_EVALUATED, NOW, server)
    return tally


@given(st.one_of(servers(), st.sampled_from(list(CASES.values()))))
def test_all_that_may_be_decided_first_is_there_from_the_first_look(signals):
    decision = decide(signals, Limits(fresh_seconds=1e9), History(), NOW)
    assume(decision.rule != "stale")  # makes no sense, and is never said
    shown = counted(looked())
    first = [Outcome.RECOMMENDED, *([] if decision.action is Action.HOLD else [Outcome.APPLIED])]
    assert {shown.get((decision.action, decision.rule, outcome)) for outcome in first} == {0.0}


def test_nothing_is_shown_of_a_server_that_was_not_looked_at():
    assert counted(Tally()) == {}


def test_what_comes_of_a_step_begins_with_it():
    tally = looked()
    step = (Action.ADD, "io_wait")
    assert (*step, Outcome.KEPT) not in counted(tally)
    tally.count(DECISIONS, SERVER, *step, Outcome.APPLIED)
    shown = counted(tally)
    assert shown[*step, Outcome.APPLIED] == 1
    ends = (Outcome.KEPT, Outcome.UNDONE, Outcome.INCONCLUSIVE, Outcome.FAILED)
    assert {outcome: shown.get((*step, outcome)) for outcome in ends} == dict.fromkeys(ends, 0.0)


def test_another_look_takes_nothing_back():
    tally = looked()
    tally.count(DECISIONS, SERVER, Action.ADD, "io_wait", Outcome.APPLIED)
    tally.set(catalogue.TUNER_EVALUATED, NOW + 1, SERVER)
    assert counted(tally)[Action.ADD, "io_wait", Outcome.APPLIED] == 1


def test_of_a_server_that_has_gone_what_was_counted_stays_and_the_rest_goes():
    tally = looked()
    tally.count(DECISIONS, SERVER, Action.ADD, "io_wait", Outcome.APPLIED)
    tally.forget(SERVER)
    assert counted(tally) == {(Action.ADD, "io_wait", Outcome.APPLIED): 1.0}


def test_there_is_room_for_as_many_servers_as_are_looked_at():
    assert MOST_SERVERS * (len(counted(looked())) + 8) < MOST_LABEL_SETS
