"""What the tuner decides: the diagnosis, what it would do, what keeps it from that, and the lines it advises."""

import itertools
import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.settings import Server
from observability.tuning import advise, bounds, load, table, verdict
from observability.tuning.asked import Asked
from observability.tuning.decision import decide, lost
from observability.tuning.model import Action, History, Limits, Outcome, Step
from scripts import docs
from tests.server import ROOT
from tests.unit.test_tuning_table import UNIT
from tests.unit.tuning_cases import (
    CASES,
    COMPUTING,
    LOOPS,
    MIB,
    NOW,
    THREADS,
    WAITING,
    WELL,
    kept,
    live,
    servers,
    step,
)

LIMITS = Limits()
SERVER_SETTINGS = {each.metadata["variable"]: each.metadata["kind"] for each in Server.__dataclass_fields__.values()}
COMMANDS = {name for name, _, _ in docs.options()}


def decided(signals, limits=LIMITS, history=None, now=NOW):
    return decide(signals, limits, history or History(), now)


def lines(decision):
    return [each.line for each in decision.advice]


@pytest.mark.parametrize("name", CASES)
def test_the_first_row_that_holds_is_the_diagnosis(name):
    decision = decided(CASES[name])
    row = next(row for row in table.TABLE if row.name == name)
    assert (decision.rule, decision.diagnosis) == (name, row.meaning)
    assert set(decision.numbers) == set(row.signals)
    assert decision.urgency >= 1


def test_a_server_that_is_well_is_left_alone():
    decision = decided(WELL)
    assert (decision.action, decision.rule, decision.urgency, decision.advice) == (Action.HOLD, "well", 0, ())
    assert decision.workers == 2


def test_sync_workers_that_wait_get_another_and_the_advice_of_threads():
    """Measured: two sync workers answer 25 a second, gthread with two times 16 threads 298."""
    decision = decided(WAITING)
    assert (decision.action, decision.workers, decision.urgency) == (Action.ADD, 3, 2)
    assert lines(decision) == ["GUNICORN_WORKER_CLASS=gthread", "GUNICORN_THREADS=25"]
    assert decision.advice[1].why == "32 requests at a time / (0.65 x 2 workers) = 25 threads."
    assert (
        decision.advice[1].expect
        == "Room for 50 requests at a time: about 400 req/s instead of 25 req/s, on 0.8 of 2 cores."
    )


def test_the_rate_that_is_answered_is_not_taken_for_the_one_that_comes():
    """By the 25 a second that they answer, two busy slots would be the need: ceil(2 / (0.65 x 2)) = 2 threads."""
    behind_a_proxy = replace(WAITING, queue_source="proxy")
    assert "GUNICORN_THREADS=25" in lines(decided(behind_a_proxy))
    fewer = replace(WAITING, backlog=4.0, queue_p95=0.16)
    assert "GUNICORN_THREADS=5" in lines(decided(fewer))


def test_many_processes_are_to_become_threads_of_as_many_as_there_are_cores():
    decision = decided(live(WAITING, 8, requests_per_second=80.0, service_seconds=0.1, in_flight=8.0, backlog=24.0))
    assert lines(decision) == ["GUNICORN_WORKER_CLASS=gthread", "GUNICORN_THREADS=25", "WEB_CONCURRENCY=2"]


def test_threads_end_where_the_core_of_a_worker_is_used_up():
    """Service time / CPU per request: 40 ms / 10 ms = 4 threads keep one core busy, and a second worker another."""
    heavy = replace(WAITING, service_seconds=0.04, cpu_seconds_per_request=0.01, backlog=200.0)
    assert "GUNICORN_THREADS=4" in lines(decided(heavy))
    assert lines(decided(replace(heavy, cores=8.0)))[1:] == ["GUNICORN_THREADS=4", "WEB_CONCURRENCY=8"]
    few = decided(replace(heavy, cores=8.0), Limits(ceiling=5))
    assert lines(few)[1:] == ["GUNICORN_THREADS=4", "WEB_CONCURRENCY=5"], "people allow no more"
    assert "GUNICORN_THREADS=128" in lines(decided(replace(heavy, cpu_seconds_per_request=None, backlog=2000.0)))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"queued": 0.1}, "GUNICORN_THREADS=7"),  # 8.1 requests at a time / (0.65 x 2 workers)
        ({"queued": 0.1, "in_flight": 6.5}, "GUNICORN_THREADS=7"),  # (rate x service time is 8)
        ({"queued": 0.0, "in_flight": 6.5, "requests_per_second": 65.0}, "GUNICORN_THREADS=6"),  # by half
        ({}, "GUNICORN_THREADS=25"),
        ({"worker_class": "gevent", "slots": 4}, "GUNICORN_WORKER_CONNECTIONS=25"),
    ],
)
def test_threads_that_are_short_grow_by_half_or_to_the_demand(changes, line):
    decision = decided(replace(THREADS, **changes))
    assert (decision.rule, lines(decision)) == ("threads", [line])


def test_work_on_the_cpu_gets_one_try_beyond_the_cores_and_the_advice_of_cpu():
    first = decided(COMPUTING)
    assert (first.action, first.workers, first.ceiling) == (Action.ADD, 3, 3)
    then = decided(live(COMPUTING, 3))
    assert (then.action, then.vetoes) == (Action.HOLD, ("limit",))
    for decision in (first, then):
        assert lines(decision) == ["APP_CPUS=3.0", "REPLICAS=2"]
    learned = History(learned_ceiling=2, learned_until=NOW + 1)
    assert decided(COMPUTING, history=learned).action == Action.HOLD, "tried, and undone"


def test_starved_workers_get_none_and_lose_those_that_are_too_many():
    decision = decided(CASES["starved"])
    assert (decision.action, decision.workers) == (Action.REMOVE, 3)
    assert "cpu" in decision.vetoes
    assert lines(decision) == ["APP_CPUS=4.0", "REPLICAS=2", "WEB_CONCURRENCY=3"]
    assert "REPLICAS=6" in lines(decided(replace(CASES["starved"], servers=3)))
    assert lines(decided(replace(CASES["contended"], servers=3))) == ["REPLICAS=4"]
    assert decided(live(CASES["starved"], 3)).action == Action.HOLD


def test_memory_takes_a_worker_and_lowers_the_ceiling():
    decision = decided(CASES["memory"])
    assert (decision.action, decision.workers, decision.ceiling, decision.urgency) == (Action.REMOVE, 4, 4, 3)
    assert lines(decision) == ["APP_MEMORY=1024m", "WEB_CONCURRENCY=4"]
    at_the_floor = decided(live(CASES["memory"], 2, worker_memory_p95=300.0 * MIB))
    assert (at_the_floor.action, at_the_floor.workers) == (Action.HOLD, 2)
    assert lines(at_the_floor) == ["APP_MEMORY=1024m"]
    assert "floor" in at_the_floor.reason
    assert decided(CASES["memory"], history=kept((100.0, 4, 5))).action is Action.REMOVE, "soon after growth as well"
    assert decided(CASES["idle"], history=kept((100.0, 4, 5))).action is Action.HOLD
    killed = decided(live(WELL, 5, oom_kills=1.0))
    assert (killed.workers, killed.ceiling) == (4, 4), "by size and by use, thirteen would fit"


@pytest.mark.parametrize(
    "name", ["stuck", "errors", "hub_blocked", "dependency", "skew", "changing", "unclear", "contended"]
)
def test_what_no_worker_mends_gets_none(name):
    assert decided(CASES[name]).action == Action.HOLD
    assert decided(CASES[name]).workers == CASES[name].workers_target


def test_a_loop_that_computes_gets_the_cores_and_then_the_advice_of_threads():
    few = live(CASES["hub_busy"], 2, cores=4.0, cpu_share=0.45)
    assert lines(decided(few)) == ["WEB_CONCURRENCY=4"]
    assert decided(few).workers == 3
    full = decided(CASES["hub_busy"])
    assert full.action == Action.HOLD
    assert [each.variable for each in full.advice] == [
        "GUNICORN_WORKER_CLASS",
        "GUNICORN_THREADS",
        "APP_CPUS",
        "REPLICAS",
    ]
    asgi = decided(replace(CASES["hub_busy"], worker_class="asgi"))
    assert [each.variable for each in asgi.advice] == ["APP_CPUS", "REPLICAS"], "an ASGI app runs in no thread worker"


def test_skew_wants_more_workers_with_fewer_connections():
    assert lines(decided(CASES["skew"])) == ["WEB_CONCURRENCY=5", "GUNICORN_WORKER_CONNECTIONS=19"]
    assert lines(decided(CASES["skew"], Limits(ceiling=4))) == ["GUNICORN_WORKER_CONNECTIONS=24"]
    sync = replace(CASES["skew"], worker_class="sync", slots=1)
    assert lines(decided(sync)) == ["WEB_CONCURRENCY=5"]


def test_a_leak_is_told_of_under_any_diagnosis():
    recycling = ["GUNICORN_MAX_REQUESTS=72000", "GUNICORN_MAX_REQUESTS_JITTER=7200"]  # two hours of 10 a second
    assert lines(decided(CASES["leak"])) == recycling
    both = decided(replace(CASES["memory"], leak_bytes=1.0 * MIB))
    assert both.rule == "memory"
    assert lines(both)[:2] == ["APP_MEMORY=1024m", "WEB_CONCURRENCY=4"]
    assert lines(both)[2:] == ["GUNICORN_MAX_REQUESTS=29000", "GUNICORN_MAX_REQUESTS_JITTER=2900"]
    assert lines(decided(replace(CASES["leak"], requests_per_second=0.0)))[0] == "GUNICORN_MAX_REQUESTS=1000"


def test_an_idle_server_loses_one_worker():
    decision = decided(CASES["idle"])
    assert (decision.action, decision.workers, lines(decision)) == (Action.REMOVE, 4, ["WEB_CONCURRENCY=4"])


def test_a_full_backlog_is_urgent_whatever_the_diagnosis():
    assert decided(WAITING).urgency == 2
    assert decided(replace(WAITING, backlog=1900.0)).urgency == 3
    assert decided(replace(WAITING, backlog=1900.0)).rule == "io_wait"
    alone = decided(CASES["backlog"])
    assert (alone.action, alone.workers) == (Action.ADD, 3)
    full = decided(replace(CASES["backlog"], cpu_share=0.9))
    assert (full.action, lines(full)) == (Action.HOLD, ["APP_CPUS=3.0", "REPLICAS=2"])
    assert "shed load" in full.reason


@pytest.mark.parametrize(
    ("changes", "veto"),
    [
        ({"memory_share": 0.95}, "memory"),
        ({"timeouts": 1.0}, "stuck"),
        ({"cpu_share": 0.9, "run_queue": 2.0}, "cpu"),
        ({"throttled": 0.5, "cpu_share": 0.5}, "cpu"),
        ({"requests": 5.0}, "traffic"),
        ({"workers_live": 1}, "unsettled"),
        ({"reloading": True}, "unsettled"),
        ({"age": 16.0}, "stale"),
    ],
)
def test_a_veto_holds_whichever_row_is_first(changes, veto):
    decision = decided(replace(WAITING, **changes))
    assert decision.action is not Action.ADD
    assert veto in decision.vetoes
    assert decided(WAITING).action is Action.ADD


def test_what_keeps_it_from_acting_is_said_with_its_numbers():
    reason = decided(replace(WAITING, requests=5.0)).reason
    assert "No worker is added now: 5 requests in 60 s, and 10 would tell enough." in reason
    reason = decided(CASES["idle"], history=kept((100.0, 4, 5))).reason
    assert "No worker is removed now: a removal waits another 8.33 min after the last change." in reason
    reason = decided(live(WAITING, 3), history=History((step(WAITING, 3, 10.0),))).reason
    assert "the change from 2 to 3 workers is still being watched" in reason


def test_without_fresh_signals_there_is_no_decision():
    decision = decided(replace(WAITING, age=20.0))
    assert (decision.action, decision.rule, decision.vetoes, decision.advice) == (Action.HOLD, "stale", ("stale",), ())
    assert decision.reason == "The signals are 20 s old; 15 s is the most."


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e300])
@pytest.mark.parametrize("name", ["busy", "requests_per_second", "service_seconds", "memory_limit", "age", "cores"])
def test_signals_that_make_no_sense_decide_nothing(name, value):
    decision = decided(replace(CASES["memory"], **{name: value}))
    if (name, value) == ("age", -1.0):
        return  # clocks differ a little
    assert (decision.action, decision.rule) == (Action.HOLD, "stale")
    json.dumps(asdict(decision), allow_nan=False)


def test_a_reload_loses_what_was_accepted_and_is_no_reason_to_act():
    history = kept((9000.0, 2, 3), (8000.0, 3, 4), accepted=4)
    decision = decided(WELL, history=history)
    assert (decision.action, decision.rule, decision.urgency) == (Action.HOLD, "well", 1)
    assert lines(decision) == ["WEB_CONCURRENCY=4"]
    assert (
        decision.advice[0].why == "A reload or restart has put back 2 workers, where changes one by one had led to 4."
    )
    assert lost(WELL, history)


def test_what_was_accepted_is_to_be_set_before_a_reload_loses_it():
    history = kept((9000.0, 2, 3), accepted=3)
    decision = decided(live(WELL, 3), history=history)
    assert (lines(decision), decision.urgency) == (["WEB_CONCURRENCY=3"], 0)
    night = kept((9000.0, 3, 2), accepted=2)
    assert lines(decided(WELL, history=night)) == [], "the night's count is not the day's"
    assert lines(decided(live(WELL, 7), history=history)) == [], "somebody else has chosen"
    watched = History((step(WAITING, 3, 10.0),), accepted=2)
    assert lines(decided(live(WELL, 3), history=watched)) == []


@pytest.mark.parametrize("other", [{"worker_class": "gthread", "slots": 3.0}, {"slots": 2.0}])
@pytest.mark.parametrize("workers", [2, 3])
def test_what_was_accepted_for_other_workers_is_not_advised(other, workers):
    """Whoever has set the threads that were advised is not to set the workers as well that were to do without."""
    history = kept((9000.0, 2, 3), accepted=3)
    history = replace(history, steps=(*history.steps, Step(NOW - 8000.0, Action.ADD, 3, 4, "undo", Outcome.KEPT)))
    assert lines(decided(live(WELL, workers, **other), history=history)) == []
    assert not lost(live(WELL, workers, **other), history)


def test_beside_kubernetes_advice_of_now_leaves_replicas_out_too(monkeypatch):
    asked = Asked("http://prometheus", "", "", None, 0.0, 60.0)
    starved = CASES["starved"]
    with_replicas = advise._advised({1.0: [starved]}, asked, Limits())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    within = advise._advised({1.0: [starved]}, asked, Limits())
    said = [[each.variable for each in found[starved.server][1.0].decision.advice] for found in (with_replicas, within)]
    assert "REPLICAS" in said[0]
    assert said[1] == [each for each in said[0] if each != "REPLICAS"] != []


def test_each_variable_is_advised_once_and_never_its_own_value():
    history = kept((9000.0, 4, 5), accepted=5)
    decision = decided(live(CASES["memory"], 4), history=history)
    assert [each.variable for each in decision.advice] == ["APP_MEMORY", "WEB_CONCURRENCY"]
    assert lines(decision)[1] == "WEB_CONCURRENCY=3"
    most = decided(replace(THREADS, slots=1024))
    assert (most.rule, lines(most)) == ("threads", []), "gunicorn's setting ends there"


def advised(decision):
    """Check lines as the server's own settings would, and sentences."""
    assert len({each.variable for each in decision.advice}) == len(decision.advice)
    for each in decision.advice:
        assert each.value != each.now
        kind = SERVER_SETTINGS.get(each.variable)
        assert kind is not None or each.variable in COMMANDS, each.variable
        if kind is not None:
            kind.parse(each.value)
        for sentence in (each.why, each.expect):
            assert sentence.endswith("."), sentence
        assert UNIT.search(each.why) or UNIT.search(each.expect), each
        if each.variable == "APP_CPUS":
            assert float(each.value) > 0
        elif each.variable == "APP_MEMORY":
            assert int(each.value.removesuffix("m")) > 0


@pytest.mark.parametrize("name", CASES)
def test_advised_lines_are_settings_that_the_server_takes(name):
    advised(decided(CASES[name]))
    page = (ROOT / "docs/settings.md").read_text()
    for each in decided(CASES[name]).advice:
        assert f"| `{each.variable}` | " in page


limits = st.builds(
    Limits,
    floor=st.integers(1, 4),
    ceiling=st.sampled_from([0, 0, 4, 8, 20]),
    queue_objective=st.sampled_from([0.05, 0.5]),
    actions_per_hour=st.integers(0, 8),
)
histories = st.builds(
    lambda changes, ceiling, until, accepted: replace(
        kept(*((ago, workers, workers + way) for ago, workers, way in sorted(changes, reverse=True))),
        learned_ceiling=ceiling,
        learned_until=NOW + until,
        accepted=accepted,
    ),
    st.lists(st.tuples(st.floats(0, 90_000), st.integers(2, 20), st.sampled_from([1, -1])), max_size=8),
    st.integers(0, 10),
    st.floats(-100, 100),
    st.integers(0, 20),
)


def forbidden(signals, limits, history, now):
    """Return why a worker more is forbidden, by the facts alone and not by the code that is tested."""
    workers = signals.workers_target
    hour = sum(1 for each in history.steps if now - each.time < 3600)
    last = max((each.time for each in history.steps), default=-1e12)
    memory = signals.memory_limit and signals.worker_memory_p95
    room = (0.85 * (signals.memory_limit or 0) - (signals.master_memory or 0)) if memory else 0
    starving = signals.cpu_share >= 0.85 and signals.run_queue >= 1
    return {
        "user": limits.ceiling and workers + 1 > limits.ceiling,
        "memory": (signals.memory_share or 0) > 0.9 or signals.oom_kills > 0,
        "size": memory and (workers + 1) * signals.worker_memory_p95 > room,
        "cpu": starving or (signals.throttled >= 0.25 and signals.cpu_share * signals.cores > 0.2),
        "cores": signals.cpu_share >= 0.7 and workers + 1 > -(-signals.cores // 1) + 1,
        "stuck": signals.timeouts > 0 and (signals.busy_rising or signals.busy >= 0.8),
        "cool_down": now - last < max(60, 2 * signals.boot_seconds),
        "hour": hour + 1 > limits.actions_per_hour,
        "settled": signals.reloading or signals.workers_live != workers,
        "age": signals.age > limits.fresh_seconds,
        "watched": any(each.outcome is Outcome.APPLIED for each in history.steps),
        "traffic": signals.requests < 10,
    }


def checked(signals, limits, history, now):
    """Decide, and hold the decision against what must be true of any."""
    decision = decide(signals, limits, history, now)
    assert decision == decide(signals, limits, history, now), "same input, same output"
    assert json.loads(json.dumps(asdict(decision), allow_nan=False))["rule"] == decision.rule
    change = {Action.ADD: 1, Action.REMOVE: -1, Action.HOLD: 0}[decision.action]
    assert decision.workers == signals.workers_target + change
    assert decision.diagnosis
    assert decision.reason
    assert 0 <= decision.urgency <= 3
    assert set(decision.vetoes) <= set(bounds.VETOES)
    if decision.action is Action.ADD:
        why = forbidden(signals, limits, history, now)
        assert not any(why.values()), why
        assert decision.vetoes == ()
        assert decision.workers <= decision.ceiling
    if decision.action is Action.REMOVE:
        assert decision.workers >= limits.floor
        assert signals.settled
    advised(decision)
    return decision


@given(servers(), limits, histories)
@settings(max_examples=200, deadline=None)
def test_no_decision_is_outside_the_bounds(signals, limits, history):
    checked(signals, limits, history, NOW)


@given(
    servers(), limits, histories, st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(sorted(asdict(WELL)))
)
def test_no_signal_makes_it_raise(signals, limits, history, value, name):
    """Whatever a number of the signals is, there is a decision, and it can be written down."""
    if isinstance(getattr(signals, name), float) or getattr(signals, name) is None:
        signals = replace(signals, **{name: value})
    json.dumps(asdict(decide(signals, limits, history, NOW)), allow_nan=False)


@given(st.lists(st.tuples(servers(), st.floats(1, 1200)), min_size=5, max_size=40), limits)
@settings(max_examples=50, deadline=None)
def test_it_never_goes_up_and_down_within_a_cool_down(moments, limits):
    """A server that shows anything at any time, whose changes are made, watched, judged, and taken back."""
    history, target, now = History(), 4, NOW
    for signals, pause in moments:
        now += pause
        signals = live(signals, target, time=now - 3)
        watched = history.steps[-1] if history.steps and history.steps[-1].outcome is Outcome.APPLIED else None
        decision = checked(signals, limits, history, now)
        if watched is None:
            if decision.action is Action.HOLD:
                continue
            made = Step(now, decision.action, target, decision.workers, decision.rule, Outcome.APPLIED, signals)
            history, target = replace(history, steps=(*history.steps, made)), decision.workers
            paced(history, limits, signals)
        elif verdict.due(watched, signals, limits, now):
            outcome, reason, numbers = verdict.judge(watched.signals, signals, watched, limits)
            json.dumps(numbers, allow_nan=False)
            assert reason
            if outcome is not Outcome.INCONCLUSIVE or verdict.last_look(watched, limits, now):
                history = verdict.remember(history, watched, outcome, now, limits)
                target = watched.before if outcome is Outcome.UNDONE else target
                assert history.accepted == target
        hour = [each for each in history.steps if now - each.time < 3600]
        assert len(hour) <= max(limits.actions_per_hour, 2), "with what was taken back"


def paced(history, limits, signals):
    """Hold the last step against the one before it."""
    if len(history.steps) < 2:
        return
    before, last = history.steps[-2:]
    gap = last.time - before.time
    assert gap >= limits.grow_seconds
    assert before.outcome is not Outcome.APPLIED, "the one before has been judged"
    if last.action is Action.REMOVE and last.rule != "memory":
        assert gap >= limits.shrink_seconds
    if last.action is Action.ADD and history.learned_ceiling > 0 and last.time < history.learned_until:
        undone = [each for each in history.steps if each.outcome is Outcome.UNDONE]
        then = next((each.signals for each in reversed(undone) if each.before == history.learned_ceiling), signals)
        same = (then.worker_class, then.slots) == (signals.worker_class, signals.slots)
        more = load.demand(signals) > 1.25 * load.demand(then)
        assert more or not same or last.after <= history.learned_ceiling


@given(servers(), limits, histories, st.floats(0, 200) | st.none())
@settings(max_examples=300, deadline=None)
def test_it_never_removes_below_what_the_most_of_ten_minutes_needs(signals, limits, history, most):
    """By Erlang's formula as a sum, not slot by slot as the code has it; but for what saves memory or the CPU."""
    signals = replace(signals, quiet_peak=most, slots=float(min(50, round(signals.slots))))
    decision = decide(signals, limits, history, NOW)
    if decision.rule != "idle" or decision.action is not Action.REMOVE:
        return
    assert decision.workers >= limits.floor
    if most is None or load.looped(signals):
        assert (signals.busy < 0.25, signals.low_seconds >= limits.idle_seconds) == (True, True)
        return
    slots, demand = round(decision.workers * max(1.0, signals.slots)), max(most, signals.in_flight)
    assert demand <= 0.65 * slots
    if demand > 1e-6:
        last = slots * math.log(demand) - math.lgamma(slots + 1) + math.log(slots / (slots - demand))
        terms = (slot * math.log(demand) - math.lgamma(slot + 1) - last for slot in range(slots))
        waiting = 1 / (1 + sum(math.exp(min(700.0, term)) for term in terms))
        longest = math.log(max(waiting, 0.05) / 0.05) * (signals.service_seconds or 0.0) / (slots - demand)
        assert longest <= limits.queue_objective * 1.000001


def test_a_load_that_comes_and_goes_every_few_minutes_moves_nothing():
    """Four minutes of little to do, four of much that four workers can do: no removal, so no growth."""
    history, busy = History(), live(WELL, 4, busy=0.7)
    for minute in range(240):
        quiet = minute % 8 < 4
        signals = live(WELL, 4, busy=0.1, low_seconds=minute % 8 * 60.0) if quiet else busy
        decision = decided(replace(signals, time=NOW + 60 * minute), history=history, now=NOW + 60 * minute)
        assert decision.action is Action.HOLD


def test_a_load_that_returns_after_each_removal_is_left_in_peace_ever_longer():
    """Fifteen minutes of nothing, then more than the workers that are left can do."""
    history, target, removals = History(), 4, []
    for minute in range(600):
        now, phase = NOW + 60.0 * minute, minute % 25
        if phase < 15:
            signals = live(WELL, target, busy=0.1, low_seconds=phase * 60.0)
        else:
            signals = live(WAITING, target) if target < 4 else live(WELL, 4, busy=0.7)
        decision = decided(signals, history=history, now=now)
        if decision.action is Action.HOLD:
            continue
        done = Step(now, decision.action, target, decision.workers, decision.rule, Outcome.KEPT, signals)
        history, target = replace(history, steps=(*history.steps, done)), decision.workers
        if decision.action is Action.REMOVE:
            removals.append(minute)
    assert 3 <= len(removals) <= 10, "without the growing wait it would be one in each of the 24 rounds"
    assert max(later - before for before, later in itertools.pairwise(removals)) >= 80


def test_nothing_to_do_for_long_leads_to_the_floor_one_by_one():
    history, target = History(), 5
    for minute in range(60):
        now = NOW + 60.0 * minute
        idle = live(CASES["idle"], target, requests=0.0, requests_per_second=0.0, in_flight=0.0)
        decision = decided(idle, history=history, now=now)
        if decision.action is Action.REMOVE:
            done = Step(now, Action.REMOVE, target, decision.workers, "idle", Outcome.KEPT, idle)
            history, target = replace(history, steps=(*history.steps, done)), decision.workers
    assert [round((each.time - NOW) / 60) for each in history.steps] == [0, 10, 20]
    assert target == 2


def test_loops_are_grown_by_the_same_rails():
    grown = decided(CASES["processes"])
    assert (grown.action, grown.workers, lines(grown)) == (Action.ADD, 3, ["WEB_CONCURRENCY=4"])
    assert decided(replace(LOOPS, cores=4.0, busy=0.9, queue_p95=0.2, requests=100.0)).action == Action.HOLD
