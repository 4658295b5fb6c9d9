"""How the tuner says what it decided and what came of it: metrics, one line of the log, and an entry of the memory."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from observability import catalogue, logs
from observability.tuning.memory import Entry, Memory
from observability.tuning.model import Action, Decision, History, Limits, Mode, Outcome, Signals, Step
from observability.tuning.tally import Tally

LOGGER = "observability.tuning"
_WELL = "well"
_HOUR = 3600.0
# What may keep the tuner from growing a server; each is shown as 0 as well, so that an end is seen.
_FROZEN = ("memory", "cpu", "errors", "stuck", "cool_down", "off", "stale")
_NOT_TOLD = {"time", "kind", "numbers", "diagnosis"}  # in the line under other names, or in another place
_OF_DECISIONS = {"ceiling", "vetoes", "advice", "urgency"}
_LOUD = {Outcome.REFUSED: "warning", Outcome.FAILED: "warning", Outcome.UNDONE: "warning"}


class Voice:
    """Says each thing once.

    Args:
        memory: keeps what was said.
        tally: counts it.
        pause: seconds until a decision is said again of which only the numbers have changed.
        clock: tells Unix seconds.
    """

    def __init__(self, memory: Memory, tally: Tally, pause: float, clock: Callable[[], float] = time.time) -> None:
        self._memory, self._tally, self._pause, self._clock = memory, tally, pause, clock
        self._mode: tuple[Mode, str] | None = None
        self._troubles: dict[tuple[str, str], float] = {}
        self._said: set[tuple[str, str]] = set()
        self._frozen: dict[str, set[str]] = {}  # reasons that were shown of each server

    def mode(self, mode: Mode, why: str) -> None:
        """Show the mode that holds, and say when it changes."""
        for each in Mode:
            self._tally.set(catalogue.TUNER_MODE, float(each is mode), each)
        if self._mode is not None and self._mode != (mode, why):
            _log("warning", "the tuner's mode has changed", mode=mode.value, before=self._mode[0].value, reason=why)
        self._mode = mode, why

    def looked(self, signals: Signals, now: float) -> None:
        """Show that a server was looked at."""
        self._tally.set(catalogue.TUNER_EVALUATED, now, signals.server)
        self._tally.set(catalogue.TUNER_SIGNALS_AGE, signals.age, signals.server)

    def frozen(self, server: str, reasons: Iterable[str]) -> None:
        """Show what keeps a server from growing."""
        held = set(reasons)
        self._frozen.setdefault(server, set(_FROZEN)).update(held)
        for reason in self._frozen[server]:
            self._tally.set(catalogue.TUNER_FROZEN, float(reason in held), server, reason)

    def stale(self, server: str, age: float) -> None:
        """Show that nothing is decided for want of fresh signals."""
        self._tally.set(catalogue.TUNER_SIGNALS_AGE, age, server)
        self.frozen(server, ["stale"])
        self.once("stale", server, "no decision without fresh signals", seconds=round(age, 1))

    def fresh(self, server: str) -> None:
        """Say that signals are fresh again, if they were not."""
        if ("stale", server) in self._said:
            self.once("stale", server)
            _log("info", "signals are fresh again", about=server)

    def gone(self, server: str) -> None:
        """Say nothing more of a server that has not been there for long."""
        self._said = {each for each in self._said if each[1] != server}
        self._troubles = {each: since for each, since in self._troubles.items() if each[1] != server}
        self._frozen.pop(server, None)
        self._tally.forget(server)

    def decided(
        self,
        signals: Signals,
        limits: Limits,
        history: History,
        decision: Decision,
        mode: Mode,
        outcome: Outcome,
        kept_from: str = "",
    ) -> None:
        """Show a decision, and say it where it differs from the last one.

        Args:
            kept_from: what the agent said, where it would not or could not do it.
        """
        server = signals.server
        self._tally.count(catalogue.TUNER_DECISIONS, server, decision.action, decision.rule, outcome)
        self._tally.set(catalogue.TUNER_TARGET, decision.workers, server)
        self._tally.set(catalogue.TUNER_CEILING, decision.ceiling, server)
        self.frozen(server, decision.vetoes)
        entry = Entry(
            time=self._clock(),
            kind="decision",
            server=server,
            mode=mode,
            action=decision.action,
            rule=decision.rule,
            outcome=outcome,
            diagnosis=decision.diagnosis,
            reason=f"{decision.reason} {kept_from}".strip(),
            before=signals.workers_target,
            workers=decision.workers,
            ceiling=decision.ceiling,
            vetoes=decision.vetoes,
            advice=decision.advice,
            urgency=decision.urgency,
            numbers=decision.numbers,
        )
        if _differs(entry, self._memory.newest(server), self._pause):
            self._say("tuner.decision", self._memory.add(entry), _inputs(signals, limits, history, entry.time))

    def acted(self, server: str, before: Signals) -> None:
        """Show the window before a step."""
        self._window(server, "before", before)
        for metric in (catalogue.TUNER_DURATION, catalogue.TUNER_QUEUE, catalogue.TUNER_RATE):
            self._tally.set(metric, None, server, "after")

    def judged(
        self,
        server: str,
        step: Step,
        after: Signals | None,
        mode: Mode,
        outcome: Outcome,
        reason: str,
        numbers: Mapping[str, Any],
        workers: int,
    ) -> None:
        """Say what came of a step.

        Args:
            workers: the count that is wanted from now on.
        """
        self._tally.count(catalogue.TUNER_DECISIONS, server, step.action, step.rule, outcome)
        self._tally.set(catalogue.TUNER_TARGET, workers, server)
        if after is not None:
            self._window(server, "after", after)
        entry = Entry(
            time=self._clock(),
            kind="outcome",
            server=server,
            mode=mode,
            action=step.action,
            rule=step.rule,
            outcome=outcome,
            diagnosis=f"{step.before} to {step.after} workers: {outcome}.",
            reason=reason,
            before=step.before,
            workers=workers,
            numbers=dict(numbers),
        )
        extra = {"step.time": step.time, "step.workers": step.after}
        self._say("tuner.outcome", self._memory.add(entry), extra | dict(_flat("signals", after)))

    def _window(self, server: str, window: str, signals: Signals) -> None:
        self._tally.set(catalogue.TUNER_DURATION, signals.duration_p99, server, window)
        self._tally.set(catalogue.TUNER_QUEUE, signals.queue_p95, server, window)
        self._tally.set(catalogue.TUNER_RATE, signals.requests_per_second, server, window)

    def _say(self, event: str, entry: Entry, inputs: Mapping[str, Any]) -> None:
        fields = asdict(entry) | {"advice": [each.line for each in entry.advice]}
        silent = _NOT_TOLD | (_OF_DECISIONS if entry.kind == "outcome" else set())
        told = {key: value for key, value in fields.items() if key not in silent}
        numbers = {
            f"numbers.{key}": _short(each) for key, each in entry.numbers.items() if f"signals.{key}" not in inputs
        }
        body = f"{entry.server}: {_deed(entry)}{entry.diagnosis}"
        logs.emit(_LOUD.get(entry.outcome, "info"), event, {**told, **numbers, **inputs}, body=body)

    def trouble(self, part: str, reason: str, about: str = "") -> None:
        """Count a failure of a part, and say it when it begins."""
        self._tally.count(catalogue.TUNER_FAILURES, part)
        if (part, about) not in self._troubles:
            self._troubles[part, about] = self._clock()
            _log("error", f"the tuner's {part} fails, it goes on without", reason=reason, **_about(about))

    def over(self, part: str, about: str = "") -> None:
        """Say that a failure has ended, if there was one."""
        since = self._troubles.pop((part, about), None)
        if since is not None:
            seconds = round(self._clock() - since, 1)
            _log("info", f"the tuner's {part} is well again", seconds=seconds, **_about(about))

    def once(self, subject: str, about: str, text: str = "", **fields: object) -> None:
        """Say something when it begins to hold, and nothing while it does; no text means that it has ended."""
        if not text:
            self._said.discard((subject, about))
        elif (subject, about) not in self._said:
            self._said.add((subject, about))
            _log("warning", text, **_about(about), **fields)

    def ended(self) -> None:
        """Say that the loop has ended by a failure that nothing foresaw, with its stack."""
        self._tally.count(catalogue.TUNER_FAILURES, "decision")
        logs.write("error", LOGGER, "the tuner has ended", {}, exc_info=True)

    def note(self, text: str, **fields: object) -> None:
        """Say something."""
        _log("info", text, **fields)


def _log(level: str, text: str, **fields: object) -> None:
    logs.write(level, LOGGER, text, fields)


def _about(subject: str) -> dict[str, str]:
    return {"about": subject} if subject else {}


def _deed(entry: Entry) -> str:
    if entry.kind == "outcome" or entry.action == Action.HOLD:
        return ""
    verb = "one worker more" if entry.action == Action.ADD else "one worker less"
    return f"{verb}, {entry.before} to {entry.workers} ({entry.outcome}). "


def _differs(entry: Entry, last: Entry | None, pause: float) -> bool:
    """Tell whether a decision is news: another one, or after a while the same with other numbers in it."""
    if last is None:
        return entry.rule != _WELL or entry.action != Action.HOLD or bool(entry.advice)
    if _core(entry) != _core(last):
        return True
    return _details(entry) != _details(last) and abs(entry.time - last.time) >= pause


def _core(entry: Entry) -> tuple[object, ...]:
    variables = tuple(each.variable for each in entry.advice)
    # What was done is news however often it is done again; what was only said is not.
    again = entry.time if entry.outcome == Outcome.APPLIED else 0.0
    return entry.mode, entry.action, entry.rule, entry.outcome, entry.workers, variables, again


def _details(entry: Entry) -> tuple[object, ...]:
    return entry.vetoes, entry.ceiling, entry.urgency, tuple(each.line for each in entry.advice)


def _inputs(signals: Signals, limits: Limits, history: History, now: float) -> dict[str, Any]:
    """Return all that a decision was made from, in one level."""
    last = history.steps[-1] if history.steps else None
    known = {
        "history.steps": len(history.steps),
        "history.steps_last_hour": sum(now - step.time < _HOUR for step in history.steps),
        "history.last_step_seconds": round(now - last.time, 1) if last else None,
        "history.last_step_outcome": last.outcome if last else None,
        "history.learned_ceiling": history.learned_ceiling,
        "history.learned_until": history.learned_until,
        "history.accepted": history.accepted,
    }
    return {**dict(_flat("signals", signals)), **dict(_flat("limits", limits)), **known}


def _flat(prefix: str, plain: Any) -> Iterator[tuple[str, Any]]:
    if plain is None:
        return
    for key, value in asdict(plain).items():
        if key != "server":
            yield f"{prefix}.{key}", [round(each, 3) for each in value] if isinstance(value, tuple) else _short(value)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
