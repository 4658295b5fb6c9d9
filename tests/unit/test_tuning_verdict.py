"""What becomes of a change: by two windows, at a load that is alike, and by nothing that is noise."""

import json
from dataclasses import replace

import pytest
from hypothesis import given

from observability.tuning import bounds, load, verdict
from observability.tuning.model import Action, History, Limits, Outcome, Step
from tests.unit.test_tuning_table import UNIT
from tests.unit.tuning_cases import CASES, COMPUTING, LOOPS, MIB, NOW, THREADS, WAITING, WELL, kept, live, servers, step

KEPT, UNDONE, INCONCLUSIVE = Outcome.KEPT, Outcome.UNDONE, Outcome.INCONCLUSIVE
LIMITS = Limits()


def judged(before, after, rule="io_wait", limits=None):
    """Judge a change of the number of workers between two servers."""
    return verdict.judge(before, after, step(before, after.workers_target, rule=rule), limits)


def outcome(before, after, rule="io_wait"):
    return judged(before, after, rule)[0]


def clients(signals, workers, rate, service, many=32, **changes):
    """Return a server that so many clients keep busy, each of whom asks again when it is answered."""
    waiting = many - workers * signals.slots
    queue = "queued" if signals.worker_class == "gthread" else "backlog"
    return live(
        signals,
        workers,
        requests_per_second=rate,
        requests=rate * 60,
        service_seconds=service,
        in_flight=min(many, workers * signals.slots),
        queue_p95=max(0.0, waiting) / rate,
        **{queue: float(max(0, waiting)), **changes},
    )


TWO = clients(WAITING, 2, 20.0, 0.1)
THREE = clients(WAITING, 3, 30.0, 0.1)


def test_growth_that_clients_feel_is_kept_though_the_rate_moved():
    """The clients are the same; half as many requests more is not another load, it is the gain."""
    result, reason, numbers = judged(TWO, THREE)
    assert result is KEPT
    assert reason.startswith("It helps: full workers answer +50 % requests.")
    assert "From 2 to 3 workers: 20 req/s became 30 req/s" in reason
    assert (numbers["requests_per_second_before"], numbers["requests_per_second_after"]) == (20.0, 30.0)
    assert (numbers["demand_before"], numbers["demand_after"]) == (32.0, 32.0)


def test_growth_by_the_measured_table_is_kept_until_it_gains_no_more():
    """Sync workers and requests that wait: 25, 158 and 284 a second with 2, 16 and 32; 12.5 and 9 for each worker."""
    table = ((2, 3, (25, 37), KEPT), (15, 16, (149, 158), KEPT), (31, 32, (276, 284), UNDONE))
    for before, after, rates, result in table:
        assert outcome(clients(WAITING, before, rates[0], 0.1), clients(WAITING, after, rates[1], 0.1)) is result


def test_work_on_the_cpu_beyond_the_cores_is_undone():
    """The queue is shorter by what now waits for the CPU instead: 20 ms of work take 31 ms with three workers."""
    two = clients(COMPUTING, 2, 81.0, 0.0245, duration_p99=0.045)
    three = clients(COMPUTING, 3, 92.0, 0.0315, duration_p99=0.068, cpu_share=0.98, run_queue=0.5)
    result, reason, _ = judged(two, three, "cpu_bound")
    assert result is UNDONE
    assert "p99 is 68 ms instead of 45 ms (+51 %)" in reason


@pytest.mark.parametrize(
    ("rate", "result"), [(21.0, KEPT), (20.9, UNDONE), (20.0, UNDONE), (19.1, UNDONE), (18.0, UNDONE)]
)
def test_less_than_a_twentieth_is_no_gain(rate, result):
    """The queue stays as long: other requests wait behind, at first."""
    before = replace(TWO, requests=6000.0)
    after = replace(THREE, requests_per_second=rate, requests=6000.0, queue_p95=before.queue_p95)
    assert outcome(before, after) is result


@pytest.mark.parametrize(("share", "result"), [(0.89, KEPT), (0.91, UNDONE)])
def test_a_queue_that_is_a_tenth_shorter_is_a_gain(share, result):
    assert outcome(TWO, replace(THREE, requests_per_second=20.0, queue_p95=TWO.queue_p95 * share)) is result


def test_a_window_that_the_load_only_half_filled_has_half_of_its_rate():
    """Two workers that compute on two cores answer 37 a second, and three no more: nothing doubled."""
    two = clients(COMPUTING, 2, 18.5, 0.054, many=6, busy=0.5, cpu_share=0.48)
    three = clients(COMPUTING, 3, 37.0, 0.081, many=6, busy=0.99, cpu_share=0.95)
    assert outcome(two, three, "cpu_bound") is UNDONE
    loops = replace(two, worker_class="gevent"), replace(three, worker_class="gevent")
    assert outcome(*loops, "hub_busy") is KEPT, "U of a loop says nothing of the rate it could have"


def test_a_worker_that_never_boots_is_no_gain_though_it_is_never_busy():
    """Or the mean of three workers, of whom one is not there, would have the other two do more than they can."""
    two = clients(WAITING, 2, 19.0, 0.1, many=12, busy=0.92)
    three = replace(two, workers_target=3, workers_live=3, requests_per_second=18.0, requests=1080.0, busy=0.66)
    assert outcome(two, three) is UNDONE


def test_where_the_cpu_is_full_a_shorter_queue_is_no_gain():
    """Who waited for a worker waits for a CPU now."""
    two = clients(COMPUTING, 2, 37.0, 0.054, many=6, busy=1.0, cpu_share=0.95)
    three = clients(COMPUTING, 3, 37.4, 0.08, many=6, busy=1.0, cpu_share=0.95)
    assert outcome(two, three, "cpu_bound") is UNDONE
    assert outcome(two, replace(three, cpu_share=0.3), "io_wait") is KEPT


def test_a_gain_within_the_noise_of_few_requests_is_none():
    """24 requests in a minute scatter by a quarter."""
    slow = clients(WAITING, 2, 0.4, 5.0, many=8)
    more = replace(clients(WAITING, 3, 0.45, 5.0, many=8), queue_p95=slow.queue_p95)
    assert outcome(slow, more) is UNDONE
    assert outcome(slow, clients(WAITING, 3, 0.6, 5.0, many=8)) is KEPT, "the queue is shorter as well"


def test_the_end_of_a_queue_is_a_gain_at_the_same_rate():
    open_loop = replace(WAITING, requests_per_second=25.0, queue_p95=0.4, backlog=10.0)
    assert outcome(open_loop, live(open_loop, 3, queue_p95=0.0, backlog=0.0, busy=0.7)) is KEPT


# Loads that are not alike.


@pytest.mark.parametrize(("rate", "result"), [(27.6, INCONCLUSIVE), (27.4, KEPT), (22.6, KEPT), (22.4, INCONCLUSIVE)])
def test_workers_that_are_not_full_answer_what_comes_so_that_a_rate_is_a_load(rate, result):
    before = replace(live(WELL, 4), requests_per_second=25.0, requests=1500.0)
    after = replace(live(WELL, 3), requests_per_second=rate, requests=rate * 60)
    assert outcome(before, after, "idle") is result


def test_a_load_that_left_is_no_gain():
    gone = replace(THREE, requests_per_second=10.0, queue_p95=0.0, backlog=0.0, in_flight=1.0)
    assert outcome(TWO, gone) is INCONCLUSIVE


def test_twice_as_many_clients_are_another_load():
    many = replace(THREE, requests_per_second=20.5, backlog=61.0, queue_p95=3.0)
    result, reason, _ = judged(TWO, many)
    assert result is INCONCLUSIVE
    assert "+100 %" in reason
    assert outcome(TWO, replace(many, requests_per_second=30.0)) is KEPT, "full workers answer more, whoever asks"


def test_a_count_that_somebody_else_has_set_is_not_judged():
    change = step(TWO, 3)
    result, reason, _ = verdict.judge(TWO, TWO, change)
    assert result is INCONCLUSIVE
    assert "Somebody else has set 2 workers" in reason


# Harm.


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"timeouts": 1.0}, UNDONE),
        ({"timeouts": 0.4}, KEPT),  # increase() extrapolates
        ({"error_ratio": 0.011}, UNDONE),
        ({"error_ratio": 0.009}, KEPT),
        ({"memory_share": 0.91}, UNDONE),
        ({"memory_share": 0.9}, KEPT),
        ({"oom_kills": 1.0}, UNDONE),
    ],
)
def test_growth_that_harms_is_undone_whatever_it_gained(changes, result):
    assert outcome(TWO, replace(THREE, **changes)) is result


def test_what_was_there_before_is_no_harm_of_the_change():
    before = replace(TWO, timeouts=1.0, error_ratio=0.02, oom_kills=1.0)
    assert outcome(before, replace(THREE, timeouts=1.0, error_ratio=0.025, oom_kills=1.0)) is KEPT


def test_few_errors_are_chance():
    few = replace(THREE, requests=100.0, error_ratio=0.04)
    assert outcome(TWO, few) is KEPT
    assert outcome(TWO, replace(few, error_ratio=0.05)) is UNDONE


def test_memory_is_reason_enough_whatever_the_load_did():
    assert (
        outcome(TWO, replace(THREE, requests_per_second=1.0, queue_p95=0.0, backlog=0.0, memory_share=0.95)) is UNDONE
    )


def test_full_workers_that_answer_less_harm():
    before = replace(TWO, requests=6000.0)
    after = replace(THREE, requests_per_second=18.0, requests=5400.0, queue_p95=1.0)
    result, reason, _ = judged(before, after)
    assert result is UNDONE
    assert "full workers answer -10 % requests" in reason


def test_a_backlog_that_was_answered_is_no_rate_that_was_lost():
    """Before, full workers answered what came and what had gathered; after, the third has nothing left to catch up."""
    before = clients(WAITING, 3, 33.5, 0.09, many=9)
    after = replace(clients(WAITING, 4, 31.5, 0.09, many=3), queue_p95=0.0576)
    assert outcome(before, after) is KEPT


SLOW = replace(live(WELL, 3), requests=6000.0, requests_per_second=100.0, duration_p99=0.4, service_seconds=0.1)


def removed(**changes):
    """Judge a removal that left this behind."""
    return outcome(SLOW, replace(live(SLOW, 2), **changes), "idle")


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, KEPT),
        ({"duration_p99": 0.47, "service_seconds": 0.12}, UNDONE),
        ({"duration_p99": 0.45, "service_seconds": 0.12}, KEPT),  # +12.5 %
        ({"queue_p95": 0.051}, UNDONE),
        ({"queue_p95": 0.049}, KEPT),
        ({"timeouts": 1.0}, UNDONE),
        ({"error_ratio": 0.02}, UNDONE),
        ({"requests_per_second": 111.0, "queue_p95": 0.2}, INCONCLUSIVE),
    ],
)
def test_a_removal_that_harms_is_undone(changes, result):
    assert removed(**changes) is result


@pytest.mark.parametrize(
    ("rate", "many", "result"),
    [(94.9, 6000.0, UNDONE), (95.1, 6000.0, KEPT), (94.0, 500.0, KEPT), (93.0, 500.0, UNDONE)],
)
def test_full_workers_of_whom_one_is_gone_answer_as_much(rate, many, result):
    """Of 500 requests in each window the counts scatter by 6.3 %."""
    before = replace(SLOW, queue_p95=0.3, requests=many, duration_p99=None)
    assert outcome(before, live(before, 2, requests_per_second=rate), "starved") is result


def test_a_p99_of_few_requests_is_noise():
    """Below 200 it has no say; above, it must be worse by more than so few can scatter."""
    for p99, many, result in (
        (1.2, 199.0, KEPT),
        (1.2, 200.0, UNDONE),
        (0.56, 200.0, KEPT),  # +40 %, where two in a hundred such pairs differ by 43 %
        (0.56, 300.0, UNDONE),
    ):
        before = replace(SLOW, requests=many)
        after = replace(live(before, 2), duration_p99=p99, service_seconds=0.15)
        assert outcome(before, after, "idle") is result


def test_a_p99_that_only_fell_over_the_edge_of_a_bucket_is_none():
    """0.1 s and 0.25 s are neighbours: 1 % of the requests a little slower make a p99 of 0.1 s one of 0.24 s."""
    assert removed(duration_p99=0.9, service_seconds=0.104) is KEPT
    assert removed(duration_p99=0.9, service_seconds=0.106) is UNDONE
    assert removed(duration_p99=1.1, service_seconds=0.1) is UNDONE, "no bucket is so wide"
    assert removed(duration_p99=0.9, service_seconds=None) is UNDONE


def test_users_feel_the_queue_and_the_service_together():
    """Where the CPU is not what is short, slower service is worth a queue that is gone."""
    busy = replace(TWO, requests=6000.0, duration_p99=0.1)
    better = replace(THREE, requests=6000.0, duration_p99=0.2, service_seconds=0.15, queue_p95=0.4)
    assert outcome(busy, better) is KEPT
    assert outcome(busy, replace(better, cpu_share=0.7)) is UNDONE
    assert outcome(busy, replace(better, throttled=0.3)) is UNDONE


def test_a_removal_is_not_taken_back_while_growth_is_forbidden():
    harmed = {"queue_p95": 0.2}
    assert removed(**harmed) is UNDONE
    assert removed(**harmed, cpu_share=0.9, run_queue=1.5) is KEPT
    assert removed(**harmed, memory_share=0.95) is KEPT
    assert removed(**harmed, cpu_share=0.8, cores=1.0) is KEPT, "three workers are beyond one core and one try"
    three = step(SLOW, 2, rule="idle")
    limited = verdict.judge(SLOW, replace(live(SLOW, 2), **harmed), three, Limits(ceiling=2))
    assert limited[0] is KEPT
    assert "TUNER_MAX_WORKERS" in limited[1]


def test_a_removal_for_memory_is_kept_whatever_it_costs():
    before = CASES["memory"]
    after = live(before, 4, memory_share=0.8, queue_p95=0.5, timeouts=1.0)
    assert outcome(before, after, "memory") is KEPT
    small = replace(after, memory_share=0.5, worker_memory_p95=45.0 * MIB)
    assert outcome(before, small, "idle") is UNDONE
    assert outcome(before, small, "memory") is KEPT


def test_loops_that_are_less_late_are_a_gain():
    late = replace(LOOPS, loop_lag_p99=0.4, cores=4.0, cpu_share=0.45, queue_p95=0.01)
    assert outcome(late, live(late, 3, loop_lag_p99=0.35), "hub_busy") is KEPT
    assert outcome(late, live(late, 3, loop_lag_p99=0.37), "hub_busy") is UNDONE
    assert outcome(late, live(late, 3, loop_lag_p99=None), "hub_busy") is UNDONE


def test_threads_are_judged_as_workers_are():
    two = clients(THREADS, 2, 80.0, 0.1)
    assert outcome(two, clients(THREADS, 3, 120.0, 0.1), "threads") is KEPT


def test_the_objective_is_people_s():
    full = replace(WELL, busy=1.0)
    before, after = replace(full, queue_p95=0.3), live(full, 3, queue_p95=0.31, requests_per_second=23.0)
    assert verdict.judge(before, after, step(before, 3))[0] is KEPT, "full before: 15 % more are a gain"
    assert verdict.judge(before, after, step(before, 3), Limits(queue_objective=0.5))[0] is INCONCLUSIVE


# When.


@pytest.mark.parametrize(
    ("changes", "ago", "due"),
    [
        ({}, 68.0, True),  # 5 s to settle, a minute's window, 3 s of age
        ({}, 67.9, False),
        ({"age": 10.0}, 75.0, True),
        ({"age": 10.0}, 74.9, False),
        ({"boot_seconds": 20.0}, 103.0, True),
        ({"boot_seconds": 20.0}, 102.9, False),
        ({"workers_live": 2}, 500.0, False),
        ({"reloading": True}, 500.0, False),
        ({"age": 16.0}, 500.0, False),
    ],
)
def test_a_step_is_due_when_a_whole_window_lies_after_it(changes, ago, due):
    assert verdict.due(step(TWO, 3, ago=ago), replace(THREE, **changes), LIMITS, NOW) == due


def test_what_is_inconclusive_is_looked_at_for_three_windows():
    assert not verdict.last_look(step(TWO, 3, ago=184.9), LIMITS, NOW)
    assert verdict.last_look(step(TWO, 3, ago=185.0), LIMITS, NOW)
    assert verdict.last_look(step(TWO, 3, ago=35.0), Limits(window_seconds=10.0), NOW)
    assert verdict.last_look(replace(step(TWO, 3, ago=185.0), signals=None), LIMITS, NOW)


# What is learned.


def history_of(change):
    return History((*kept((9000.0, 1, 2)).steps, change), accepted=2)


def test_growth_that_was_undone_is_the_ceiling_for_a_day():
    change = step(TWO, 3)
    learned = verdict.remember(history_of(change), change, UNDONE, NOW)
    assert (learned.learned_ceiling, learned.learned_until, learned.accepted) == (2, NOW + 86_400, 2)
    assert [each.outcome for each in learned.steps] == [KEPT, UNDONE, KEPT]
    back = learned.steps[-1]
    assert (back.action, back.before, back.after, back.rule, back.time) == (Action.REMOVE, 3, 2, bounds.UNDO, NOW)


def test_growth_that_was_kept_is_the_accepted_count():
    change = step(TWO, 3)
    learned = verdict.remember(history_of(change), change, KEPT, NOW)
    assert (learned.learned_ceiling, learned.accepted) == (0, 3)
    assert [each.outcome for each in learned.steps] == [KEPT, KEPT]
    assert verdict.remember(history_of(change), change, INCONCLUSIVE, NOW).accepted == 3
    assert verdict.remember(history_of(change), change, Outcome.FAILED, NOW).accepted == 2


def test_a_removal_that_was_undone_is_no_ceiling():
    change = step(live(WELL, 4), 3, rule="idle")
    learned = verdict.remember(history_of(change), change, UNDONE, NOW)
    assert (learned.learned_ceiling, learned.accepted) == (0, 4)
    assert (learned.steps[-1].action, learned.steps[-1].after) == (Action.ADD, 4)
    assert bounds.cool_down(Action.REMOVE, WELL, LIMITS, learned, NOW) == 1200, "and is not tried again soon"


def test_a_removal_for_memory_lowers_the_ceiling_and_never_raises_it():
    change = step(live(WELL, 5), 4, rule="memory")
    assert verdict.remember(history_of(change), change, KEPT, NOW).learned_ceiling == 4
    lower = replace(history_of(change), learned_ceiling=3, learned_until=NOW + 1)
    assert verdict.remember(lower, change, KEPT, NOW).learned_ceiling == 3
    over = replace(lower, learned_until=NOW)
    assert verdict.remember(over, change, KEPT, NOW).learned_ceiling == 4
    idle = replace(change, rule="idle")
    assert verdict.remember(history_of(idle), idle, KEPT, NOW).learned_ceiling == 0


def test_steps_are_forgotten_after_a_day():
    change = step(TWO, 3)
    old = History((*kept((86_401.0, 1, 2), (86_399.0, 1, 2)).steps, change))
    assert len(verdict.remember(old, change, KEPT, NOW).steps) == 2


def test_a_ceiling_s_length_is_people_s():
    change = step(TWO, 3)
    learned = verdict.remember(history_of(change), change, UNDONE, NOW, Limits(learned_seconds=60.0))
    assert learned.learned_until == NOW + 60


# Any two windows.


@given(servers(), servers())
def test_any_two_windows_have_an_outcome_that_can_be_written_down(before, after):
    after = live(after, before.workers_target + 1)
    result = judged(before, after)
    assert result == judged(before, after), "same input, same output"
    assert result[0] in (KEPT, UNDONE, INCONCLUSIVE)
    assert UNIT.search(result[1]), result[1]
    assert "None" not in result[1]
    json.dumps(result[2], allow_nan=False)


@given(servers(), servers())
def test_nothing_is_grown_back_where_growth_is_forbidden(before, after):
    before = live(before, max(3, before.workers_target))
    after = live(after, before.workers_target - 1)
    if outcome(before, after, "idle") is UNDONE:
        assert not (after.memory_share or 0) > 0.9
        assert not (after.cpu_share >= 0.85 and after.run_queue >= 1)
        assert after.oom_kills == 0


@given(servers())
def test_growth_that_changed_nothing_is_undone(signals):
    """One worker more and all as before, at a load that is the same: it gained nothing."""
    assert outcome(signals, live(signals, signals.workers_target + 1)) is UNDONE


def test_demand_is_what_is_compared():
    assert load.demand(TWO) == load.demand(THREE) == 32
    assert isinstance(step(TWO, 3), Step)
