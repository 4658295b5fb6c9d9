"""A step's life: made from a decision, watched, and ended."""

from dataclasses import replace

from observability.tuning import bounds
from observability.tuning.model import Action, Decision, History, Limits, Outcome, Signals, Step

# Vetoes that hold for taking a removal back too, which is growth.
HARD = frozenset({"memory", "cpu", "errors", "stuck", "limit"})
PATIENCE = 5  # settling times and windows after which what cannot be undone is left
_HANDLED_SECONDS = 2.0  # a master has acted on a signal, and its gauge shows it


def watched(history: History) -> Step | None:
    """Return the step that has not been judged yet."""
    last = history.steps[-1] if history.steps else None
    return last if last is not None and last.outcome is Outcome.APPLIED else None


def step(signals: Signals, decision: Decision, limits: Limits, now: float) -> Step:
    """Make a step of one worker of a decision.

    Raises:
        ValueError: the decision is one that must not be made, whoever made it.
    """
    before = signals.workers_target
    after = before + (1 if decision.action is Action.ADD else -1)
    if decision.workers != after:
        raise ValueError(f"a decision to {decision.action} asks for {decision.workers} workers instead of {before}")
    if decision.action is Action.REMOVE and after < limits.floor:
        raise ValueError(f"{after} workers are below the floor of {limits.floor}")
    if decision.action is Action.ADD and 0 < limits.ceiling < after:
        raise ValueError(f"{after} workers are above the ceiling of {limits.ceiling}")
    if not signals.settled:
        raise ValueError(f"{signals.workers_live} of {before} workers live, or a reload is under way")
    return Step(now, decision.action, before, after, decision.rule, Outcome.APPLIED, signals)


def older(signals: Signals, history: History, now: float) -> bool:
    """Tell whether some of the signals are older than the last change."""
    return bool(history.steps) and now - signals.age < history.steps[-1].time + _HANDLED_SECONDS


def failed(
    step: Step, signals: Signals, settle_seconds: float, window_seconds: float, now: float
) -> tuple[Outcome, str] | None:
    """Tell whether a step came to nothing that could be judged, and why; None as long as there is hope."""
    passed, target = now - step.time, signals.workers_target
    if step.signals is None or passed < -_HANDLED_SECONDS:
        return Outcome.INCONCLUSIVE, "The memory, or the clock, has lost what it was to be compared with."
    if now - signals.age < step.time + _HANDLED_SECONDS:
        return None  # what is seen is older than the step
    late = passed > max(settle_seconds, 2 * min(signals.boot_seconds, bounds.LONGEST_BOOT))
    if target != step.after and (late or target != step.before):
        reason = "a reload, a deploy or a person has set it, or the change never arrived"
        return Outcome.INCONCLUSIVE, f"The target is {target}, not {step.after}: {reason}."
    if late and signals.workers_live != target and not signals.reloading:
        return Outcome.FAILED, f"{signals.workers_live} of {target} workers live, {passed:.0f} s after the step."
    if passed > PATIENCE * (settle_seconds + window_seconds):
        return Outcome.INCONCLUSIVE, f"It could not be judged within {passed:.0f} s."
    return None


def ended(history: History, step: Step, outcome: Outcome) -> History:
    """Return the history with the end of a step from which nothing was learned."""
    last = replace(step, outcome=outcome)
    return replace(history, steps=tuple(last if each == step else each for each in history.steps))
