"""How values are written: short, safe for any terminal, and judged."""

import time
import unicodedata

from rich.cells import cell_len, set_cell_size

OK, WARNING, PROBLEM = range(3)
MARKS = ("", "!", "!!")  # beside the colour: not everybody sees that, and not every terminal has it
UNKNOWN = "-"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def duration(seconds: float | None) -> str:
    """Write seconds in at most six cells."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    for unit, name, smaller, minor in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "m"), (_MINUTE, "m", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit:.0f}{name}{seconds % unit // smaller:02.0f}{minor}"
    return UNKNOWN


def clock(when: float) -> str:
    """Write the time of day of a Unix time."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def size(count: float | None) -> str:
    """Write bytes with a binary unit."""
    if count is None:
        return UNKNOWN
    for unit in ("B", "K", "M", "G"):
        if count < 999.5:
            return f"{count:.1f}{unit}" if unit == "G" and count < 99.5 else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}T"


def rate(value: float | None) -> str:
    """Write a number a second."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:.0f}"


def percent(share: float | None) -> str:
    """Write a share as a percentage."""
    return UNKNOWN if share is None else f"{share * 100:.0f}%"


def whole(value: float | None) -> str:
    """Write a count."""
    return UNKNOWN if value is None else f"{value:.0f}"


def printable(text: str, width: int = 0) -> str:
    """Make any text safe for a terminal: what is no plain character is escaped, so that it can move or colour nothing.

    Args:
        text: whatever a client sent.
        width: terminal cells to cut it to; 0 for no limit.
    """
    safe = "".join(each if _plain(each) else each.encode("unicode_escape", "replace").decode() for each in text)
    return safe if not width or cell_len(safe) <= width else set_cell_size(safe, width - 1) + "…"


def _plain(character: str) -> bool:
    return character.isprintable() and not unicodedata.combining(character)


def step(value: float | None, warning: float, problem: float) -> int:
    """Judge a value by the two from which it is unhealthy."""
    if value is None or value < warning:
        return OK
    return PROBLEM if value >= problem else WARNING


def class_name(path: str | None, width: int = 30) -> str:
    """Shorten a worker class given by its path."""
    return printable((path or UNKNOWN).rpartition(".")[2], width)
