"""The command: a screen where there is one, else one table as text."""

import argparse
import os
import sys
import time
from pathlib import Path

from observability.settings import Settings
from observability.top.columns import BY_TITLE, Column
from observability.top.source import Source, agent_url
from observability.top.text import render
from observability.top.words import Picture, picture

LIVE, DEAD, NOTHING = range(3)  # exit status of --once: what it has shown


def run(settings: Settings, chosen: argparse.Namespace) -> int:
    """Show the server until the user leaves, or once; return the exit status."""
    source = source_of(settings, chosen.url, chosen.directory)
    column = BY_TITLE[chosen.sort]
    if chosen.once or not _is_screen():
        return once(source, chosen.interval, column)
    from observability.top.screen import Top  # Textual: what is printed once does without it

    Top(source, chosen.interval, column).run()
    return LIVE


def source_of(settings: Settings, url: str | None, directory: Path | None) -> Source:
    """Choose what to look at.

    Args:
        settings: of the server on this machine.
        url: the agent to ask, whose directory may be on another machine.
        directory: the state directory to read, without an agent.
    """
    if directory is not None:
        return Source("", directory)
    return Source(url, None) if url else Source(agent_url(settings), settings.directory)


def _is_screen() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def once(source: Source, interval: float, column: Column) -> int:
    """Print one table, with the rates over an interval."""
    shown = _look_twice(source, interval)
    text = render(shown, column, descending=column.largest_first)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
    if shown.snapshot.alive:
        return LIVE
    return DEAD if shown.rows else NOTHING


def _look_twice(source: Source, interval: float) -> Picture:
    first = source.poll()
    if not first.alive:
        return picture(None, first)
    time.sleep(interval)
    return picture(first, source.poll())
