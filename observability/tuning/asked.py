"""What the options of `tuner advise` ask for."""

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from urllib.parse import urlsplit

from observability.tuning import units
from observability.tuning.asking import named
from observability.tuning.settings import Settings

STEP_SECONDS = 15.0  # between two moments of a range
_LONGEST_RANGE, _LONGEST_WATCH = 86_400.0, 600.0
_SHORTEST_WATCH = 5.0
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|h|d)", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True)
class Asked:
    """What the user wants to know.

    Args:
        prometheus: where it is; empty to watch an agent.
        agent: the agent to watch.
        server: the one server that matters; empty for all.
        end: the recorded moment, or the end of the range; None for now.
        seconds: of the range; 0 for one moment.
        watch: seconds that an agent is watched for.
    """

    prometheus: str
    agent: str
    server: str
    end: float | None
    seconds: float
    watch: float


def asked_for(chosen: argparse.Namespace, settings: Settings, agent: Callable[[], str]) -> Asked:
    """Read the options.

    Raises:
        ValueError: one that makes no sense, by itself or beside another.
    """
    prometheus = chosen.prometheus or ("" if chosen.agent else settings.prometheus_url)
    asked = Asked(
        prometheus=_url("--prometheus", prometheus),
        agent=_url("--agent", chosen.agent or settings.agent_url or agent()),
        server=chosen.server or "",
        end=moment(chosen.at, time.time()) if chosen.at else None,
        seconds=span("--range", chosen.range, STEP_SECONDS, _LONGEST_RANGE) if chosen.range else 0.0,
        watch=span("--watch", chosen.watch, _SHORTEST_WATCH, _LONGEST_WATCH),
    )
    if not asked.prometheus and (asked.end is not None or asked.seconds):
        raise ValueError("--at and --range need what Prometheus has recorded: name it with --prometheus")
    return asked


def _url(option: str, url: str) -> str:
    try:
        known = not url or (urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname))
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{option} is {named(url)[:120]!r}, but takes a URL that starts with http:// or https://")
    return url


def span(option: str, given: str, least: float, most: float) -> float:
    """Read a time such as 30m, 90s or 2h.

    Raises:
        ValueError: it is none, or too short, or too long.
    """
    found = _SPAN.fullmatch(given)
    seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not least <= seconds <= most:
        between = f"from {units.duration(least)} to {units.duration(most)}"
        raise ValueError(f"{option} is {given[:80]!r}, but takes a time such as 90s, 30m or 2h, {between}")
    return seconds


def moment(given: str, now: float) -> float:
    """Read a moment: of a calendar, in Unix seconds, or so long ago.

    Raises:
        ValueError: it is none, or not in the past.
    """
    if found := _SPAN.fullmatch(given):
        at = now - float(found[1]) * _UNITS[found[2]]
    else:
        try:
            at = float(given)
        except ValueError:
            try:
                at = datetime.fromisoformat(given).timestamp()
            except (ValueError, OverflowError):
                at = -1.0
    if not (isfinite(at) and 0 < at <= now):
        raise ValueError(
            f"--at is {given[:80]!r}, but takes a moment in the past: 2026-03-04T05:06, Unix seconds, or 10m for ten "
            "minutes ago"
        )
    return at
