"""What keeps the tuner from a change: ceilings, cool-downs, traffic, and signals that are no ground to stand on."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.tuning import bounds
from observability.tuning.model import Action, History, Limits, Outcome
from tests.unit.tuning_cases import CASES, COMPUTING, LOOPS, MIB, NOW, THREADS, WAITING, WELL, kept, live, servers, step

LIMITS = Limits()
NONE = History()


def vetoes(signals, limits=LIMITS, history=NONE, now=NOW):
    return [each.veto for each in bounds.growth(signals, limits, history, now)]


def removal(signals, limits=LIMITS, history=NONE, relief=False):
    return [each.veto for each in bounds.removal(signals, limits, history, NOW, relief)]


# Ceilings.


@pytest.mark.parametrize(
    ("signals", "limits", "ceiling"),
    [
        (replace(WAITING, memory_limit=None), Limits(), 1024),
        (replace(WAITING, memory_limit=None), Limits(ceiling=8), 8),
        (WAITING, Limits(), 13),  # (0.85 x 768 - 60) / 45 = 13.2
        (replace(WAITING, memory_share=0.8), Limits(), 3),  # two, and 76.8 MiB up to 90 % hold one more
        (replace(WAITING, memory_share=0.86), Limits(), 2),
        (replace(WAITING, memory_share=0.95), Limits(), 2),
        (replace(WAITING, master_memory=None, memory_share=None), Limits(), 14),
        (replace(WAITING, worker_memory_p95=None), Limits(), 1024),
        (replace(WAITING, worker_memory_p95=700.0 * MIB), Limits(), 1),
        (COMPUTING, Limits(), 3),
        (replace(COMPUTING, cores=1.5), Limits(), 3),
        (replace(COMPUTING, cores=1.0), Limits(), 2),
        (replace(COMPUTING, cpu_share=0.69), Limits(), 13),
        (replace(WAITING, throttled=0.25), Limits(), 3),
        (replace(WAITING, throttled=0.24), Limits(), 13),
        (COMPUTING, Limits(ceiling=2), 2),
    ],
)
def test_growth_ends_at_the_least_of_all_bounds(signals, limits, ceiling):
    assert bounds.ceiling(signals, limits, NONE, NOW) == ceiling
    assert ("limit" in vetoes(signals, limits)) == (signals.workers_target >= ceiling)


def test_a_learned_ceiling_holds_until_it_is_forgotten():
    learned = History(learned_ceiling=4, learned_until=NOW + 1)
    assert bounds.ceiling(WAITING, LIMITS, learned, NOW) == 4
    assert bounds.ceiling(WAITING, LIMITS, learned, NOW + 1) == 13


def test_a_learned_ceiling_is_of_its_workers():
    """Who follows the advice and sets gthread is not held to what sync workers were good for."""
    undone = step(live(WAITING, 4), 5, outcome=Outcome.UNDONE)
    learned = History((undone,), learned_ceiling=4, learned_until=NOW + 1000)
    assert bounds.ceiling(live(WAITING, 2), LIMITS, learned, NOW) == 4
    assert bounds.ceiling(THREADS, LIMITS, learned, NOW) == 13
    assert bounds.ceiling(replace(WAITING, slots=8), LIMITS, learned, NOW) == 13


def test_a_learned_ceiling_is_of_its_load():
    """What was too many for 32 requests at a time may be too few for more than 40, unless the CPU is what is short."""
    undone = step(live(WAITING, 4), 5, outcome=Outcome.UNDONE)
    learned = History((undone,), learned_ceiling=4, learned_until=NOW + 1000)
    assert bounds.ceiling(replace(WAITING, backlog=38.0), LIMITS, learned, NOW) == 4
    assert bounds.ceiling(replace(WAITING, backlog=38.1), LIMITS, learned, NOW) == 13
    assert bounds.ceiling(replace(WAITING, backlog=38.1, cpu_share=0.7, cores=8.0), LIMITS, learned, NOW) == 4


# Cool-downs.


@pytest.mark.parametrize(
    ("boot", "ago", "free"),
    [(1.0, 59.0, False), (1.0, 60.0, True), (40.0, 79.0, False), (40.0, 80.0, True), (1e9, 1200.0, True)],
)
def test_growth_waits_a_minute_or_twice_the_boot(boot, ago, free):
    """A boot time that makes no sense holds for twenty minutes at most."""
    signals = live(WAITING, 3, boot_seconds=boot)
    assert ("cool_down" not in vetoes(signals, history=kept((ago, 2, 3)))) == free
    assert ("cool_down" not in vetoes(signals, history=kept((ago, 4, 3)))) == free, "after a removal as well"


@pytest.mark.parametrize(("ago", "free"), [(599.0, False), (600.0, True)])
def test_a_removal_waits_ten_minutes_after_any_change(ago, free):
    for before in (2, 4):
        assert ("cool_down" not in removal(live(WELL, 3), history=kept((ago, before, 3)))) == free


def test_a_removal_that_saves_the_server_waits_no_longer_than_growth():
    short = live(WELL, 3, memory_share=0.95)
    assert "cool_down" in removal(short, history=kept((59.0, 2, 3)), relief=True)
    assert "cool_down" not in removal(short, history=kept((60.0, 2, 3)), relief=True)
    assert "cool_down" not in removal(short, history=kept((60.0, 4, 3)), relief=True)


def test_one_kill_for_want_of_memory_costs_one_worker():
    """The kill stays in the signals for ten minutes; what was done for it is not to be done again each minute."""
    after = live(WELL, 3, memory_share=0.6, oom_kills=1.0)
    assert "cool_down" in removal(after, history=kept((599.0, 4, 3)), relief=True)
    assert "cool_down" not in removal(after, history=kept((600.0, 4, 3)), relief=True)
    assert "cool_down" not in removal(after, history=kept((60.0, 2, 3)), relief=True), "that was growth"


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        ([(5000, 3, 4)], 10),
        ([(6000, 4, 3), (5000, 3, 4)], 20),
        ([(6800, 4, 3), (5000, 3, 4)], 20),
        ([(6801, 4, 3), (5000, 3, 4)], 10),  # taken back after more than half an hour: the load had changed
        ([(11_000, 4, 3), (10_000, 3, 4), (1000, 4, 5)], 20),
        ([(13_000, 4, 3), (12_000, 3, 4), (1000, 4, 5)], 10),  # more than three hours ago
        ([(9000, 4, 3), (8000, 3, 4), (7000, 4, 3), (6000, 3, 4)], 40),
        ([(7000, 5, 4), (6000, 4, 3), (5000, 3, 4)], 20),
        ([(3000, 4, 3), (2000, 3, 2)], 10),
    ],
)
def test_the_wait_doubles_with_each_removal_that_was_taken_back(changes, minutes):
    history = kept(*changes)
    since = changes[-1][0]
    assert bounds.cool_down(Action.REMOVE, WELL, LIMITS, history, NOW) == max(0, 60 * minutes - since)
    assert bounds.cool_down(Action.REMOVE, WELL, LIMITS, history, NOW - since) == 60 * minutes
    assert bounds.cool_down(Action.ADD, WELL, LIMITS, history, NOW - since) == 60, "users do not wait for that"


def test_the_wait_is_at_most_sixteen_times_as_long():
    changes = [each for n in range(20, 0, -1) for each in ((1000 * n + 500, 4, 3), (1000 * n, 3, 4))]
    assert bounds.cool_down(Action.REMOVE, WELL, LIMITS, kept(*changes), NOW) == 16 * 600 - 1000


def test_growth_that_was_undone_is_no_flapping():
    steps = (
        replace(step(live(WELL, 3), 4, 3000), outcome=Outcome.UNDONE),
        replace(step(live(WELL, 4), 3, 2900), rule=bounds.UNDO, outcome=Outcome.KEPT),
        replace(step(live(WELL, 3), 4, 1000), outcome=Outcome.KEPT),
    )
    assert bounds.cool_down(Action.REMOVE, WELL, LIMITS, History(steps), NOW - 1000) == 600


def test_a_clock_that_was_set_back_is_a_cool_down():
    assert "cool_down" in vetoes(live(WAITING, 3), history=kept((-5000.0, 2, 3)))


@pytest.mark.parametrize(
    ("made", "allowed", "free"),
    [(4, 6, True), (5, 6, False), (6, 6, False), (0, 1, True), (1, 1, False), (0, 0, False), (9, 11, True)],
)
def test_one_of_the_hour_s_changes_is_kept_back_for_an_undo(made, allowed, free):
    history = kept((4000.0, 2, 3), *((3500.0 - 100 * n, 3, 4) for n in range(made)))
    limits = Limits(actions_per_hour=allowed)
    assert ("limit" not in vetoes(live(WAITING, 4), limits, history)) == free
    assert ("limit" not in removal(live(WELL, 4), limits, history)) == free


# The ground that a change stands on.


@pytest.mark.parametrize("age", [15.1, -15.1, float("nan"), float("inf")])
def test_stale_signals_forbid_every_change(age):
    assert "stale" in vetoes(replace(WAITING, age=age))
    assert "stale" in removal(replace(live(WELL, 4), age=age))
    assert "stale" not in vetoes(replace(WAITING, age=15.0))
    assert "stale" not in vetoes(replace(WAITING, age=-1.0)), "clocks differ a little"


@pytest.mark.parametrize("changes", [{"workers_live": 1}, {"workers_live": 3}, {"reloading": True}])
def test_nothing_is_changed_while_workers_come_or_go(changes):
    assert "unsettled" in vetoes(replace(WAITING, **changes))
    assert "unsettled" in removal(replace(live(WELL, 4), **changes))


def test_nothing_is_changed_while_a_change_is_being_watched():
    watched = History((step(WAITING, 3, ago=5000.0),))
    assert "unsettled" in vetoes(live(WAITING, 3), history=watched)
    assert "unsettled" in removal(live(WELL, 3), history=watched)
    assert vetoes(live(WAITING, 3), history=kept((5000.0, 2, 3))) == []


def test_a_watched_change_forbids_its_undoing_neither_by_its_age_nor_by_the_hour():
    """Who takes a removal back asks what forbids growth: not that the removal was just now."""
    watched = History((*kept(*((1000.0 + n, 2, 3) for n in range(5))).steps, step(live(WAITING, 4), 3, ago=30.0)))
    assert vetoes(live(WAITING, 3), history=watched) == ["unsettled"]


def test_a_removal_ends_at_the_floor():
    assert "limit" in removal(live(WELL, 2))
    assert "limit" not in removal(live(WELL, 3))
    assert "limit" in removal(live(WELL, 3), Limits(floor=3))


def test_memory_forbids_growth_and_no_removal():
    assert "memory" in vetoes(replace(WAITING, memory_share=0.95))
    assert removal(live(WELL, 4, memory_share=0.95)) == []


# Traffic.


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({"requests": 200.0, "busy": 0.7}, True),
        ({"requests": 199.0, "busy": 0.7}, False),
        ({"requests": 10.0, "busy": 0.8}, True),  # 2 slots: 5 s of 0.8 of a minute each, say
        ({"requests": 9.0, "busy": 0.8}, False),
        ({"requests": 10.0, "busy": 0.79}, False),
        ({"requests": 0.0, "busy": 1.0}, False),  # nothing finishes: stuck
        ({"requests": float("nan")}, False),
    ],
)
def test_growth_wants_traffic_that_tells_enough(changes, free):
    assert ("traffic" not in vetoes(replace(WAITING, **changes))) == free


def test_slow_requests_tell_enough_when_each_slot_has_finished_two():
    """Two a second of 5 s each are 120 a minute, on ten slots."""
    slow = live(WAITING, 10, requests_per_second=2.0, requests=120.0, service_seconds=5.0, in_flight=10.0)
    assert "traffic" not in vetoes(slow)
    assert "traffic" not in vetoes(replace(slow, requests=20.0))
    assert "traffic" in vetoes(replace(slow, requests=19.0))
    loops = replace(LOOPS, busy=1.0, requests=120.0)
    assert "traffic" in vetoes(loops), "slots say nothing of an event loop"


@pytest.mark.parametrize(
    ("signals", "free"),
    [
        (replace(WAITING, in_flight=1.0), True),
        (replace(WAITING, in_flight=0.9), False),
        (replace(THREADS, in_flight=4.0), True),
        (replace(THREADS, in_flight=3.9), False),
        (replace(LOOPS, in_flight=3.0, busy=0.5), True),
        (replace(LOOPS, in_flight=3.0, busy=0.49), False),
    ],
)
def test_growth_wants_half_of_what_there_is_in_use(signals, free):
    assert ("traffic" not in vetoes(signals)) == free


def test_of_few_slots_half_may_be_free_if_chance_explains_who_waits():
    assert "traffic" not in vetoes(replace(CASES["few_slots"], in_flight=0.6))
    assert "traffic" in vetoes(replace(CASES["few_slots"], in_flight=0.5)), "those would wait 19 ms"
    assert "traffic" in vetoes(replace(CASES["few_slots"], in_flight=0.6, requests=199.0))
    assert "traffic" in vetoes(replace(CASES["few_slots"], in_flight=0.6, queue_p95=0.05)), "nobody waits for long"


# Everything.


@given(servers(), st.integers(1, 40), st.floats(-100, 100_000))
def test_every_hold_is_known_and_says_why(signals, before, ago):
    history = kept((ago, before, before + 1))
    for each in (*bounds.growth(signals, LIMITS, history, NOW), *bounds.removal(signals, LIMITS, history, NOW)):
        assert each.veto in bounds.VETOES
        assert each.why
        assert "None" not in each.why


def test_every_veto_can_come_to_be():
    seen = {
        *vetoes(replace(WAITING, memory_share=0.95, timeouts=1.0, cpu_share=0.9, run_queue=2.0, requests=1.0)),
        *vetoes(
            replace(WELL, errors_burning=True, error_ratio=0.01, age=99.0, reloading=True), history=kept((1.0, 1, 2))
        ),
        *vetoes(live(WAITING, 4), Limits(ceiling=4)),
    }
    assert seen == set(bounds.VETOES)
