"""The loop: look at each server, decide, act as the mode allows, watch what came of it, take back what did not help.

It runs in one thread. Nothing raises out of it, and it does nothing at all while the tuner is off.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Protocol

from observability.tuning import decision as deciding
from observability.tuning import steps, verdict
from observability.tuning.action import Changed, Refused, Unreachable
from observability.tuning.memory import MOST_SERVERS, Memory
from observability.tuning.model import Action, Decision, History, Mode, Outcome, Signals, Step
from observability.tuning.reader import Reader, ReadError
from observability.tuning.settings import Settings
from observability.tuning.voice import Voice
from observability.tuning.webhook import Inbox, Switch

Answer = Changed | Refused | Unreachable
_SLICE_SECONDS = 1.0  # how soon the kill switch is noticed, and how often anything may wake the loop
_GONE_SECONDS = 600.0
_BEGIN_SECONDS = 120.0  # in which a Prometheus that has just started knows nothing yet
_LONGEST_BACKOFF = 600.0


@dataclass(frozen=True)
class _Backoff:
    """How long an agent is not asked again, and what came of it last time."""

    until: float = 0.0
    pause: float = 0.0
    outcome: Outcome = Outcome.REFUSED
    said: str = ""


_NO_BACKOFF = _Backoff()


@dataclass(frozen=True)
class _Others:
    """What others do to a server's workers: a person, or another tuner with a memory of its own.

    Args:
        target: workers that are wanted, as far as this tuner knows; None where it cannot know.
        before: what somebody has changed it from.
        changed: when that was seen.
    """

    target: int | None
    before: int = 0
    changed: float = 0.0

    def seen(self, signals: Signals, step: Step | None, now: float) -> "_Others":
        """Return the same with what is seen now; a reload has a veto of its own, and is nobody's opinion."""
        found = signals.workers_target
        if self.target in (None, found) or signals.reloading or (step and found in (step.before, step.after)):
            return replace(self, target=found)
        return _Others(found, self.target or 0, now)


class Hand(Protocol):
    """What changes the number of workers."""

    def change(self, server: str, step: int, expected: int) -> Answer:
        """Ask for one worker more or less."""


class Loop:
    """The tuner's one thread.

    Args:
        settings: what people chose.
        mode: how far it may go, the kill switch apart.
        reader: where signals come from.
        hand: changes workers; None where nothing may be changed.
        memory: what was done and learned.
        voice: says it.
        inbox: what Alertmanager has sent.
        within_replica: leave out what belongs to a platform's autoscaler.
        clock: tells Unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        reader: Reader,
        hand: Hand | None,
        memory: Memory,
        voice: Voice,
        inbox: Inbox,
        wake: threading.Event,
        *,
        within_replica: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._mode, self._reader, self._hand = settings, mode, reader, hand
        self._memory, self._voice, self._inbox, self._wake = memory, voice, inbox, wake
        self._within_replica, self._clock = within_replica, clock
        self._switch = Switch(settings.stop_file)
        self._part = "prometheus" if settings.prometheus_url else "agent"
        self._seen: dict[str, float] = {}
        self._servers = 0  # in the last reading
        self._backoff: dict[str, _Backoff] = {}
        self._others: dict[str, _Others] = {}
        self._started, self._begun = time.monotonic(), False
        self._stopping = threading.Event()
        self._held = mode  # when the last look began: a switch that came since is seen in the rest after it
        self.beat = time.monotonic()
        self.rounds = 0
        self.fresh = 0  # servers with fresh signals in the last round

    def mode(self) -> tuple[Mode, str]:
        """Return the mode that holds now, and why."""
        if self._switch.off():
            return Mode.OFF, f"{self._switch.path} is there"
        return self._mode, "TUNER_MODE"

    def run(self) -> None:
        """Go round until told to stop."""
        self._seen = dict.fromkeys(self._memory.servers(), self._clock())
        while not self._stopping.is_set():
            self.round()
            self._rest()
        self._memory.save()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping.set()
        self._wake.set()

    def _rest(self) -> None:
        """Wait for the next look: a notification, the kill switch, or time brings it."""
        end = time.monotonic() + self._pause()
        while not self._stopping.is_set():
            self.beat = time.monotonic()
            self._stopping.wait(min(_SLICE_SECONDS, max(0.0, end - self.beat)))
            if time.monotonic() >= end or self._wake.is_set() or self.mode()[0] is not self._held:
                break
        self._wake.clear()

    def _pause(self) -> float:
        blind = not self.fresh and self.mode()[0] is not Mode.OFF
        busy = blind or self._inbox.firing() or any(map(self._watched, self._seen))
        settings = self._settings
        return min(settings.poll_seconds, settings.watch_seconds) if busy else settings.poll_seconds

    def round(self) -> None:
        """Look at every server once."""
        now = self._clock()
        mode, why = self.mode()
        self._held = mode
        self._voice.mode(mode, why)
        if told := self._inbox.drain():
            alerts = sorted({each.alert for each in told})[:5]
            self._voice.note("woken by alerts", alerts=alerts, notifications=len(told))
        if mode is Mode.OFF:
            self._rest_the_case(why, now)
        else:
            self._look(now)
        self._memory.save()
        self.rounds += 1

    def _rest_the_case(self, why: str, now: float) -> None:
        """Leave every server as it is: a step that is being watched is not judged, and not taken back either."""
        self.fresh = 0
        for server in self._memory.servers():
            self._voice.frozen(server, ["off"])
            history = self._memory.history(server)
            if step := steps.watched(history):
                reason = f"The tuner was switched off before it could be judged ({why}): it stays as it is."
                left = steps.ended(history, step, Outcome.INCONCLUSIVE)
                self._finish(server, left, step, None, Outcome.INCONCLUSIVE, reason, {}, now)

    def _look(self, now: float) -> None:
        try:
            found = list(self._reader.read(now))[:MOST_SERVERS]
        except Exception as error:
            self._unread(str(error) if isinstance(error, ReadError) else f"{type(error).__name__}: {error}")
            found = []
        else:
            self._begun = True
            self._voice.once("begin", "")
            self._voice.over(self._part)
        self.fresh, self._servers = 0, len(found)
        for signals in found:
            self.beat = time.monotonic()
            self._seen[signals.server] = now
            self._guarded(signals)
        self._miss(set(self._seen) - {each.server for each in found}, now)

    def _unread(self, reason: str) -> None:
        """Say that there are no signals; at the start they may take their time."""
        if self._begun or time.monotonic() - self._started > _BEGIN_SECONDS:
            self._voice.trouble(self._part, reason)
        else:
            self._voice.once("begin", "", "no signals yet", reason=reason)

    def _guarded(self, signals: Signals) -> None:
        try:
            self._server(signals, self._clock())
        except Exception as error:
            self._voice.trouble("decision", f"{type(error).__name__}: {error}", signals.server)
        else:
            self._voice.over("decision", signals.server)

    def _miss(self, servers: set[str], now: float) -> None:
        """Freeze what nobody told of, and forget it after a while."""
        for server in servers:
            if now - self._seen[server] > _GONE_SECONDS:
                del self._seen[server]
                self._backoff.pop(server, None)
                self._others.pop(server, None)
                self._voice.gone(server)
            else:
                self._voice.stale(server, now - self._seen[server])

    def _server(self, signals: Signals, now: float) -> None:
        """Look at one server: its step if one is being watched, else decide."""
        server, settings = signals.server, self._settings
        if not all(isfinite(each) for each in asdict(signals).values() if isinstance(each, float)):
            raise ValueError(f"a signal of {server} is no finite number")
        self._voice.looked(signals, now)
        if signals.age > settings.fresh_seconds:
            self._voice.stale(server, signals.age)
            return
        self._voice.fresh(server)
        self.fresh += 1
        history = self._memory.history(server)
        step = steps.watched(history)
        if not steps.older(signals, history, now):
            self._others[server] = self._others.get(server, _Others(None)).seen(signals, step, now)
        if step is not None and self.mode()[0] is not Mode.OFF:
            self._follow(signals, history, step, now)
        elif step is None and not steps.older(signals, history, now):
            self._decide(signals, history, now)
        self._memory.remember(server, self._memory.history(server), now)

    def _follow(self, signals: Signals, history: History, step: Step, now: float) -> None:
        """Watch a step until it can be judged."""
        settings, limits = self._settings, self._settings.limits
        failed = steps.failed(step, signals, settings.settle_seconds, settings.window_seconds, now)
        if failed:
            self._finish(signals.server, steps.ended(history, step, failed[0]), step, signals, *failed, {}, now)
            return
        if step.signals is None or steps.older(signals, history, now) or not verdict.due(step, signals, limits, now):
            return
        outcome, reason, numbers = verdict.judge(step.signals, signals, step, limits)
        if outcome is Outcome.INCONCLUSIVE and not self._final(signals, history, step, now):
            return
        if outcome is Outcome.UNDONE and (kept := self._undo(signals, history, step, now)):
            outcome, reason = kept[0], f"{reason} {kept[1]}".strip()
        if outcome is not Outcome.APPLIED:
            learned = verdict.remember(history, step, outcome, now, limits)
            self._finish(signals.server, learned, step, signals, outcome, reason, numbers, now)

    def _final(self, signals: Signals, history: History, step: Step, now: float) -> bool:
        """Tell whether a step that is inconclusive stays so: it is old, or the next one cannot wait for it."""
        if verdict.last_look(step, self._settings.limits, now):
            return True
        without = steps.ended(history, step, Outcome.INCONCLUSIVE)
        return self._decision(signals, without, now).action is not Action.HOLD

    def _undo(self, signals: Signals, history: History, step: Step, now: float) -> tuple[Outcome, str] | None:
        """Take a step back; return what has become of it instead, and why, if that cannot be.

        Where the agent will not do it, it stays applied, and the next look asks again until the step is old.
        """
        server, settings = signals.server, self._settings
        if forbidden := self._forbidden(signals, history, step, now):
            return Outcome.INCONCLUSIVE, f"It is not taken back: {forbidden}."
        answer = self._ask(server, step.before - step.after, step.after)
        if isinstance(answer, Changed):
            return None
        if now - step.time < steps.PATIENCE * (settings.settle_seconds + settings.window_seconds):
            self._voice.once("undo", server, "a step cannot be taken back yet", reason=answer.reason)
            return Outcome.APPLIED, ""
        return Outcome.FAILED, f"It could not be taken back: {answer.reason}."

    def _forbidden(self, signals: Signals, history: History, step: Step, now: float) -> str:
        """Say what forbids to take a step back; "" if nothing does."""
        mode, why = self.mode()
        if mode is not Mode.APPLY or self._hand is None:
            return f"the mode is {mode} ({why})"
        if step.action is Action.ADD:
            return ""
        vetoes = {*self._decision(signals, history, now).vetoes} & steps.HARD
        return f"{', '.join(sorted(vetoes))} forbids growth" if vetoes else ""

    def _finish(
        self,
        server: str,
        history: History,
        step: Step,
        after: Signals | None,
        outcome: Outcome,
        reason: str,
        numbers: verdict.Numbers,
        now: float,
    ) -> None:
        """Keep and say what came of a step; what is to be done next is decided by new signals, at once."""
        self._memory.remember(server, history, now)
        self._memory.save()
        workers = step.before if outcome is Outcome.UNDONE else after.workers_target if after else step.after
        self._voice.once("undo", server)
        self._voice.judged(server, step, after, self.mode()[0], outcome, reason, numbers, workers)
        self._wake.set()

    def _decision(self, signals: Signals, history: History, now: float) -> Decision:
        decision = deciding.decide(signals, self._settings.limits, history, now)
        return deciding.within_replica(decision) if self._within_replica else decision

    def _decide(self, signals: Signals, history: History, now: float) -> None:
        """Decide, do it where the mode lets it be done, and say so."""
        decision = self._decision(signals, history, now)
        limits, said = self._settings.limits, ""
        outcome = Outcome.RECOMMENDED if decision.advice else Outcome.NONE
        mode, _ = self.mode()  # once more, since reading took its time
        if mode is Mode.OFF:
            return
        if decision.action is not Action.HOLD:
            outcome = Outcome.RECOMMENDED
            if mode is Mode.APPLY and self._hand is not None:
                outcome, said = self._apply(signals, history, decision, now)
        self._voice.decided(signals, limits, history, decision, mode, outcome, said)

    def _apply(self, signals: Signals, history: History, decision: Decision, now: float) -> tuple[Outcome, str]:
        """Make a step: written down before it is made, so that no crash leaves one that nobody watches."""
        server = signals.server
        waiting = self._backoff.get(server, _NO_BACKOFF)
        if now < waiting.until:
            return waiting.outcome, waiting.said
        if said := self._left_to_others(server, now):
            return Outcome.REFUSED, said
        step = steps.step(signals, decision, self._settings.limits, now)
        self._memory.remember(server, replace(history, steps=(*history.steps, step)), now)
        self._memory.save()
        answer = self._ask(server, step.after - step.before, step.before)
        if isinstance(answer, Changed):
            self._backoff.pop(server, None)
            self._voice.acted(server, signals)
            return Outcome.APPLIED, ""
        if isinstance(answer, Refused) or not answer.unknown:
            self._memory.remember(server, history, now)  # surely nothing was done
        # Where nobody knows whether it was done, it stays a step, and the next look at the target tells.
        outcome, said = Outcome.FAILED, f"The agent of the server does not answer: {answer.reason}."
        if isinstance(answer, Refused):
            outcome, said = Outcome.REFUSED, f"It was refused: {answer.reason}."
        pause = min(_LONGEST_BACKOFF, max(2 * waiting.pause, 3 * self._settings.watch_seconds))
        self._backoff[server] = _Backoff(now + pause, pause, outcome, said)
        return outcome, said

    def _left_to_others(self, server: str, now: float) -> str:
        """Say whose change comes first, until whoever made it could judge it; "" if nobody's does."""
        others = self._others.get(server, _Others(None))
        if now - others.changed >= self._settings.settle_seconds + self._settings.window_seconds:
            return ""
        return f"Nobody was asked: somebody else has just changed the workers from {others.before} to {others.target}."

    def _ask(self, server: str, change: int, expected: int) -> Answer:
        if self.mode()[0] is not Mode.APPLY or self._hand is None:
            return Refused(0, "off", "the tuner has just been switched off")
        if self._settings.agent_url and self._servers > 1:
            return Refused(0, "several", f"TUNER_AGENT_URL names one agent, and there are {self._servers} servers")
        answer: Answer
        try:
            answer = self._hand.change(server, change, expected)
        except Exception as error:
            answer = Unreachable(f"{type(error).__name__}: {error}", unknown=True)
        if isinstance(answer, Changed):
            self._others[server] = replace(self._others[server], target=answer.target)
        if isinstance(answer, Unreachable):
            self._voice.trouble("agent", answer.reason, server)
        else:
            self._voice.over("agent", server)
        return answer

    def _watched(self, server: str) -> bool:
        return steps.watched(self._memory.history(server)) is not None
