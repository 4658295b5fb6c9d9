"""Each row of the tuner's decision table: what makes it hold, up to its edges, and what it says."""

import math
import re
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.tuning import load, table
from observability.tuning.model import Action, Limits, Signals
from observability.tuning.table import TABLE
from scripts import docs
from tests.server import ROOT
from tests.unit.tuning_cases import CASES, COMPUTING, LOOPS, MIB, THREADS, WAITING, WELL, live, servers

LIMITS = Limits()
ROWS = {row.name: row for row in TABLE}
UNIT = re.compile(r"\d (%|ms|s|min|h|MiB|req/s|cores?|workers?|requests?|times|places)\b|\d %")


def holds(name, signals, limits=LIMITS):
    return ROWS[name].holds(signals, limits)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_the_diagnosis_of_some_server(name):
    assert table.matching(CASES[name], LIMITS)[0].name == name


def test_a_server_that_is_well_meets_no_row():
    assert table.matching(WELL, LIMITS) == ()


# Four workers would have 95 of 100 requests wait 50 ms for a slot, by chance; and a hundred, who wait for nothing.
PEAK = {"quiet_peak": 1.676, "in_flight": 1.0, "busy": 0.35, "low_seconds": 0.0, "service_seconds": 0.158}
CPU_LATE = {"cpu_seconds_per_request": 0.02, "service_seconds": 0.1}
# Others on this machine have half of the CPU: it computes for 84 or 85 of 100 ms, or waits for a CPU.
CPU_SHARED = {"service_seconds": 0.1, "cpu_share": 0.5, "run_queue": 0.5}
WITHIN, BEYOND = ({**CPU_SHARED, "cpu_seconds_per_request": each} for each in (0.0566, 0.0567))
MANY = {**PEAK, "workers_target": 100}
# Row, what differs from its case and leaves it just so, what takes it just over the edge.
EDGES = [
    ("memory", {"memory_share": 0.9001}, {"memory_share": 0.9}),
    ("memory", {"memory_share": 0.5, "oom_kills": 1.0}, {"memory_share": 0.5, "oom_kills": 0.0}),
    ("memory", {}, {"memory_share": None}),
    ("stuck", {"busy": 0.3, "busy_rising": True}, {"busy": 0.3, "busy_rising": False}),
    ("stuck", {"busy": 0.8, "busy_rising": False}, {"busy": 0.79, "busy_rising": False}),
    ("stuck", {"timeouts": 1.0}, {"timeouts": 0.0}),
    ("stuck", {"timeouts": 0.0, "requests": 0.0}, {"timeouts": 0.0, "requests": 1.0}),
    (
        "stuck",
        {"timeouts": 0.0, "requests": 0.0, "in_flight": 1.0},
        {"timeouts": 0.0, "requests": 0.0, "in_flight": 0.9},
    ),
    (
        "stuck",
        {"timeouts": 0.0, "requests": 0.0, "worker_class": "gthread"},
        {"timeouts": 0.0, "requests": 0.0, "worker_class": "asgi"},
    ),
    ("starved", {"cpu_share": 0.85, "run_queue": 1.0}, {"cpu_share": 0.85, "run_queue": 0.99}),
    ("starved", {"cpu_share": 0.85, "run_queue": 1.0}, {"cpu_share": 0.84, "run_queue": 1.0}),
    (
        "starved",
        {"run_queue": 0.0, "cpu_share": 0.2, "throttled": 0.25},
        {"run_queue": 0.0, "cpu_share": 0.2, "throttled": 0.24},
    ),
    (
        "starved",
        {"run_queue": 0.0, "cpu_share": 0.11, "throttled": 0.9},
        {"run_queue": 0.0, "cpu_share": 0.1, "throttled": 0.9},
    ),
    ("errors", {"queue_p95": 0.05}, {"queue_p95": 0.051}),
    (
        "errors",
        {"errors_burning": False, "error_ratio": 0.051, "requests": 20.0},
        {"errors_burning": False, "error_ratio": 0.05, "requests": 20.0},
    ),
    ("errors", {"error_ratio": 0.001}, {"error_ratio": 0.0}),  # the alert goes on for a while
    ("errors", {"errors_burning": False, "requests": 20.0}, {"errors_burning": False, "requests": 19.0}),
    ("hub_busy", {"loop_lag_p99": 0.101}, {"loop_lag_p99": 0.1}),
    ("hub_busy", {"cpu_share": 0.8}, {"cpu_share": 0.79}),
    ("hub_busy", {"worker_class": "gevent_pywsgi"}, {"worker_class": "gthread"}),
    ("hub_busy", {}, {"loop_lag_p99": None}),
    ("hub_blocked", {"loop_blocked": 0.0, "loop_lag_p99": 0.101}, {"loop_blocked": 0.0, "loop_lag_p99": 0.1}),
    ("hub_blocked", {"loop_blocked": 3.0, "loop_lag_p99": 0.0}, {"loop_blocked": 2.9, "loop_lag_p99": 0.0}),
    ("hub_blocked", {"loop_blocked": 0.0, "cpu_share": 0.69}, {"loop_blocked": 0.0, "cpu_share": 0.7}),
    ("hub_blocked", {"loop_blocked": 0.0, "run_queue": 0.99}, {"loop_blocked": 0.0, "run_queue": 1.0}),
    ("hub_blocked", {"worker_class": "asgi"}, {"worker_class": "sync"}),
    ("io_wait", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    ("io_wait", {"busy": 0.8}, {"busy": 0.79}),
    ("io_wait", {"cpu_share": 0.69}, {"cpu_share": 0.7}),
    ("io_wait", {}, {"worker_class": "gthread"}),
    ("io_wait", CPU_LATE | {"run_queue": 2.49}, CPU_LATE | {"run_queue": 2.5}),  # 20 ms, and 50 of 100 ms for a CPU
    ("io_wait", WITHIN, BEYOND),
    ("io_wait", {"queue_p95": None, "backlog": 2.0}, {"queue_p95": None, "backlog": 1.0}),  # of 25 a second: 40 ms
    ("threads", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    ("threads", {"busy": 0.8}, {"busy": 0.79}),
    ("threads", {"cpu_share": 0.69}, {"cpu_share": 0.7}),
    ("threads", {"run_queue": 0.99}, {"run_queue": 1.0}),
    ("threads", {"cores": 4.0, "cpu_share": 0.39}, {"cores": 4.0, "cpu_share": 0.4}),  # 80 % of a core each
    (
        "threads",
        {"worker_class": "gevent", "slots": 10, "in_flight": 16.0},
        {"worker_class": "gevent", "slots": 10, "in_flight": 15.9},
    ),
    ("threads", {}, {"worker_class": "sync"}),
    ("processes", {"workers_target": 3}, {"workers_target": 4}),
    ("processes", CPU_LATE | {"run_queue": 2.49}, CPU_LATE | {"run_queue": 2.5}),
    ("processes", {"cpu_share": 0.69}, {"cpu_share": 0.7}),
    ("processes", {"busy": 0.8}, {"busy": 0.79}),
    ("processes", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    ("cpu_bound", {"cpu_share": 0.7, "service_seconds": 0.05}, {"cpu_share": 0.69, "service_seconds": 0.05}),
    ("cpu_bound", BEYOND, WITHIN),
    ("cpu_bound", BEYOND, {**BEYOND, "cores": 2.1}),
    ("cpu_bound", {**BEYOND, "run_queue": 0.99}, {**BEYOND, "run_queue": 1.0}),
    ("cpu_bound", {"cpu_share": 0.7, "service_seconds": None}, {**BEYOND, "service_seconds": None}),
    ("cpu_bound", {"busy": 0.8}, {"busy": 0.79}),
    ("cpu_bound", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    ("few_slots", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    ("few_slots", {"busy": 0.79}, {"busy": 0.8}),
    ("few_slots", {"cpu_share": 0.69}, {"cpu_share": 0.7}),
    ("few_slots", {}, {"busy_changing": True}),
    ("few_slots", {"busy_rising": True}, {"busy_changing": True}),
    ("few_slots", {"run_queue": 0.99}, {"run_queue": 1.0}),
    ("few_slots", {"in_flight": 0.515}, {"in_flight": 0.514}),  # by chance 25 ms, half the objective
    ("few_slots", {"worker_class": "gthread"}, {"worker_class": "gevent"}),
    ("few_slots", {"slots": 1.0}, {"slots": 4.0}),  # of eight slots nobody finds all of them taken
    ("few_slots", {"service_seconds": 0.0132}, {"service_seconds": 0.013}),
    ("few_slots", {}, {"service_seconds": None}),
    ("contended", {"run_queue": 1.0}, {"run_queue": 0.99}),
    (
        "contended",
        {"run_queue": 0.9, "cpu_seconds_per_request": 0.0556, "service_seconds": 0.1},
        {"run_queue": 0.9, "cpu_seconds_per_request": 0.0555, "service_seconds": 0.1},
    ),
    ("contended", {"cpu_share": 0.84}, {"cpu_share": 0.85}),
    ("contended", {"cpu_share": 0.11}, {"cpu_share": 0.1}),
    ("contended", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    (
        "dependency",
        {"duration_p99": 0.2, "duration_p99_usual": 0.1},
        {"duration_p99": 0.2, "duration_p99_usual": 0.101},
    ),
    (
        "dependency",
        {"duration_p99": 0.151, "duration_p99_usual": 0.05},
        {"duration_p99": 0.149, "duration_p99_usual": 0.05},
    ),
    ("dependency", {"busy": 0.59}, {"busy": 0.6}),
    ("dependency", {"queue_p95": 0.05}, {"queue_p95": 0.051}),
    ("dependency", {}, {"duration_p99_usual": None}),
    ("dependency", {}, {"duration_p99": None}),
    ("skew", {"busy_by_worker": (0.8, 0.1, 0.1)}, {"busy_by_worker": (0.79, 0.1, 0.1)}),
    ("skew", {"busy_by_worker": (0.9, 0.9, 0.1, 0.05)}, {"busy_by_worker": (0.9, 0.9, 0.1, 0.1)}),
    ("skew", {"busy_by_worker": (1.0, 0.1, 0.1)}, {"busy_by_worker": (1.0, 0.1)}),
    (
        "skew",
        {"busy_by_worker": (0.9, 0.9, 0.79, 0, 0, 0, 0)},
        {"busy_by_worker": (0.9, 0.9, 0.8, 0, 0, 0, 0)},
    ),
    ("leak", {"leak_bytes": 1.0}, {"leak_bytes": 0.0}),
    ("idle", {"busy": 0.24}, {"busy": 0.25}),
    ("idle", {"low_seconds": 600.0}, {"low_seconds": 599.0}),
    ("idle", {"queue_p95": 0.01}, {"queue_p95": 0.011}),
    ("idle", {"workers_target": 3}, {"workers_target": 2}),
    ("idle", PEAK, {**PEAK, "quiet_peak": None}),  # too busy for who knows nothing of the last ten minutes
    ("idle", PEAK, {**PEAK, "quiet_peak": 1.677}),
    ("idle", PEAK, {**PEAK, "in_flight": 1.677}),
    ("idle", PEAK, {**PEAK, "workers_target": 4}),
    ("idle", {**PEAK, "queue_p95": 0.025}, {**PEAK, "queue_p95": 0.026}),
    ("idle", {**PEAK, "cpu_share": 0.69}, {**PEAK, "cpu_share": 0.7}),
    ("idle", {**PEAK, "worker_class": "gthread"}, {**PEAK, "worker_class": "asgi"}),
    ("idle", {**MANY, "quiet_peak": 64.35}, {**MANY, "quiet_peak": 64.36}),  # 65 % of 99 slots, where chance is nothing
    ("backlog", {"backlog": 1639.0}, {"backlog": 1638.0}),
    ("backlog", {}, {"backlog_limit": None}),
    ("changing", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
    ("changing", {}, {"busy_changing": False}),
    ("unclear", {"queue_p95": 0.0501}, {"queue_p95": 0.05}),
]


@pytest.mark.parametrize(("name", "within", "beyond"), EDGES)
def test_every_row_holds_up_to_its_edges(name, within, beyond):
    assert holds(name, replace(CASES[name], **within))
    assert not holds(name, replace(CASES[name], **beyond))


def test_every_row_is_tried_at_its_edges():
    assert {name for name, _, _ in EDGES} == set(ROWS)


def test_the_objective_and_the_floor_are_people_s():
    slow = Limits(queue_objective=2.0)
    assert not holds("io_wait", WAITING, slow)
    assert holds("idle", CASES["idle"], Limits(floor=4))
    assert not holds("idle", CASES["idle"], Limits(floor=5))
    assert holds("idle", replace(CASES["idle"], low_seconds=20.0), Limits(idle_seconds=20.0))


@pytest.mark.parametrize(
    ("name", "signals", "action"),
    [
        ("memory", CASES["memory"], Action.REMOVE),
        ("memory", replace(CASES["memory"], worker_memory_p95=72.0 * MIB), Action.REMOVE),
        ("memory", replace(CASES["memory"], worker_memory_p95=71.0 * MIB), Action.HOLD),  # half of 714 MiB, by five
        ("memory", replace(CASES["memory"], worker_memory_p95=None), Action.REMOVE),
        ("stuck", CASES["stuck"], Action.HOLD),
        ("starved", CASES["starved"], Action.REMOVE),
        ("starved", live(CASES["starved"], 3), Action.HOLD),  # two cores and one
        ("starved", live(CASES["starved"], 3, cores=1.5), Action.HOLD),
        ("starved", live(CASES["starved"], 3, cores=1.0), Action.REMOVE),
        ("errors", CASES["errors"], Action.HOLD),
        ("hub_busy", live(CASES["hub_busy"], 2), Action.HOLD),
        ("hub_busy", live(CASES["hub_busy"], 1, cpu_share=0.45), Action.ADD),
        ("hub_blocked", CASES["hub_blocked"], Action.HOLD),
        ("io_wait", CASES["io_wait"], Action.ADD),
        ("threads", CASES["threads"], Action.ADD),
        ("processes", CASES["processes"], Action.ADD),
        ("cpu_bound", live(COMPUTING, 2), Action.ADD),
        ("cpu_bound", live(COMPUTING, 3), Action.HOLD),
        ("few_slots", CASES["few_slots"], Action.ADD),
        ("few_slots", replace(CASES["few_slots"], in_flight=0.704), Action.ADD),
        ("few_slots", replace(CASES["few_slots"], in_flight=0.703), Action.HOLD),  # by chance 50 ms
        ("contended", CASES["contended"], Action.HOLD),
        ("dependency", CASES["dependency"], Action.HOLD),
        ("skew", CASES["skew"], Action.HOLD),
        ("leak", CASES["leak"], Action.HOLD),
        ("idle", CASES["idle"], Action.REMOVE),
        ("backlog", replace(CASES["backlog"], cpu_share=0.84), Action.ADD),
        ("backlog", replace(CASES["backlog"], cpu_share=0.85), Action.HOLD),
        ("changing", CASES["changing"], Action.HOLD),
        ("unclear", CASES["unclear"], Action.HOLD),
    ],
)
def test_what_a_row_does(name, signals, action):
    assert holds(name, signals)
    assert ROWS[name].action(signals, LIMITS) == action


def test_rows_that_veto_come_first_and_each_of_them_counts():
    assert [row.vetoes for row in TABLE if row.vetoes] == ["memory", "stuck", "cpu", "errors"]
    assert [row.name for row in TABLE[:4]] == ["memory", "stuck", "starved", "errors"]
    worst = replace(WAITING, memory_share=0.95, timeouts=1.0, cpu_share=1.0, run_queue=3.0)
    assert table.vetoes(worst, LIMITS) == ("memory", "stuck", "cpu")
    assert table.vetoes(WAITING, LIMITS) == ()


def test_a_blocked_loop_is_no_lack_of_processes():
    """On four cores two gevent workers are too few only as long as no call blocks them."""
    few = replace(LOOPS, cores=4.0, busy=0.95, queue_p95=0.4)
    assert table.matching(few, LIMITS)[0].name == "processes"
    assert table.matching(replace(few, loop_lag_p99=0.4), LIMITS)[0].name == "hub_blocked"


def test_what_computes_waits_for_no_input_however_little_of_the_cpu_it_gets():
    computes = replace(COMPUTING, **BEYOND)
    assert table.matching(computes, LIMITS)[0].name == "cpu_bound"
    assert table.matching(replace(computes, run_queue=1.2), LIMITS)[0].name == "contended"
    assert (
        table.matching(
            replace(computes, cores=8.0, cpu_share=0.2, run_queue=0.0, cpu_seconds_per_request=0.09), LIMITS
        )[0].name
        == "processes"
    )


def test_a_load_that_has_just_begun_is_no_steady_one():
    """Two workers that compute, half a minute after their load came: a full minute of it would be 96 % of the CPU."""
    begun = replace(COMPUTING, busy=0.48, in_flight=0.96, cpu_share=0.46, queue_p95=0.24, busy_changing=True)
    assert table.matching(begun, LIMITS)[0].name == "changing"
    assert table.matching(replace(begun, busy_changing=False), LIMITS)[0].name == "few_slots"
    assert table.matching(replace(begun, busy=0.97, cpu_share=0.93), LIMITS)[0].name == "cpu_bound"


@pytest.mark.parametrize("name", ROWS)
def test_every_reason_has_numbers_with_units(name):
    text = ROWS[name].explain(CASES[name], LIMITS)
    assert UNIT.search(text), text
    assert text[0].isupper() or text[0].isdigit()
    assert text.endswith(".")
    assert "None" not in text
    assert "nan" not in text


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_it_means_and_names_signals_that_there_are(name):
    row = ROWS[name]
    assert row.meaning.endswith(".")
    assert row.when
    assert row.does
    assert row.urgency in (1, 2, 3)
    assert set(row.signals) <= {each.name for each in fields(Signals)}


@given(servers())
def test_every_row_can_be_asked_of_any_server(signals):
    for row in table.matching(signals, LIMITS):
        assert row.explain(signals, LIMITS)
        assert row.action(signals, LIMITS) in Action
        for each in row.advise(signals, LIMITS, 10):
            assert "None" not in each.why + each.expect


def test_the_demand_is_what_is_there_and_not_what_full_workers_answer():
    assert load.demand(WAITING) == 32
    assert load.arrivals(WAITING) == pytest.approx(32 / 0.08)
    assert load.arrivals(WELL) == 20, "nothing waits: what comes is answered"
    assert load.demand(THREADS) == 32
    assert load.demand(replace(WELL, in_flight=0.0)) == pytest.approx(1.0), "rate x service time"


@pytest.mark.parametrize(
    ("slots", "demand", "share"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (5, 4.0, 0.5541), (10, 7.0, 0.2217), (100, 90.0, 0.2169)],
)
def test_how_long_requests_wait_by_chance(slots, demand, share):
    """Against Erlang's C as tables have it, and by its definition as a sum."""
    terms = [demand**n / math.factorial(n) for n in range(slots)]
    last = demand**slots / math.factorial(slots) * slots / (slots - demand)
    assert last / (sum(terms) + last) == pytest.approx(share, abs=1e-4)
    waited = load.wait_by_chance(slots, demand, 0.1)
    assert share * math.exp(-(slots - demand) * waited / 0.1) == pytest.approx(0.05, abs=1e-4)


def test_by_chance_few_wait_where_there_is_room_and_all_where_there_is_none():
    assert load.wait_by_chance(20, 2.0, 0.1) == 0
    assert load.wait_by_chance(2, 2.0, 0.1) == math.inf
    assert load.wait_by_chance(2, 0.0, 0.1) == 0
    assert load.wait_by_chance(1e9, 1e8, 0.1) == 0, "and that is not reckoned slot by slot"


@given(st.integers(1, 200), st.floats(0, 250), st.floats(0.001, 10))
def test_more_slots_wait_no_longer(slots, demand, service):
    assert load.wait_by_chance(slots + 1, demand, service) <= load.wait_by_chance(slots, demand, service)


def test_of_two_workers_a_few_requests_are_too_many_and_the_reason_says_so():
    """Three slots that are busy 65 % of the time have the p95 wait for 0.3 s; twenty would have none wait."""
    few = live(WELL, 3, in_flight=1.95, busy=0.65, service_seconds=0.16, queue_p95=0.2)
    assert table.matching(few, LIMITS)[0].name == "few_slots"
    assert "At random moments 95 of 100 would wait up to 325 ms" in ROWS["few_slots"].explain(few, LIMITS)
    many = live(few, 20, in_flight=13.0)
    assert table.matching(many, LIMITS)[0].name == "unclear"


@pytest.mark.parametrize(
    ("worker_class", "variable"), [("sync", "GUNICORN_WORKER_CLASS"), ("gthread", "GUNICORN_THREADS")]
)
def test_few_slots_want_threads(worker_class, variable):
    signals = replace(CASES["few_slots"], worker_class=worker_class)
    assert ROWS["few_slots"].advise(signals, LIMITS, 10)[0].variable == variable


def test_an_idle_server_s_reason_names_the_most_that_there_was():
    text = ROWS["idle"].explain(replace(CASES["idle"], **PEAK), LIMITS)
    assert "in the last 10 min there were never more than 1.7 requests at a time" in text
    assert "would wait up to 49.9 ms for 4 slots" in text


def test_the_queue_is_told_by_littles_law_where_no_proxy_tells():
    assert load.queue(replace(WAITING, queue_p95=None)) == pytest.approx(30 / 25)
    assert load.queue(replace(WAITING, queue_p95=None, requests_per_second=0.0)) == 60, "at least the whole minute"
    assert load.queue(replace(WELL, queue_p95=None)) == 0


def test_the_page_has_every_row_and_every_veto():
    page = (ROOT / "docs/decisions.md").read_text()
    assert page == docs._decisions_page()
    for row in TABLE:
        assert f"| `{row.name}` | " in page
