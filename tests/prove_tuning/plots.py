"""Draws what happened in a scenario: workers, the queue, and what was done when, over one axis of time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.plots import COLOURS, FAINT, GRID, INK, key, scale, svg, text
from tests.prove_tuning.trial import Result
from tests.server import ROOT

DIRECTORY: Final = ROOT / "docs/images"
_WIDTH, _LEFT, _RIGHT, _TOP = 760, 58, 22, 74
_GAP, _LINE = 34, 17
_HEIGHTS: Final = {"workers": 74}
_HEIGHT: Final = 104
_MOST_MARKS: Final = 24
_NUMBER: Final = 16.0  # from one number to the next, at least
_DASHES: Final = 'stroke-width="0.8" stroke-dasharray="2 3"'
_TOLD_TOGETHER_SECONDS: Final = 30.0
_TOGETHER_SECONDS: Final = 4.0  # marks nearer than that share a number
_TICKS: Final = (5, 10, 20, 30, 60, 120, 300)  # seconds
_MOST_TICKS: Final = 13
_DONE, _, _ALARM = COLOURS


@dataclass(frozen=True)
class Panel:
    """One curve over time.

    Args:
        title: what it shows.
        factor: from the time line's number to what is shown.
        limit: where it should end, drawn as a line.
        limit_name: what that is.
        least: what the axis reaches at least.
    """

    title: str
    factor: float = 1.0
    limit: float | None = None
    limit_name: str = ""
    least: float = 1.0


PANELS: Final = {
    "queue": Panel("queue, p95 [ms]", 1000, 50, "objective", 100),
    "memory": Panel("memory of its limit [%]", 100, 90, "runs out", 100),
    "busy": Panel("share of the time in which workers are full [%]", 100, None, "", 100),
    "p99": Panel("duration, p99 [ms]", 1000, None, "", 100),
    "cpu": Panel("cores used by the workers", 1, None, "", 2),
}


@dataclass(frozen=True)
class Mark:
    """A moment.

    Args:
        t: seconds on the time line.
        words: what happened.
        colour: of its kind.
    """

    t: float
    words: str
    colour: str


def draw(result: Result, panels: Sequence[str]) -> str:
    """Draw a scenario's picture."""
    rows, found = result["timeline"], marks(result)
    end: float = max([row["t"] for row in rows] + [each.t for each in found])
    step = next((each for each in _TICKS if end / each <= _MOST_TICKS), _TICKS[-1])

    def at_x(t: float) -> float:
        return _LEFT + max(0.0, t) / end * (_WIDTH - _LEFT - _RIGHT)

    title = f"{result['scenario']}: {result['about']}"
    parts = [text(16, 24, result["scenario"], weight=600, size=14), text(16, 44, _cut(result["about"]), colour=FAINT)]
    y, bottoms = float(_TOP), list[float]()
    for name in ("workers", *panels):
        height = _HEIGHTS.get(name, _HEIGHT)
        parts += _workers(rows, at_x, y, height) if name == "workers" else _curve(rows, name, at_x, y, height)
        bottoms.append(y + height)
        y += height + _GAP
    parts += _ticks(at_x, end, step, bottoms[-1])
    parts += _lines(found, at_x, bottoms[-1])
    legend = bottoms[-1] + 56 + 16 * max(_rows(found, at_x), default=0)
    parts += _legend(found, legend)
    return svg(_WIDTH, round(legend + math.ceil(len(found) / 2) * _LINE + 4), title, parts)


def marks(result: Result) -> list[Mark]:
    """Return what happened, in its order: what the scenario did, what was told, what the tuner did."""
    found = [Mark(each["t"], each["text"], INK) for each in result["marks"]]
    found += _told(result["alerts"])
    for each in result["decisions"]:
        if words := _deed(each):
            found.append(Mark(each["t"], words, _DONE))
    return _merged(sorted(found, key=lambda mark: mark.t))


def _told(alerts: Sequence[dict[str, Any]]) -> list[Mark]:
    """Put together what people were told at nearly the same time."""
    found: list[tuple[float, str, list[str]]] = []
    for each in alerts:
        last = found[-1] if found else None
        if last and last[1] == each["status"] and each["t"] - last[0] < _TOLD_TOGETHER_SECONDS:
            last[2].append(each["alert"])
        else:
            found.append((each["t"], each["status"], [each["alert"]]))
    words = {True: ("fires", "fire"), False: ("is over", "are over")}
    return [
        Mark(t, f"{', '.join(names)} {words[status == 'firing'][len(names) > 1]}", _ALARM) for t, status, names in found
    ]


def _deed(entry: dict[str, Any]) -> str:
    before, workers = entry.get("before", 0), entry.get("workers", 0)
    if entry["kind"] == "outcome":
        return f"{entry['outcome']}" + (f": {workers} again" if entry["outcome"] == "undone" else "")
    if entry["outcome"] == "applied":
        return f"{entry['rule']}: {before} to {workers} workers"
    return ""


def _merged(found: Sequence[Mark]) -> list[Mark]:
    """Put together what happened at once, and leave out what would be too much."""
    merged: list[Mark] = []
    for mark in found:
        last = merged[-1] if merged else None
        if last and mark.t - last.t < _TOGETHER_SECONDS and last.colour == mark.colour:
            merged[-1] = Mark(last.t, f"{last.words}, {mark.words}", last.colour)
        else:
            merged.append(mark)
    return merged[:_MOST_MARKS]


def _cut(words: str, most: int = 118) -> str:
    return words if len(words) <= most else words[: most - 3].rsplit(" ", 1)[0] + " ..."


def _frame(title: str, at_y: Callable[[float], float], ticks: Sequence[float], y: float) -> list[str]:
    parts = [text(_LEFT, y - 8, title, colour=FAINT, size=11)]
    for each in ticks:
        parts.append(f'<path d="M{_LEFT} {at_y(each):.1f}H{_WIDTH - _RIGHT}" stroke="{GRID}"/>')
        parts.append(text(_LEFT - 8, at_y(each) + 4, f"{each:g}", anchor="end", colour=FAINT, size=11))
    return parts


def _workers(rows: Sequence[dict[str, Any]], at_x: Callable[[float], float], y: float, height: float) -> list[str]:
    top = max([row[name] or 0 for row in rows for name in ("target", "live")] + [4])

    def at_y(value: float) -> float:
        return y + height - value / top * height

    parts = _frame("workers", at_y, range(0, top + 1, max(1, top // 4)), y)
    for name, colour, width in (("live", COLOURS[1], 4), ("target", COLOURS[0], 2)):
        path = ""
        for before, row in zip([None, *rows], rows, strict=False):
            if row[name] is None:
                continue
            begins = before is None or before[name] is None
            x, value = at_x(row["t"]), at_y(row[name])
            path += f"M{x:.1f} {value:.1f}" if begins else f"H{x:.1f}V{value:.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    return parts + key("wanted", COLOURS[0], _WIDTH - 160, y - 8) + key("living", COLOURS[1], _WIDTH - 80, y - 8)


def _curve(
    rows: Sequence[dict[str, Any]], name: str, at_x: Callable[[float], float], y: float, height: float
) -> list[str]:
    panel = PANELS[name]
    values = [row[name] * panel.factor for row in rows if row[name] is not None]
    step, top = scale(max([*values, panel.least, panel.limit or 0.0]))

    def at_y(value: float) -> float:
        return y + height - value / top * height

    parts = _frame(panel.title, at_y, [number * step for number in range(round(top / step) + 1)], y)
    path, drawn = "", False
    for row in rows:
        if row[name] is not None:
            path += f"{'L' if drawn else 'M'}{at_x(row['t']):.1f} {at_y(row[name] * panel.factor):.1f}"
        drawn = row[name] is not None
    parts.append(f'<path d="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>')
    if panel.limit is not None:
        where = at_y(panel.limit)
        parts.append(f'<path d="M{_LEFT} {where:.1f}H{_WIDTH - _RIGHT}" stroke="{_ALARM}" stroke-dasharray="4 3"/>')
        parts += key(f"{panel.limit_name} {panel.limit:g}", _ALARM, _WIDTH - 120, y - 8)
    return parts


def _ticks(at_x: Callable[[float], float], end: float, step: float, bottom: float) -> list[str]:
    parts = []
    for number in range(int(end / step) + 1):
        words = f"{number * step:g} s"
        parts.append(text(at_x(number * step), bottom + 16, words, anchor="middle", colour=FAINT, size=11))
    return parts


def _lines(found: Sequence[Mark], at_x: Callable[[float], float], bottom: float) -> list[str]:
    """Draw a numbered line at each moment."""
    parts = []
    for number, (mark, row) in enumerate(zip(found, _rows(found, at_x), strict=True), 1):
        x, y = at_x(mark.t), bottom + 31 + row * 16
        parts.append(f'<path d="M{x:.1f} {_TOP - 4}V{y - 7}" stroke="{mark.colour}" {_DASHES}/>')
        parts += _number(number, x, y, mark.colour)
    return parts


def _rows(found: Sequence[Mark], at_x: Callable[[float], float]) -> list[int]:
    """Return in which row each number stands, so that none lies on another."""
    ends: list[float] = []
    rows = []
    for mark in found:
        x = at_x(mark.t)
        row = next((row for row, end in enumerate(ends) if x - end >= _NUMBER), len(ends))
        ends[row : row + 1] = [x]
        rows.append(row)
    return rows


def _number(number: int, x: float, y: float, colour: str) -> list[str]:
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{colour}"/>',
        text(x, y + 3.5, str(number), anchor="middle", size=9, colour="#ffffff", weight=600),
    ]


def _legend(found: Sequence[Mark], top: float) -> list[str]:
    parts, half = [], math.ceil(len(found) / 2)
    for index, mark in enumerate(found):
        x, y = 24 + (index // half) * (_WIDTH / 2 - 8), top + (index % half) * _LINE
        parts += _number(index + 1, x, y - 4, mark.colour)
        parts.append(text(x + 14, y, _cut(f"{mark.t:.0f} s: {mark.words}", 62), size=11))
    return parts
