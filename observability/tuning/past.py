"""`python -m observability tuner history`: the steps, and what came of them, for a person."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from observability import redact
from observability.tuning.memory import FILE, Contents, Entry, Remembered, UnreadableError, moment, read
from observability.tuning.model import Step

UNREADABLE = 4
_LONGEST = 200


def run(directory: Path, *, as_json: bool) -> int:
    """Print what a tuner remembers in its directory; it may run meanwhile."""
    path = directory / FILE
    try:
        contents = read(path)
    except UnreadableError as error:
        print(f"{path} cannot be read: {error}", file=sys.stderr)
        return UNREADABLE
    if as_json:
        shown = {"servers": contents.servers, "entries": contents.entries}
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())
    else:
        print("\n".join(_lines(contents, path, time.time())))
    return 0


def _lines(contents: Contents, path: Path, now: float) -> Iterator[str]:
    if not contents.servers and not contents.entries:
        yield f"Nothing is remembered in {path} yet."
        return
    for server, known in sorted(contents.servers.items()):
        yield from _server(server, known, now)
    yield "Said, the newest last:"
    for entry in contents.entries:
        yield from _said(entry)


def _said(entry: Entry) -> Iterator[str]:
    head = f"{moment(entry.time)}  {_plain(entry.server)}  {entry.kind}, {entry.outcome}"
    yield f"  {head}: {_plain(entry.diagnosis)}"
    if entry.reason:
        yield f"    {_plain(entry.reason)}"
    yield from (f"    set {_plain(advice.line)}: {_plain(advice.why)}" for advice in entry.advice)


def _server(server: str, known: Remembered, now: float) -> Iterator[str]:
    history = known.history
    yield _plain(server)
    if history.learned_ceiling and history.learned_until > now:
        until = moment(history.learned_until)
        yield f"  more than {history.learned_ceiling} workers did not help; that holds until {until}"
    if history.accepted:
        yield f"  {history.accepted} workers are what the last step left"
    yield from map(_step, history.steps)
    if not history.steps:
        yield "  no steps within a day"
    yield ""


def _step(step: Step) -> str:
    return f"  {moment(step.time)}  {step.before} -> {step.after}  {step.outcome:<12}  {_plain(step.rule)}"


def _plain(text: str) -> str:
    """Return a text as a terminal may have it."""
    return "".join(each if each.isprintable() else "?" for each in redact.text(text, _LONGEST))
