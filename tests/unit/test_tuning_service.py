"""The loop and its settings: what it does in each mode, how it watches a step, and that nothing gets out of it.

Signals, decisions, verdicts and the agent are played here; tests/tuning/test_service.py runs the real ones.
"""

import threading
import time
from dataclasses import replace

import orjson
import pytest

from observability import catalogue, events
from observability.settings import SettingsError
from observability.tuning import loop as module
from observability.tuning import steps
from observability.tuning.action import Changed, Refused, Unreachable
from observability.tuning.loop import Loop
from observability.tuning.memory import Memory
from observability.tuning.model import Action, Advice, Decision, History, Mode, Outcome, Signals, Step
from observability.tuning.reader import ReadError
from observability.tuning.settings import Settings, beside_kubernetes, load_tuner
from observability.tuning.tally import Tally
from observability.tuning.voice import Voice
from observability.tuning.webhook import Inbox
from tests.server import wait_until

A, B = "10.0.0.1:9101", "10.0.0.2:9101"
SIGNALS = Signals(A, 0.0, 1.0, "sync", 2, 2, 1.0, 2.0)
WELL = Decision(Action.HOLD, "well", "Nothing is short.", "", 2, 8)
GROW = Decision(Action.ADD, "io_wait", "Workers wait.", "Q is 0.5 s.", 3, 8)
REPLICAS = Advice("REPLICAS", "2", "1", "why", "what")
THREADS = Advice("GUNICORN_THREADS", "16", "1", "why", "what")


class Play:
    """All that the loop talks to, and the loop."""

    def __init__(self, directory, monkeypatch, mode=Mode.APPLY, **settings):
        self.now = 10_000.0
        self.signals = [SIGNALS]
        self.decision = WELL
        self.answer = None  # of the agent; None is yes
        self.verdict = (Outcome.KEPT, "It helped.", {"gain": 0.5})
        self.is_due = self.is_last = False
        self.asked, self.decided, self.lines = [], [], []
        self.directory = directory
        self.settings = Settings(directory=directory, stop_file=directory / "stop", **settings)
        self.mode = mode
        monkeypatch.setattr(events, "put", lambda _, data: self.lines.append(orjson.loads(data)))
        monkeypatch.setattr(module.deciding, "decide", self._decide)
        monkeypatch.setattr(module.verdict, "due", lambda *_: self.is_due)
        monkeypatch.setattr(module.verdict, "last_look", lambda *_: self.is_last)
        monkeypatch.setattr(module.verdict, "judge", lambda *_: self.verdict)
        monkeypatch.setattr(module.verdict, "remember", self._remember)
        self.restart()

    def restart(self, **more):
        """Make a new loop, which knows what the last one has written."""
        self.tally = Tally()
        self.memory = Memory(self.directory, lambda reason: reason and self.voice.trouble("state", reason))
        self.voice = Voice(self.memory, self.tally, 60.0, lambda: self.now)
        assert self.memory.load() == ""
        self.wake = threading.Event()
        self.inbox = Inbox(self.memory, self.wake.set, lambda: self.now)
        hand = self if self.mode is Mode.APPLY else None
        arguments = self.settings, self.mode, self, hand, self.memory, self.voice, self.inbox, self.wake
        self.loop = Loop(*arguments, **more, clock=lambda: self.now)

    def read(self, now):
        if isinstance(self.signals, Exception):
            raise self.signals
        return [replace(each, time=now - each.age) for each in self.signals]

    def change(self, server, step, expected):
        self.asked.append((server, step, expected))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or Changed(expected + step)

    def _decide(self, signals, limits, history, now):
        self.decided.append((signals, limits, history, now))
        return self.decision

    def _remember(self, history, step, outcome, now, limits):
        ended = replace(step, outcome=outcome)
        return replace(history, steps=(*history.steps[:-1], ended), accepted=step.after)

    def round(self, seconds=0.0):
        self.now += seconds
        self.loop.round()

    def step(self):
        """Let a worker be added."""
        self.decision = GROW
        self.round()
        self.decision = WELL
        self.signals = [replace(SIGNALS, workers_target=3, workers_live=3)]
        return self.history.steps[-1]

    @property
    def history(self):
        return self.memory.history(A)

    def said(self, event="tuner.decision"):
        return [line for line in self.lines if line.get("event.name") == event]

    def bodies(self):
        return [line["body"] for line in self.lines if "event.name" not in line]

    def value(self, metric, *labels):
        return self.tally.page().value(metric, *labels)


@pytest.fixture
def play(tmp_path, monkeypatch):
    return Play(tmp_path, monkeypatch)


class TestModes:
    def test_apply_asks_the_agent_for_one_worker_and_remembers_the_step(self, play):
        step = play.step()
        assert play.asked == [(A, 1, 2)]
        assert (step.before, step.after, step.rule, step.outcome) == (2, 3, "io_wait", Outcome.APPLIED)
        assert step.signals == replace(SIGNALS, time=9_999.0)
        (line,) = play.said()
        assert (line["outcome"], line["mode"], line["workers"]) == ("applied", "apply", 3)

    def test_recommend_says_it_and_asks_nobody(self, tmp_path, monkeypatch):
        play = Play(tmp_path, monkeypatch, Mode.RECOMMEND)
        play.decision = GROW
        for _ in range(3):
            play.round(60)
        assert play.asked == []
        assert play.history.steps == ()
        (line,) = play.said()
        assert (line["outcome"], line["mode"]) == ("recommended", "recommend")

    def test_off_reads_nothing_and_decides_nothing(self, tmp_path, monkeypatch):
        play = Play(tmp_path, monkeypatch, Mode.OFF)
        play.signals = AssertionError("asked")
        play.decision = GROW
        play.round()
        assert (play.decided, play.asked, play.bodies()) == ([], [], [])

    def test_advice_without_a_change_is_recommended(self, play):
        play.decision = replace(WELL, rule="leak", advice=(THREADS,))
        play.round()
        assert play.said()[0]["outcome"] == "recommended"
        assert play.asked == []

    def test_limits_are_what_people_set(self, tmp_path, monkeypatch):
        play = Play(tmp_path, monkeypatch, min_workers=3, max_workers=9, queue_seconds=0.1, window_seconds=20.0)
        play.round()
        limits = play.decided[0][1]
        assert (limits.floor, limits.ceiling, limits.queue_objective, limits.window_seconds) == (3, 9, 0.1, 20.0)

    def test_within_a_replica_nothing_is_said_of_replicas(self, play):
        play.restart(within_replica=True)
        play.decision = replace(WELL, rule="starved", advice=(REPLICAS, THREADS))
        play.round()
        assert play.said()[0]["advice"] == ["GUNICORN_THREADS=16"]


class TestTheStopFile:
    def test_it_switches_off_and_on_without_a_restart(self, play):
        play.round()
        (play.directory / "stop").touch()
        play.decision = GROW
        play.round(60)
        assert play.asked == []
        assert play.value(catalogue.TUNER_FROZEN, A, "off") == 1
        assert [play.value(catalogue.TUNER_MODE, mode) for mode in Mode] == [1, 0, 0]
        (play.directory / "stop").unlink()
        play.round(60)
        assert play.asked == [(A, 1, 2)]
        assert play.value(catalogue.TUNER_FROZEN, A, "off") == 0

    def test_between_a_step_and_its_judgement_nothing_is_taken_back_and_that_is_said(self, play):
        play.step()
        (play.directory / "stop").touch()
        play.is_due, play.verdict = True, (Outcome.UNDONE, "Worse.", {})
        play.round(90)
        play.round(60)
        assert play.asked == [(A, 1, 2)]
        (line,) = play.said("tuner.outcome")
        assert line["outcome"] == "inconclusive"
        assert line["reason"].startswith("The tuner was switched off before it could be judged (")
        assert line["reason"].endswith("/stop is there): it stays as it is.")
        assert play.history.accepted == 0, "nothing was learned"
        (play.directory / "stop").unlink()
        play.round(60)
        assert play.asked == [(A, 1, 2)], "and the old step is not judged later"

    def test_it_holds_while_signals_are_read_and_before_the_agent_is_asked(self, play, monkeypatch):
        def decide(*_):
            (play.directory / "stop").touch()
            return GROW

        monkeypatch.setattr(module.deciding, "decide", decide)
        play.round()
        assert (play.asked, play.history.steps) == ([], ())

    def test_it_is_told_at_once_where_it_came_between_a_look_and_the_rest(self, play):
        play.settings = replace(play.settings, poll_seconds=600.0, watch_seconds=600.0)
        play.restart()
        looked = play.loop.round

        def switched_off_after():
            looked()
            if play.loop.rounds == 1:
                (play.directory / "stop").touch()
            else:
                play.loop.stop()

        play.loop.round = switched_off_after
        thread = threading.Thread(target=play.loop.run, daemon=True)
        thread.start()
        thread.join(10)
        play.loop.stop()
        assert [play.value(catalogue.TUNER_MODE, mode) for mode in Mode] == [1, 0, 0]

    def test_it_holds_to_the_last_moment(self, play, monkeypatch):
        """It comes while the step is being written down: the step is not made, and none is left."""
        monkeypatch.setattr("os.fsync", lambda _: (play.directory / "stop").touch())
        play.decision = GROW
        play.round()
        assert (play.asked, play.history.steps) == ([], ())
        assert "the tuner has just been switched off" in play.said()[0]["reason"]

    def test_it_holds_before_a_step_is_taken_back(self, play, monkeypatch):
        play.step()

        def judge(*_):
            (play.directory / "stop").touch()
            return Outcome.UNDONE, "Worse.", {}

        play.is_due = True
        monkeypatch.setattr(module.verdict, "judge", judge)
        play.round(90)
        assert play.asked == [(A, 1, 2)]
        assert "It is not taken back: the mode is off" in play.said("tuner.outcome")[0]["reason"]


class TestASteps:
    def test_it_is_watched_alone_until_it_is_due(self, play):
        play.step()
        play.decided.clear()
        play.decision = GROW
        for _ in range(5):
            play.round(5)
        assert (play.decided, play.asked) == ([], [(A, 1, 2)])

    def test_kept(self, play):
        play.step()
        play.is_due = True
        play.round(90)
        (line,) = play.said("tuner.outcome")
        assert (line["outcome"], line["workers"], line["numbers.gain"]) == ("kept", 3, 0.5)
        assert play.history.steps[-1].outcome is Outcome.KEPT
        assert play.history.accepted == 3
        assert play.wake.is_set(), "what comes next is decided at once"
        assert play.value(catalogue.TUNER_DECISIONS, A, "add_worker", "io_wait", "kept") == 1

    @pytest.mark.parametrize(("action", "opposite"), [(Action.ADD, -1), (Action.REMOVE, 1)])
    def test_undone_by_the_opposite_with_what_is_expected(self, play, action, opposite):
        after = 2 - opposite
        play.decision = replace(GROW, action=action, workers=after)
        play.signals = [replace(SIGNALS, workers_target=2, workers_live=2)]
        if action is Action.REMOVE:
            play.settings = replace(play.settings, min_workers=1)
            play.restart()
        play.round()
        play.decision, play.is_due = WELL, True
        play.signals = [replace(SIGNALS, workers_target=after, workers_live=after)]
        play.verdict = (Outcome.UNDONE, "p99 is 40 % higher.", {})
        play.round(90)
        assert play.asked[1:] == [(A, opposite, after)]
        (line,) = play.said("tuner.outcome")
        assert (line["outcome"], line["workers"], line["reason"]) == ("undone", 2, "p99 is 40 % higher.")

    def test_inconclusive_is_looked_at_again_until_the_last_look(self, play):
        play.step()
        play.is_due, play.verdict = True, (Outcome.INCONCLUSIVE, "The load moved.", {})
        play.round(90)
        assert play.said("tuner.outcome") == []
        play.is_last = True
        play.round(60)
        assert play.said("tuner.outcome")[0]["outcome"] == "inconclusive"
        assert play.asked == [(A, 1, 2)]

    def test_inconclusive_does_not_keep_the_next_step_waiting(self, play):
        play.step()
        play.is_due, play.verdict = True, (Outcome.INCONCLUSIVE, "The load moved.", {})
        play.decision = replace(GROW, workers=4)
        play.round(90)
        assert play.said("tuner.outcome")[0]["outcome"] == "inconclusive"
        play.round(1)
        assert play.asked == [(A, 1, 2), (A, 1, 3)]

    def test_a_removal_is_not_taken_back_where_growth_is_forbidden(self, play):
        play.settings = replace(play.settings, min_workers=1)
        play.restart()
        play.decision = replace(GROW, action=Action.REMOVE, workers=1)
        play.round()
        play.signals = [replace(SIGNALS, workers_target=1, workers_live=1)]
        play.is_due, play.verdict = True, (Outcome.UNDONE, "Worse.", {})
        play.decision = replace(WELL, vetoes=("cool_down", "memory"))
        play.round(90)
        assert play.asked == [(A, -1, 2)]
        (line,) = play.said("tuner.outcome")
        assert line["outcome"] == "inconclusive"
        assert line["reason"] == "Worse. It is not taken back: memory forbids growth."

    def test_where_the_agent_will_not_undo_it_is_asked_again_and_not_for_ever(self, play):
        play.step()
        play.is_due, play.verdict = True, (Outcome.UNDONE, "Worse.", {})
        play.answer = Refused(409, "reloading", "a reload is under way")
        for _ in range(20):
            play.round(20)
        assert len(play.asked) > 3
        assert play.bodies().count("a step cannot be taken back yet") == 1
        play.round(600)
        assert play.said("tuner.outcome")[-1]["outcome"] in ("failed", "inconclusive")
        asked = len(play.asked)
        play.round(60)
        assert len(play.asked) == asked

    @pytest.mark.parametrize(
        ("target", "seconds", "ended"), [(2, 30, False), (2, 61, True), (5, 10, True), (3, 61, False)]
    )
    def test_a_target_that_somebody_else_has_set_ends_it_without_undoing(self, play, target, seconds, ended):
        play.step()
        play.signals = [replace(SIGNALS, workers_target=target, workers_live=target)]
        play.round(seconds)
        assert bool(play.said("tuner.outcome")) == ended
        if ended:
            (line,) = play.said("tuner.outcome")
            assert line["outcome"] == "inconclusive"
            assert line["reason"].startswith(f"The target is {target}, not 3: ")
            assert play.history.accepted == 0
        assert play.asked == [(A, 1, 2)]

    def test_workers_that_never_come_are_a_failure(self, play):
        play.step()
        play.signals = [replace(SIGNALS, workers_target=3, workers_live=2)]
        play.round(60)
        assert play.said("tuner.outcome") == []
        play.round(2)
        (line,) = play.said("tuner.outcome")
        assert (line["outcome"], line["reason"]) == ("failed", "2 of 3 workers live, 62 s after the step.")
        assert play.asked == [(A, 1, 2)]

    def test_signals_from_before_the_step_say_nothing_of_it(self, play):
        play.step()
        play.is_due = True
        play.signals = [replace(SIGNALS, workers_target=7, age=10.0)]
        play.round(10)
        assert play.said("tuner.outcome") == []

    def test_signals_from_before_the_last_change_decide_nothing(self, play):
        play.step()
        play.is_due = True
        play.round(90)
        play.decided.clear()
        play.memory.remember(
            A, replace(play.history, steps=(replace(play.history.steps[-1], time=play.now),)), play.now
        )
        play.round(1)
        assert play.decided == []
        play.round(5)
        assert len(play.decided) == 1

    def test_a_restart_goes_on_watching(self, play):
        step = play.step()
        play.restart()
        assert play.history.steps == (step,)
        play.is_due, play.verdict = True, (Outcome.UNDONE, "Worse.", {})
        play.round(90)
        assert play.asked == [(A, 1, 2), (A, -1, 3)]

    def test_it_is_written_down_before_it_is_made(self, play, monkeypatch):
        """A crash in the middle leaves a step that is looked after, and not a worker that nobody knows of."""

        def crash(*_):
            assert steps.watched(Memory(play.directory, lambda _: None).history(A)) is None
            on_disk = Memory(play.directory, lambda _: None)
            on_disk.load()
            assert steps.watched(on_disk.history(A)).after == 3
            raise KeyboardInterrupt

        monkeypatch.setattr(play, "change", crash, raising=False)
        play.decision = GROW
        with pytest.raises(KeyboardInterrupt):
            play.round()

    def test_one_that_cannot_be_judged_for_long_is_let_go(self, play):
        play.step()
        play.round(steps.PATIENCE * 120 + 1)
        assert play.said("tuner.outcome")[0]["reason"] == "It could not be judged within 601 s."

    def test_one_from_a_future_that_a_clock_made_is_let_go(self, play):
        play.step()
        play.round(-3600)
        assert play.said("tuner.outcome")[0]["outcome"] == "inconclusive"


class TestTheAgent:
    def test_what_it_refuses_is_no_step_and_is_not_asked_again_at_once(self, play):
        play.answer = Refused(422, "broken", "what is on disk does not boot")
        play.decision = GROW
        for _ in range(10):
            play.round(1)
        assert play.asked == [(A, 1, 2)]
        assert play.history.steps == ()
        (line,) = play.said()
        assert line["outcome"] == "refused"
        assert line["reason"] == "Q is 0.5 s. It was refused: what is on disk does not boot."
        for _ in range(1000):
            play.round(5)
        assert 5 <= len(play.asked) <= 20, "ever more rarely"
        assert len(play.said()) == 1

    def test_one_that_is_not_there_is_a_failure_without_a_step(self, play):
        play.answer = Unreachable("nothing answers")
        play.decision = GROW
        play.round()
        assert play.history.steps == ()
        assert play.said()[0]["outcome"] == "failed"
        assert play.value(catalogue.TUNER_FAILURES, "agent") == 1
        assert play.bodies() == ["the tuner's agent fails, it goes on without"]
        play.answer = None
        play.round(20)
        assert play.bodies()[1:] == ["the tuner's agent is well again"]
        assert play.said()[-1]["outcome"] == "applied"

    @pytest.mark.parametrize("answer", [Unreachable("no answer in time", unknown=True), RuntimeError("odd")])
    def test_where_the_answer_is_lost_the_target_tells(self, play, answer):
        play.answer = answer
        play.step()  # the target is 3 from now on: it was done
        play.is_due = True
        play.round(90)
        assert play.asked == [(A, 1, 2)], "not twice"
        assert play.said("tuner.outcome")[0]["outcome"] == "kept"

    def test_where_the_answer_is_lost_and_nothing_was_done_that_is_said(self, play):
        play.answer = Unreachable("no answer in time", unknown=True)
        play.step()
        play.signals = [SIGNALS]
        play.round(61)
        assert play.said("tuner.outcome")[0]["reason"].startswith("The target is 2, not 3: ")

    def test_one_that_is_named_is_not_asked_for_another_server(self, tmp_path, monkeypatch):
        play = Play(tmp_path, monkeypatch, agent_url="http://10.0.0.1:9101")
        play.decision, play.signals = GROW, [SIGNALS, replace(SIGNALS, server=B)]
        play.round()
        assert play.asked == []
        assert "TUNER_AGENT_URL names one agent, and there are 2 servers" in play.said()[0]["reason"]

    @pytest.mark.parametrize(
        ("decision", "signals", "settings"),
        [
            (replace(GROW, workers=4), {}, {}),
            (replace(GROW, action=Action.REMOVE, workers=1), {}, {}),
            (GROW, {}, {"max_workers": 2}),
            (GROW, {"workers_live": 1}, {}),
            (GROW, {"reloading": True}, {}),
        ],
        ids=["two at once", "below the floor", "above the ceiling", "not settled", "reloading"],
    )
    def test_it_is_never_asked_for_what_must_not_be(self, tmp_path, monkeypatch, decision, signals, settings):
        """Whatever the decision says: this is the last gate before a change."""
        play = Play(tmp_path, monkeypatch, **settings)
        play.decision, play.signals = decision, [replace(SIGNALS, **signals)]
        play.round()
        assert (play.asked, play.history.steps) == ([], ())
        assert play.value(catalogue.TUNER_FAILURES, "decision") == 1


class TestOthers:
    """Somebody else changes the workers: a person, or a tuner with another memory."""

    def test_what_they_did_is_waited_for_until_they_could_judge_it(self, play):
        play.round()
        play.signals = [replace(SIGNALS, workers_target=3, workers_live=3)]
        play.decision = replace(GROW, workers=4)
        for _ in range(11):
            play.round(10)
        assert play.asked == []
        (line,) = [line for line in play.said() if line["outcome"] == "refused"]
        assert "somebody else has just changed the workers from 2 to 3" in line["reason"]
        play.round(20)
        assert play.asked == [(A, 1, 3)]

    def test_each_of_their_changes_is(self, play):
        play.round()
        play.decision = replace(GROW, workers=4)
        for target in (3, 2, 3):
            play.signals = [replace(SIGNALS, workers_target=target, workers_live=target)]
            play.round(100)
        assert play.asked == []

    def test_what_they_have_done_meanwhile_is(self, play):
        play.answer = Refused(409, "target", "3 workers are wanted", 3)
        play.decision = GROW
        play.round()
        play.signals = [replace(SIGNALS, workers_target=3, workers_live=3)]
        play.decision = replace(GROW, workers=4)
        play.round(60)
        assert len(play.asked) == 1

    def test_a_reload_is_nobody(self, play):
        play.round()
        play.signals = [replace(SIGNALS, workers_target=3, workers_live=3, reloading=True)]
        play.round(10)
        play.signals = [replace(SIGNALS, workers_target=3, workers_live=3)]
        play.decision = replace(GROW, workers=4)
        play.round(10)
        assert play.asked == [(A, 1, 3)]

    def test_nor_is_this_tuner_itself(self, play):
        play.step()
        play.is_due, play.verdict = True, (Outcome.UNDONE, "It gained nothing.", {})
        play.round(60)
        assert play.asked == [(A, 1, 2), (A, -1, 3)]
        play.is_due, play.signals, play.decision = False, [SIGNALS], GROW
        play.round(60)
        assert play.asked[2:] == [(A, 1, 2)]

    def test_nor_where_the_answer_to_it_was_lost(self, play):
        play.answer = Unreachable("the connection broke", unknown=True)
        play.step()
        play.answer = None
        play.is_due = True
        play.round(60)
        play.decision = replace(GROW, workers=4)
        play.round(10)
        assert play.asked == [(A, 1, 2), (A, 1, 3)]


class TestTrouble:
    def test_stale_signals_decide_nothing(self, play):
        play.round()
        play.decided.clear()
        play.signals, play.decision = [replace(SIGNALS, age=15.1)], GROW
        play.round(60)
        assert (play.decided, play.asked) == ([], [])
        assert play.value(catalogue.TUNER_FROZEN, A, "stale") == 1
        assert play.loop.fresh == 0
        play.signals = [replace(SIGNALS, age=15.0)]
        play.round(60)
        assert play.asked == [(A, 1, 2)]
        assert play.value(catalogue.TUNER_FROZEN, A, "stale") == 0

    def test_without_prometheus_nothing_is_decided_and_one_line_says_so(self, play):
        play.round()
        play.signals, play.decision = ReadError("http://prometheus:9090: nothing answers"), GROW
        for _ in range(5):
            play.round(60)
        assert play.asked == []
        assert play.bodies() == ["the tuner's agent fails, it goes on without", "no decision without fresh signals"]
        assert play.value(catalogue.TUNER_FROZEN, A, "stale") == 1
        assert play.value(catalogue.TUNER_FAILURES, "agent") == 5
        play.signals = [SIGNALS]
        play.round(5)
        assert play.asked == [(A, 1, 2)]
        assert play.bodies()[2:] == ["the tuner's agent is well again", "signals are fresh again"]

    def test_at_the_start_signals_may_take_their_time(self, play):
        play.signals = ReadError("does not know busy yet")
        for _ in range(5):
            play.round(5)
        assert play.bodies() == ["no signals yet"]
        assert play.value(catalogue.TUNER_FAILURES, "agent") == 0

    def test_a_server_that_is_gone_is_stale_and_then_forgotten(self, play):
        play.signals = [SIGNALS, replace(SIGNALS, server=B)]
        play.round()
        play.signals = [SIGNALS]
        play.round(60)
        assert [play.value(catalogue.TUNER_FROZEN, each, "stale") for each in (A, B)] == [0, 1]
        play.round(601)
        assert play.value(catalogue.TUNER_FROZEN, B, "stale") is None
        assert len(play.bodies()) == 1

    def test_what_fails_for_one_server_is_no_matter_to_the_next(self, play, monkeypatch):
        def decide(signals, *_):
            if signals.server == A:
                raise ZeroDivisionError("division by zero")
            return GROW

        monkeypatch.setattr(module.deciding, "decide", decide)
        play.signals = [SIGNALS, replace(SIGNALS, server=B)]
        for _ in range(3):
            play.round(1)
        assert play.asked == [(B, 1, 2)]
        failures = [line for line in play.lines if line.get("about") == A]
        assert [line["reason"] for line in failures] == ["ZeroDivisionError: division by zero"]

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_a_number_that_is_none_decides_nothing(self, play, number):
        play.signals, play.decision = [replace(SIGNALS, busy=number)], GROW
        play.round()
        assert (play.decided, play.asked) == ([], [])

    def test_a_full_disk_does_not_stop_it(self, play, monkeypatch):
        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        play.step()
        play.is_due = True
        play.round(90)
        assert play.said("tuner.outcome")[0]["outcome"] == "kept"
        assert sum("state fails" in body for body in play.bodies()) == 1
        assert play.value(catalogue.TUNER_FAILURES, "state") >= 2


class TestPace:
    def test_slowly_while_nothing_happens(self, play):
        play.round()
        assert play.loop._pause() == 60.0

    def test_faster_while_a_step_is_watched_or_nothing_is_seen(self, play):
        assert play.loop._pause() == 5.0, "nothing is seen yet"
        play.round()
        play.step()
        assert play.loop._pause() == 5.0

    def test_off_looks_for_nothing(self, play):
        (play.directory / "stop").touch()
        play.round()
        assert play.loop._pause() == 60.0

    def test_a_call_wakes_it_and_an_end_ends_it(self, play):
        thread = threading.Thread(target=play.loop.run)
        thread.start()
        try:
            wait_until(lambda: play.loop.rounds == 1)
            play.wake.set()
            wait_until(lambda: play.loop.rounds == 2)
            looked = time.monotonic()
            wait_until(lambda: play.loop.beat > looked, what="its rest")
            (play.directory / "stop").touch()
            wait_until(lambda: play.loop.rounds == 3)
            assert play.value(catalogue.TUNER_MODE, "off") == 1
        finally:
            play.loop.stop()
            thread.join(5)
        assert not thread.is_alive()


class TestSettings:
    def test_the_defaults_only_recommend(self):
        loaded = load_tuner({})
        assert (loaded.mode, loaded.poll_seconds, loaded.port) == ("recommend", 60.0, 9102)
        assert loaded.limits == module.Settings().limits

    def test_limits_default_to_the_models(self):
        assert load_tuner({}).limits == type(load_tuner({}).limits)()

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            ({"TUNER_MODE": "on"}, "TUNER_MODE is 'on', but takes one of off, recommend, apply"),
            ({"TUNER_POLL_SECONDS": "0"}, "TUNER_POLL_SECONDS is '0', but takes a number from 1 to 3600"),
            ({"TUNER_DIR": "here"}, "TUNER_DIR is 'here', but takes an absolute path"),
            (
                {"TUNER_WEBHOOK_TOKEN_FILE": "/nonexistent"},
                "TUNER_WEBHOOK_TOKEN_FILE is '/nonexistent', which cannot be",
            ),
            ({"TUNER_MAX_WORKERS": "1"}, "TUNER_MAX_WORKERS is 1, but TUNER_MIN_WORKERS is 2"),
            ({"TUNER_MODE": "apply"}, "TUNER_MODE is 'apply', but TUNER_CONTROL_TOKEN_FILE is unset"),
        ],
    )
    def test_a_senseless_value_is_one_line(self, environ, said):
        with pytest.raises(SettingsError) as refused:
            load_tuner(environ)
        assert str(refused.value).startswith(said)
        assert "\n" not in str(refused.value)

    def test_apply_takes_a_token(self, tmp_path):
        (tmp_path / "token").write_text("x")
        assert load_tuner({"TUNER_MODE": "apply", "TUNER_CONTROL_TOKEN_FILE": str(tmp_path / "token")}).mode == "apply"

    def test_beside_kubernetes_apply_needs_none(self):
        environ = {"TUNER_MODE": "apply", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        assert beside_kubernetes(environ)
        assert load_tuner(environ).mode == "apply"
        assert not beside_kubernetes({})


def test_a_history_without_steps_watches_nothing():
    assert steps.watched(History()) is None
    done = Step(0.0, Action.ADD, 2, 3, "x", Outcome.KEPT)
    assert steps.watched(History((done,))) is None
    assert steps.watched(History((done, replace(done, outcome=Outcome.APPLIED)))).outcome is Outcome.APPLIED
