"""`python -m observability tuner advise`: signals are read once, and what the tuner would do is said to a person."""

import argparse
import io
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import msgspec
from rich.console import Console

from observability.settings import SettingsError, load
from observability.tuning import text, units
from observability.tuning.asked import STEP_SECONDS, Asked, asked_for
from observability.tuning.asking import named
from observability.tuning.decision import decide, within_replica
from observability.tuning.model import History, Limits, Signals
from observability.tuning.onlooker import Onlooker
from observability.tuning.prometheus import MOST_STEPS, Prometheus
from observability.tuning.reader import ReadError
from observability.tuning.settings import Settings, beside_kubernetes
from observability.tuning.text import Advised, Spell

NOTHING = 4  # exit status: there was nothing to decide on
INTERRUPTED = 130
_LOOK_SECONDS = 1.0
_BRIEFLY = "What takes minutes to see is not known: leaks, long idleness, the usual duration, rising load."


def run(chosen: argparse.Namespace, agent: Callable[[], str]) -> int:
    """Print advice on the servers; return the greatest urgency, or 4 where there was nothing to decide on.

    Args:
        chosen: the command's options.
        agent: tells that of this machine's settings, for where nothing else is named.
    """
    try:
        # whose tokens these are matters to nobody here, and they may be unreadable to this user
        environ = {name: value for name, value in os.environ.items() if not name.endswith("_TOKEN_FILE")}
        settings = load(Settings, environ)
        asked = asked_for(chosen, settings, agent)
        moments = _recorded(asked, settings) if asked.prometheus else _watched(asked)
        advised = _advised(moments, asked, settings.limits)
    except (ReadError, SettingsError, ValueError) as error:
        print(text.plain(str(error)), file=sys.stderr)
        return NOTHING
    except KeyboardInterrupt:
        return INTERRUPTED
    _print(advised, asked, as_json=chosen.json)
    return max(each.decision.urgency for of_one in advised.values() for each in of_one.values())


def _recorded(asked: Asked, settings: Settings) -> dict[float, list[Signals]]:
    """Read from Prometheus."""
    limits = settings.limits
    reader = Prometheus(asked.prometheus, settings.job, limits.window_seconds, idle=limits.idle_seconds)
    now = time.time()
    if asked.seconds:
        end = asked.end or now
        return reader.range(end - asked.seconds, end, STEP_SECONDS)
    return {asked.end or now: reader.read(now) if asked.end is None else reader.at(asked.end)}


def _watched(asked: Asked) -> dict[float, list[Signals]]:
    """Watch an agent for a while, and say so meanwhile."""
    onlooker = Onlooker(asked.agent, window=asked.watch, interval=_LOOK_SECONDS)
    over = time.monotonic() + asked.watch
    progress = Progress(f"watching {text.plain(named(asked.agent))} for {units.duration(asked.watch)}")
    try:
        while True:
            onlooker.look()
            left = over - time.monotonic()
            progress.show(left, onlooker)
            if left <= 0:
                break
            time.sleep(min(_LOOK_SECONDS, left))
    finally:
        progress.clear()
    now = time.time()
    return {now: onlooker.read(now)}


class Progress:
    """One line on stderr that says how far it is: rewritten on a terminal, else written once.

    Args:
        what: is being done.
    """

    def __init__(self, what: str) -> None:
        self.what, self._terminal = what, sys.stderr.isatty()
        if not self._terminal:
            print(what, file=sys.stderr, flush=True)

    def show(self, left: float, onlooker: Onlooker) -> None:
        """Show what is left, and what is seen so far."""
        if not self._terminal:
            return
        seen = ""
        try:
            (signals,) = onlooker.read(time.time())
            seen = f", {units.rate(signals.requests_per_second)}, busy {units.percent(signals.busy)}"
        except ReadError:
            pass  # of one look nothing is known
        self._write(f"{self.what}: {max(0.0, left):.0f} s left{seen}")

    def clear(self) -> None:
        """Leave no trace."""
        if self._terminal:
            self._write("")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()


def _advised(
    moments: Mapping[float, Iterable[Signals]], asked: Asked, limits: Limits
) -> dict[str, dict[float, Advised]]:
    """Decide on each server at each moment.

    Raises:
        ReadError: the server that was asked for is not among them.
    """
    if not asked.prometheus:
        limits = replace(limits, window_seconds=asked.watch)
    found: dict[str, dict[float, Advised]] = defaultdict(dict)
    kubernetes = beside_kubernetes()
    for at, servers in moments.items():
        for signals in servers:
            decision = decide(signals, limits, History(), at)
            found[signals.server][at] = Advised(signals, within_replica(decision) if kubernetes else decision)
    if asked.server and asked.server not in found:
        known = ", ".join(sorted(found)[:10])
        raise ReadError(f"{named(asked.prometheus or asked.agent)}: knows no server {asked.server!r}, but {known}")
    return {server: found[server] for server in sorted(found) if asked.server in ("", server)}


def worst(of_one: Mapping[float, Advised]) -> Advised:
    """Return the moment of the greatest urgency, and of those the one with most to do."""
    return max(of_one.values(), key=lambda each: each.weight)


def spells(of_one: Mapping[float, Advised], seconds: float) -> list[Spell]:
    """Return what held for how long, the longest of the most urgent first.

    Args:
        of_one: one server's decisions, by moment.
        seconds: of the range.
    """
    step = max(STEP_SECONDS, seconds / MOST_STEPS)
    counted: dict[tuple[str, int], int] = defaultdict(int)
    decisions = {}
    for each in of_one.values():
        key = each.decision.rule, each.decision.urgency
        counted[key] += 1
        decisions[key] = each.decision
    ordered = sorted(counted, key=lambda key: (key[1], counted[key]), reverse=True)
    return [Spell(decisions[key], min(seconds, counted[key] * step)) for key in ordered]


def _spells(of_one: Mapping[float, Advised], asked: Asked) -> list[Spell]:
    return spells(of_one, asked.seconds) if asked.seconds else []


def _print(advised: Mapping[str, Mapping[float, Advised]], asked: Asked, *, as_json: bool) -> None:
    if as_json:
        told = [
            _plainly(worst(each), spells(each, asked.seconds) if asked.seconds else []) for each in advised.values()
        ]
        said = {"urgency": max(each["decision"]["urgency"] for each in told), "servers": told}
        shown = msgspec.json.format(msgspec.json.encode(said)).decode() + "\n"
    else:
        shown = _rendered(advised, asked)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(shown.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _plainly(advised: Advised, spells: Iterable[Spell]) -> dict[str, Any]:
    """Return a decision as JSON has it."""
    decision = asdict(advised.decision)
    for advice, plain in zip(advised.decision.advice, decision["advice"], strict=True):
        plain["line"] = advice.line
    held = [{"rule": each.decision.rule, "urgency": each.decision.urgency, "seconds": each.seconds} for each in spells]
    return {"server": advised.signals.server, "decision": decision, "signals": asdict(advised.signals), "range": held}


def _rendered(advised: Mapping[str, Mapping[float, Advised]], asked: Asked) -> str:
    """Write it with colours where a terminal shows them, and lines as they are: they may be copied."""
    out = io.StringIO()
    colours = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    console = Console(file=out, force_terminal=colours, highlight=False, legacy_windows=False)
    for index, of_one in enumerate(advised.values()):
        if index:
            console.print()
        note = "" if asked.prometheus else _BRIEFLY
        console.print(text.render(worst(of_one), _spells(of_one, asked), note), end="", soft_wrap=True)
    return out.getvalue()
