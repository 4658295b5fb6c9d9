"""A decision for a person: what is the matter, the numbers, what to do, and the exact lines to set."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from observability.tuning import units
from observability.tuning.model import Action, Advice, Decision, Signals

URGENCIES = ("well", "when there is time", "soon", "now")
_STYLES = ("green", "cyan", "yellow", "bold red")
_UNKNOWN = "not known"


@dataclass(frozen=True)
class Advised:
    """One decision with what it rests on."""

    signals: Signals
    decision: Decision

    @property
    def weight(self) -> tuple[float, ...]:
        """What the worst of several moments has most of."""
        return (self.decision.urgency, self.signals.busy, self.signals.queue_p95 or 0.0)


@dataclass(frozen=True)
class Spell:
    """How long one row held in a range.

    Args:
        decision: one of those in which it did.
        seconds: in all.
    """

    decision: Decision
    seconds: float


def render(advised: Advised, spells: Sequence[Spell] = (), note: str = "") -> Text:
    """Write a decision.

    Args:
        advised: the decision; in a range its worst moment.
        spells: of a range, what held for how long.
        note: what the reader should know of the numbers.
    """
    signals, decision = advised.signals, advised.decision
    text = Text()
    text.append(plain(signals.server), "bold")
    text.append(f"  {_of(signals)}  ")
    text.append(f"{URGENCIES[decision.urgency]}\n", _STYLES[decision.urgency])
    for spell in spells:
        of = spell.decision
        text.append(f"  for {units.duration(spell.seconds):>8}  {plain(of.rule)}, {URGENCIES[of.urgency]}\n")
    if spells:
        text.append(f"  at its worst, {clock(signals.time)}:\n")
    text.append(f"\n  {plain(decision.diagnosis)}\n", "bold")
    if decision.reason:
        text.append(f"  {plain(decision.reason)}\n")
    text.append(f"\n  row: {plain(decision.rule)}\n")
    for line in _workers(signals, decision):
        text.append(f"  {line}\n")
    if decision.advice:
        text.append("\n  Set, and restart the server:\n")
    for advice in decision.advice:
        text.append_text(_advice(advice))
    return text.append_text(_numbers(signals, decision, note))


def _of(signals: Signals) -> str:
    live = "" if signals.workers_live == signals.workers_target else f" ({signals.workers_live} live)"
    workers = units.workers(signals.workers_target) + live
    return f"{plain(signals.worker_class)}, {workers}, {units.cores(signals.cores)}"


def _workers(signals: Signals, decision: Decision) -> Iterator[str]:
    if decision.action is Action.HOLD:
        yield f"workers: stay at {signals.workers_target}"
    else:
        change = "one more" if decision.action is Action.ADD else "one less"
        yield f"workers: {change}, {signals.workers_target} -> {decision.workers}"
    if decision.ceiling:
        yield f"growth ends at: {units.workers(decision.ceiling)}"
    if decision.vetoes:
        yield f"growth is forbidden by: {', '.join(map(plain, decision.vetoes))}"


def _advice(advice: Advice) -> Text:
    text = Text("    ")
    text.append(plain(advice.line), "bold green")
    text.append(f"  # now: {plain(advice.now)}\n" if advice.now else "\n")
    for sentence in (advice.why, advice.expect):
        if sentence:
            text.append(f"      {plain(sentence)}\n")
    return text


def _numbers(signals: Signals, decision: Decision, note: str) -> Text:
    text = Text(f"\n  Numbers, {units.duration(signals.age)} old; * are those that the row looked at:\n")
    for field, title, write in _SHOWN:
        value = getattr(signals, field)
        marked = field in decision.numbers
        shown = _UNKNOWN if value is None else write(value)
        if field == "queue_p95" and value is not None:
            shown += f" ({_SOURCES.get(signals.queue_source, signals.queue_source)})"
        text.append(f"  {'*' if marked else ' '} {title:<36}{shown}\n", None if marked else "dim")
    if note:
        text.append(f"  {note}\n")
    return text


_SOURCES = {"proxy": "the proxy's X-Request-Start", "threads": "from what waits for threads"}
_SOURCES |= {"backlog": "from what waits in the backlog"}


def _count(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _lasted(seconds: float) -> str:
    return units.duration(seconds) if seconds else "0 s"


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _shares(values: Sequence[float]) -> str:
    shown = ", ".join(units.percent(value) for value in values[:_MOST_WORKERS])
    return (shown + (", ..." if len(values) > _MOST_WORKERS else "")) or _UNKNOWN


_MOST_WORKERS = 16
_SHOWN: tuple[tuple[str, str, Callable[..., str]], ...] = (
    ("queue_p95", "wait for a worker, p95", units.duration),
    ("busy", "busy", units.percent),
    ("busy_by_worker", "busy, each worker", _shares),
    ("busy_rising", "busier than five minutes ago", _yes),
    ("busy_changing", "busy as it was not a minute ago", _yes),
    ("cpu_share", "CPU used, of the cores", units.percent),
    ("run_queue", "waiting for a CPU / having one", _count),
    ("throttled", "CPU quota used up, of its periods", units.percent),
    ("requests_per_second", "requests finished", units.rate),
    ("in_flight", "requests in flight", _count),
    ("slots", "requests a worker can take", _count),
    ("queued", "requests that wait for a thread", _count),
    ("backlog", "connections in the backlog", _count),
    ("backlog_limit", "connections that may be there", _count),
    ("service_seconds", "time in service, mean", units.duration),
    ("cpu_seconds_per_request", "CPU time of a request, mean", units.duration),
    ("duration_p99", "duration, p99", units.duration),
    ("duration_p99_usual", "duration, p99, usually", units.duration),
    ("error_ratio", "requests that fail", units.percent),
    ("errors_burning", "availability objective burns", _yes),
    ("timeouts", "timeouts in five minutes", _count),
    ("loop_lag_p99", "event loop late, p99", units.duration),
    ("loop_blocked", "event loop blocked in five minutes", _count),
    ("memory_share", "memory used, of the limit", units.percent),
    ("memory_limit", "memory limit", units.size),
    ("worker_memory_p95", "memory of a large worker", units.size),
    ("leak_bytes", "gained over each worker's life", units.size),
    ("oom_kills", "kills for want of memory", _count),
    ("low_seconds", "little to do for", _lasted),
    ("quiet_peak", "the most in flight while none waited", _count),
    ("boot_seconds", "time to boot a worker", units.duration),
    ("reloading", "reloaded within the minute", _yes),
    ("preload", "app is preloaded", _yes),
)


def clock(moment: float) -> str:
    """Write a moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def plain(text: str) -> str:
    """Return a text as a terminal may have it: a label of Prometheus can hold anything."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
