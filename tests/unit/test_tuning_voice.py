"""What the tuner says: each thing once, with all that it rests on."""

from dataclasses import replace

import orjson
import pytest

from observability import catalogue, events, exposition
from observability.stdout import PIPE_BUF
from observability.tuning.memory import Memory
from observability.tuning.model import Action, Advice, Decision, History, Limits, Mode, Outcome, Signals, Step
from observability.tuning.tally import MOST_LABEL_SETS, Tally
from observability.tuning.voice import Voice

A = "127.0.0.1:9101"
SIGNALS = Signals(A, 1000.0, 2.0, "sync", 2, 2, 1.0, 2.0, 25.0, 1500.0, 2.0, 0.08, 0.002, 1.638, 0.2, 0.5, busy=0.98)
THREADS = Advice("GUNICORN_THREADS", "16", "1", "Requests wait for a worker.", "They find a thread.")
WELL = Decision(Action.HOLD, "well", "Nothing is short.", "", 2, 4)
GROW = Decision(Action.ADD, "io_wait", "Workers wait.", "Q is 0.5 s.", 3, 4, (), (THREADS,), 2, {"queue_p95": 0.5})


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tally():
    return Tally()


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path, lambda reason: None)


@pytest.fixture
def voice(memory, tally, clock):
    return Voice(memory, tally, 60.0, clock)


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr(events, "put", lambda _, data: found.append((orjson.loads(data), len(data))))
    return found


def named(lines, name):
    return [line for line, _ in lines if line.get("event.name") == name]


def decided(voice, decision=GROW, outcome=Outcome.RECOMMENDED, mode=Mode.RECOMMEND, signals=SIGNALS, **more):
    voice.decided(signals, Limits(), History(), decision, mode, outcome, **more)


def value(tally, metric, *labels):
    return tally.page().value(metric, *labels)


def test_a_decision_is_a_line_with_all_inputs_a_metric_and_an_entry(voice, lines, memory, tally):
    decided(voice)
    (line,) = named(lines, "tuner.decision")
    assert line["body"] == f"{A}: one worker more, 2 to 3 (recommended). Workers wait."
    expected = {"server": A, "mode": "recommend", "action": "add_worker", "rule": "io_wait", "outcome": "recommended"}
    expected |= {"reason": "Q is 0.5 s.", "before": 2, "workers": 3, "ceiling": 4, "urgency": 2, "vetoes": [], "id": 1}
    expected |= {"advice": ["GUNICORN_THREADS=16"], "signals.queue_p95": 0.5, "signals.worker_class": "sync"}
    expected |= {"limits.floor": 2, "limits.queue_objective": 0.05, "history.steps": 0, "history.learned_ceiling": 0}
    assert expected.items() <= line.items()
    inputs = {f"signals.{name}" for name in SIGNALS.__dataclass_fields__ if name != "server"}
    inputs |= {f"limits.{name}" for name in Limits.__dataclass_fields__}
    assert inputs <= line.keys()
    assert value(tally, catalogue.TUNER_DECISIONS, A, "add_worker", "io_wait", "recommended") == 1
    assert value(tally, catalogue.TUNER_TARGET, A) == 3
    assert value(tally, catalogue.TUNER_CEILING, A) == 4
    memory.save()
    (entry,) = memory.entries()
    assert (entry.rule, entry.advice, entry.numbers) == ("io_wait", (THREADS,), {"queue_p95": 0.5})


def test_the_longest_line_fits_into_a_pipe(voice, lines):
    """With 64 workers, every signal known, all vetoes, and long texts: or lines of several processes would mix."""
    many = tuple(1 / 3 for _ in range(64))
    full = {name: 1 / 3 for name, each in Signals.__dataclass_fields__.items() if each.type in (float, float | None)}
    plain = {"server": "127.0.0.1:9101", "worker_class": "gevent", "workers_target": 64, "workers_live": 64}
    signals = Signals(**full | plain | {"busy_by_worker": many, "time": 1_700_000_000.123})
    vetoes = ("memory", "cpu", "errors", "stuck", "cool_down", "limit", "traffic", "unsettled", "stale")
    decided(
        voice,
        replace(GROW, vetoes=vetoes, diagnosis="d" * 200, reason="r" * 300, advice=(THREADS,) * 3),
        signals=signals,
    )
    ((line, size),) = lines
    assert size <= PIPE_BUF, size
    assert "log.truncated" not in line


def test_that_all_is_well_is_a_metric_only(voice, lines, memory, tally):
    for _ in range(3):
        decided(voice, WELL, Outcome.NONE)
    memory.save()
    assert (lines, memory.entries()) == ([], [])
    assert value(tally, catalogue.TUNER_DECISIONS, A, "hold", "well", "none") == 3


def test_that_all_is_well_again_is_said(voice, lines):
    decided(voice)
    decided(voice, WELL, Outcome.NONE)
    decided(voice, WELL, Outcome.NONE)
    assert [line["rule"] for line in named(lines, "tuner.decision")] == ["io_wait", "well"]


def test_the_same_is_said_once_however_its_numbers_waver(voice, lines, clock, tally):
    for second in range(60):
        clock.now = 1000.0 + second
        decided(voice, replace(GROW, reason=f"Q is {second} s.", advice=(replace(THREADS, value=str(second)),)))
    assert len(named(lines, "tuner.decision")) == 1
    assert value(tally, catalogue.TUNER_DECISIONS, A, "add_worker", "io_wait", "recommended") == 60
    clock.now = 1060.0
    decided(voice, replace(GROW, advice=(replace(THREADS, value="99"),)))
    assert named(lines, "tuner.decision")[-1]["advice"] == ["GUNICORN_THREADS=99"], "other numbers, after a while"
    clock.now = 2000.0
    decided(voice, replace(GROW, reason="Q is 9 s.", advice=(replace(THREADS, value="99"),)))
    assert len(named(lines, "tuner.decision")) == 2, "nothing has changed but the sentence"


@pytest.mark.parametrize(
    "change", [{"rule": "threads"}, {"action": Action.REMOVE, "workers": 1}, {"workers": 4}, {"advice": ()}]
)
def test_what_differs_is_said_at_once(voice, lines, change):
    decided(voice)
    decided(voice, replace(GROW, **change))
    assert len(named(lines, "tuner.decision")) == 2


def test_another_mode_or_another_outcome_is_said(voice, lines):
    decided(voice)
    decided(voice, mode=Mode.APPLY)
    decided(voice, mode=Mode.APPLY, outcome=Outcome.REFUSED, kept_from="It was refused: a reload is under way.")
    line = named(lines, "tuner.decision")[-1]
    assert line["reason"] == "Q is 0.5 s. It was refused: a reload is under way."
    assert (line["severity_text"], len(lines)) == ("WARN", 3)


def test_every_change_that_is_made_is_said(voice, lines, clock):
    decided(voice, outcome=Outcome.APPLIED)
    clock.now += 70
    decided(voice, outcome=Outcome.APPLIED)
    assert len(named(lines, "tuner.decision")) == 2


def test_a_restart_does_not_say_it_all_again(voice, lines, memory, tally, clock):
    decided(voice)
    memory.save()
    again = Memory(memory.path.parent, lambda reason: None)
    again.load()
    decided(Voice(again, Tally(), 60.0, clock))
    assert len(named(lines, "tuner.decision")) == 1


def test_what_came_of_a_step_is_a_line_with_both_windows_as_metrics(voice, lines, memory, tally):
    step = Step(900.0, Action.ADD, 2, 3, "io_wait", Outcome.APPLIED, SIGNALS)
    after = replace(SIGNALS, workers_target=3, duration_p99=1.1, queue_p95=0.02, requests_per_second=37.0)
    voice.acted(A, SIGNALS)
    assert value(tally, catalogue.TUNER_DURATION, A, "before") == 1.638
    assert value(tally, catalogue.TUNER_DURATION, A, "after") is None
    voice.judged(A, step, after, Mode.APPLY, Outcome.KEPT, "The queue is short.", {"gain": 0.48}, 3)
    (line,) = named(lines, "tuner.outcome")
    assert line["body"] == f"{A}: 2 to 3 workers: kept."
    expected = {"action": "add_worker", "outcome": "kept", "before": 2, "workers": 3, "numbers.gain": 0.48}
    assert (expected | {"signals.queue_p95": 0.02, "step.time": 900.0}).items() <= line.items()
    assert value(tally, catalogue.TUNER_DECISIONS, A, "add_worker", "io_wait", "kept") == 1
    for metric, numbers in {
        catalogue.TUNER_DURATION: (1.638, 1.1),
        catalogue.TUNER_QUEUE: (0.5, 0.02),
        catalogue.TUNER_RATE: (25.0, 37.0),
    }.items():
        assert (value(tally, metric, A, "before"), value(tally, metric, A, "after")) == numbers
    voice.acted(A, after)
    assert value(tally, catalogue.TUNER_QUEUE, A, "after") is None, "of the step before"
    memory.save()
    assert memory.entries()[-1].kind == "outcome"


def test_what_freezes_a_server_is_shown_and_that_it_has_ended(voice, tally):
    decided(voice, replace(GROW, vetoes=("memory", "traffic")))
    frozen = {
        reason: value(tally, catalogue.TUNER_FROZEN, A, reason) for reason in ("memory", "traffic", "cpu", "stale")
    }
    assert frozen == {"memory": 1, "traffic": 1, "cpu": 0, "stale": 0}
    voice.stale(A, 99.0)
    assert value(tally, catalogue.TUNER_FROZEN, A, "stale") == 1
    assert value(tally, catalogue.TUNER_SIGNALS_AGE, A) == 99
    decided(voice)
    frozen = [value(tally, catalogue.TUNER_FROZEN, A, reason) for reason in ("memory", "traffic", "stale")]
    assert frozen == [0, 0, 0]


def test_a_failure_is_counted_each_time_and_said_at_its_begin_and_its_end(voice, lines, tally, clock):
    for _ in range(10):
        voice.trouble("prometheus", "nothing answers")
    clock.now += 30
    voice.over("prometheus")
    voice.over("prometheus")
    said = [(line["severity_text"], line["body"]) for line, _ in lines]
    assert said == [
        ("ERROR", "the tuner's prometheus fails, it goes on without"),
        ("INFO", "the tuner's prometheus is well again"),
    ]
    assert (lines[0][0]["reason"], lines[1][0]["seconds"]) == ("nothing answers", 30.0)
    assert value(tally, catalogue.TUNER_FAILURES, "prometheus") == 10
    voice.trouble("agent", "x", "a")
    voice.trouble("agent", "x", "b")
    assert [line["about"] for line, _ in lines[2:]] == ["a", "b"]


def test_stale_signals_are_said_when_they_begin_and_end(voice, lines):
    for age in (20.0, 40.0):
        voice.stale(A, age)
    voice.fresh(A)
    voice.fresh(A)
    assert [line["body"] for line, _ in lines] == ["no decision without fresh signals", "signals are fresh again"]


def test_the_mode_is_shown_and_its_change_is_said(voice, lines, tally):
    voice.mode(Mode.APPLY, "TUNER_MODE")
    voice.mode(Mode.APPLY, "TUNER_MODE")
    voice.mode(Mode.OFF, "/run/stop is there")
    ((line, _),) = lines
    assert (line["mode"], line["before"], line["reason"]) == ("off", "apply", "/run/stop is there")
    assert [value(tally, catalogue.TUNER_MODE, mode) for mode in Mode] == [1, 0, 0]


def test_a_server_that_is_gone_leaves_its_counters_only(voice, tally):
    decided(voice)
    voice.looked(SIGNALS, 1000.0)
    voice.trouble("agent", "it does not answer", A)
    voice.once("undo", A, "a step cannot be taken back yet")
    voice.gone(A)
    assert not voice._troubles
    assert not voice._said
    page = tally.page()
    gauges = [
        name for name, each in page.items() if each.kind == "gauge" and any(("server", A) in c for c in each.children)
    ]
    assert gauges == []
    assert value(tally, catalogue.TUNER_DECISIONS, A, "add_worker", "io_wait", "recommended") == 1


def test_series_are_bounded(tally):
    for number in range(MOST_LABEL_SETS + 50):
        tally.count(catalogue.TUNER_DECISIONS, f"{number}", "hold", "well", "none")
    assert value(tally, catalogue.TUNER_DECISIONS, *["_overflow"] * 4) == 50


def test_what_may_be_counted_is_there_from_the_start(tally):
    text = exposition.write(tally.page(), exposition.TEXT).decode()
    for result in ("accepted", "repeated", "unauthorized", "malformed", "dropped"):
        assert f'tuner_webhooks_total{{result="{result}"}} 0.0' in text
    for part in ("prometheus", "agent", "state", "decision"):
        assert f'tuner_failures_total{{part="{part}"}} 0.0' in text
