"""Draws the simulated day: what came, how many workers took it, and in which minutes the objective was missed."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.plots import COLOURS, FAINT, GRID, INK, key, scale, text
from bench.plots import svg as drawn
from tests.server import ROOT

FILE: Final = ROOT / "docs/images/tuning-day.svg"
_WIDTH, _HEIGHT = 760, 470
_LEFT, _RIGHT = 58, 22
_LOAD: Final = (84, 194)  # top and bottom of a panel
_WORKERS: Final = (236, 376)
_OVER: Final = (402, 432)
_DAY_MINUTES: Final = 1440
_TUNER, _IDEAL, _USUAL = COLOURS

Row = dict[str, Any]


def svg(result: dict[str, Any]) -> str:
    """Draw the first of the days.

    Args:
        result: as simulation.run() returns it.
    """
    shown = result["days"][0]
    series, tuner, usual = shown["series"], shown["tuner"], shown["usual"]
    objective = f"{result['objective_seconds'] * 1000:.0f} ms"
    title = f"A simulated day on {shown['cores']:g} cores: {tuner['saved'] * 100:.0f} % fewer worker hours"
    sums = (
        f"tuner {tuner['worker_hours']:g} h, {tuner['minutes_over']} min over {objective}; "
        f"{usual['workers']} workers {usual['worker_hours']:g} h, {usual['minutes_over']} min; "
        f"ideal {shown['ideal']['worker_hours']:g} h, {shown['ideal']['minutes_over']} min"
    )
    parts = [text(16, 24, title, weight=600, size=14), text(16, 44, sums, colour=FAINT)]
    most = max(row["load"] for row in series)
    parts += _panel(_LOAD, most, "requests a second, the most in 10 minutes")
    parts.append(_line(series, "load", _height(_LOAD, most), INK))
    parts += _workers(series, usual["workers"])
    parts += _over(series)
    parts += [_hour(hour) for hour in range(0, 25, 3)]
    return drawn(_WIDTH, _HEIGHT, title, parts)


def _workers(series: Sequence[Row], usual: int) -> list[str]:
    most = max(usual, *(max(row["tuner"], row["ideal"]) for row in series))
    at_y = _height(_WORKERS, most)
    keys = (("tuner", _TUNER), ("ideal", _IDEAL), (f"{usual}, fixed", _USUAL))
    named = [
        part for n, (name, colour) in enumerate(keys) for part in key(name, colour, 500 + 80 * n, _WORKERS[0] - 12)
    ]
    fixed = f'<path d="M{_LEFT} {at_y(usual):.1f}H{_WIDTH - _RIGHT}" stroke="{_USUAL}" stroke-dasharray="4 3"/>'
    lines = [_line(series, "ideal", at_y, _IDEAL), _line(series, "tuner", at_y, _TUNER)]
    return [*_panel(_WORKERS, most, "workers"), *named, fixed, *lines]


def _over(series: Sequence[Row]) -> list[str]:
    """Mark the intervals in which some minutes were over the objective: the more of them, the darker."""
    top, bottom = _OVER
    middle = (top + bottom) / 2
    parts = [text(_LEFT, top - 6, "minutes over the objective", colour=FAINT)]
    for name, colour, y in (("tuner", _TUNER, top), ("usual", _USUAL, middle)):
        parts.append(f'<path d="M{_LEFT} {y + 12:.1f}H{_WIDTH - _RIGHT}" stroke="{GRID}"/>')
        for row, following in zip(series, [*series[1:], {"t": _DAY_MINUTES}], strict=True):
            if minutes := row[f"{name}_over"]:
                width = _at_x(following["t"]) - _at_x(row["t"]) - 0.6
                shade = 0.3 + 0.7 * min(1.0, minutes / 5)
                parts.append(
                    f'<rect x="{_at_x(row["t"]):.1f}" y="{y:.1f}" width="{width:.1f}" height="12" '
                    f'fill="{colour}" fill-opacity="{shade:.2f}"/>'
                )
    return parts


def _panel(edges: tuple[int, int], most: float, title: str) -> list[str]:
    step, top = scale(most)
    at_y = _height(edges, most)
    parts = [text(_LEFT, edges[0] - 12, title, colour=FAINT)]
    for number in range(round(top / step) + 1):
        y = at_y(number * step)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{GRID}"/>')
        parts.append(text(_LEFT - 8, y + 4, f"{number * step:g}", anchor="end", colour=FAINT))
    return parts


def _height(edges: tuple[int, int], most: float) -> Callable[[float], float]:
    top, bottom = edges
    return lambda value: bottom - value / scale(most)[1] * (bottom - top)


def _line(series: Sequence[Row], name: str, at_y: Callable[[float], float], colour: str) -> str:
    """Draw steps: each value holds until the next."""
    path = "".join(
        f"{'H' if number else 'M'}{_at_x(row['t']):.1f}{' ' if not number else 'V'}{at_y(row[name]):.1f}"
        for number, row in enumerate(series)
    )
    return f'<path d="{path}H{_at_x(_DAY_MINUTES):.1f}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _hour(hour: int) -> str:
    return text(_at_x(60 * hour), _HEIGHT - 14, f"{hour}:00", anchor="middle", colour=FAINT)


def _at_x(minute: float) -> float:
    return _LEFT + minute / _DAY_MINUTES * (_WIDTH - _LEFT - _RIGHT)
