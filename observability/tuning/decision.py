"""One decision from signals, limits and history: a pure function, which looks at no clock and no file."""

from dataclasses import fields, replace
from math import isfinite

from observability.tuning import bounds, conditions, table, units
from observability.tuning.model import Action, Advice, Decision, History, Limits, Outcome, Signals
from observability.tuning.table import Row

_ABSURD = 1e15  # no count, byte or second is as large
_NOW = 3


def decide(signals: Signals, limits: Limits, history: History, now: float) -> Decision:
    """Return what is to be done to one server: at most one worker more or less, and settings to change.

    Args:
        signals: what the server says of itself.
        limits: what people allow.
        history: what was done to it, and learned.
        now: Unix seconds.
    """
    if trouble := _unusable(signals, limits):
        return _nothing(signals, limits, trouble)
    rows = table.matching(signals, limits)
    row = rows[0] if rows else table.WELL
    ceiling = bounds.ceiling(signals, limits, history, now)
    if row.lowers_ceiling:
        ceiling = min(ceiling, max(limits.floor, signals.workers_target - 1))
    growth, wanted = bounds.growth(signals, limits, history, now), row.action(signals, limits)
    holds: tuple[bounds.Hold, ...] = ()
    if wanted is Action.ADD:
        holds = growth
    elif wanted is Action.REMOVE:
        holds = bounds.removal(signals, limits, history, now, row.relief)
    action = Action.HOLD if holds else wanted
    return Decision(
        action=action,
        rule=row.name,
        diagnosis=row.meaning,
        reason=_reason(row.explain(signals, limits), wanted, holds),
        workers=signals.workers_target + {Action.ADD: 1, Action.REMOVE: -1, Action.HOLD: 0}[action],
        ceiling=ceiling,
        vetoes=tuple(dict.fromkeys(each.veto for each in (*growth, *holds))),
        advice=_advice(row, rows, signals, limits, history, ceiling),
        urgency=_urgency(row, signals, history),
        numbers=_numbers(row, signals),
    )


def within_replica(decision: Decision) -> Decision:
    """Leave out what belongs to a platform's autoscaler: how many replicas there are."""
    return replace(decision, advice=tuple(each for each in decision.advice if each.variable != "REPLICAS"))


def _unusable(signals: Signals, limits: Limits) -> str:
    """Say why the signals decide nothing; "" if they do."""
    if bounds.stale(signals, limits):
        age, most = units.duration(abs(signals.age)), units.duration(limits.fresh_seconds)
        return f"The signals are {age} old; {most} is the most."
    for name, value in ((each.name, getattr(signals, each.name)) for each in fields(signals)):
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(each, int | float) and not _sensible(name, each) for each in numbers):
            return f"The signal {name} makes no sense: {value}."
    return ""


def _sensible(name: str, value: float) -> bool:
    least = {"age": -_ABSURD, "cores": 0.01, "workers_target": 1, "servers": 1}.get(name, 0)
    return least <= value <= _ABSURD  # which no NaN is


def _nothing(signals: Signals, limits: Limits, reason: str) -> Decision:
    return Decision(
        action=Action.HOLD,
        rule="stale",
        diagnosis="Nobody knows how the server is: without fresh signals there is no decision.",
        reason=reason,
        workers=signals.workers_target,
        ceiling=limits.ceiling,
        vetoes=("stale",),
        numbers={"age": signals.age if isfinite(signals.age) else None},
    )


def _reason(text: str, wanted: Action, holds: tuple[bounds.Hold, ...]) -> str:
    if not holds:
        return text
    what = "added" if wanted is Action.ADD else "removed"
    return f"{text} No worker is {what} now: {'; '.join(each.why for each in holds)}."


def _advice(
    first: Row, rows: tuple[Row, ...], signals: Signals, limits: Limits, history: History, ceiling: int
) -> tuple[Advice, ...]:
    """Return what the diagnosis advises, and what holds besides; each variable once, and none that has its value."""
    given = [*first.advise(signals, limits, ceiling)]
    for row in rows:
        if row.besides and row is not first:
            given += row.advise(signals, limits, ceiling)
    given += _accepted(signals, history)
    once: dict[str, Advice] = {}
    for each in given:
        once.setdefault(each.variable, each)
    return tuple(each for each in once.values() if each.value != each.now)


def lost(signals: Signals, history: History) -> bool:
    """Tell whether the count is back at where the first change began, though another was accepted since.

    A reload does that: it reads the configuration, which knows nothing of signals to the master. It is no reason to
    make the changes again; whether the load still wants them, the signals say.
    """
    return _counts(signals, history) and signals.workers_target == history.steps[0].before != history.accepted


def _accepted(signals: Signals, history: History) -> list[Advice]:
    """Advise to set what was found to be right, before or after a reload has lost it."""
    if not _counts(signals, history):
        return []
    count, began = history.accepted, history.steps[0].before
    if lost(signals, history):
        why = f"A reload or restart has put back {began} workers, where changes one by one had led to {count}."
    elif signals.workers_target == count > began:
        why = f"Changes one by one have led from {began} to {count} workers, and a reload would lose them."
    else:
        return []
    expect = f"The server starts with the {units.workers(count)} that its load was found to want."
    return [Advice("WEB_CONCURRENCY", str(count), str(began), why, expect)]


def _counts(signals: Signals, history: History) -> bool:
    """Tell whether there is an accepted count, and it was found for workers such as these."""
    if not history.steps or not history.accepted or _watched(history):
        return False
    then = next((step.signals for step in reversed(history.steps) if step.signals), None)
    return then is None or bounds.alike(then, signals)


def _watched(history: History) -> bool:
    return history.steps[-1].outcome is Outcome.APPLIED


def _urgency(row: Row, signals: Signals, history: History) -> int:
    if conditions.backlog_high(signals):
        return _NOW
    return max(row.urgency, int(lost(signals, history)))


def _numbers(row: Row, signals: Signals) -> dict[str, float | str | None]:
    """Return the signals that the row looks at, ready for JSON."""
    numbers: dict[str, float | str | None] = {}
    for name in row.signals:
        value = getattr(signals, name)
        numbers[name] = ", ".join(f"{each:.2f}" for each in value) if isinstance(value, tuple) else value
    return numbers
