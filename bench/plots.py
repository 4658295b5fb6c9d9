"""Small charts as SVG: lines over a logarithmic x axis, and bars. No library: a page shows them as they are."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 56, 44
_FONT = "-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
_COLOURS = ("#0b6e99", "#9aa3ad", "#d9730d")
_INK, _FAINT, _GRID = "#24292f", "#6a737d", "#e4e7ea"
_BAR, _GAP, _NAMES, _BAR_TOP = 22, 10, 262, 58


def lines(title: str, x_name: str, unit: str, curves: Mapping[str, Points]) -> str:
    """Draw curves over a logarithmic x axis; y begins at 0, so that what does not grow looks flat."""
    xs = sorted({x for points in curves.values() for x, _ in points})
    step, top = _scale(max(y for points in curves.values() for _, y in points))
    low, high = math.log(xs[0]), math.log(xs[-1]) or 1.0

    def at_x(x: float) -> float:
        return _LEFT + (math.log(x) - low) / ((high - low) or 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(16, 24, title, weight=600, size=14)]
    for number in range(round(top / step) + 1):
        y = at_y(number * step)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{number * step:g}", anchor="end", colour=_FAINT))
    parts += [_text(at_x(x), _HEIGHT - _BOTTOM + 18, f"{x:g}", anchor="middle", colour=_FAINT) for x in xs]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_name, anchor="middle", colour=_FAINT))
    parts.append(_text(16, 44, unit, colour=_FAINT))
    for index, (name, points) in enumerate(curves.items()):
        parts += _curve([(at_x(x), at_y(y)) for x, y in points], _COLOURS[index % len(_COLOURS)])
        parts += _key(name, _COLOURS[index % len(_COLOURS)], _WIDTH - _RIGHT - 110 * (len(curves) - index), 44)
    return _svg(_WIDTH, _HEIGHT, title, parts)


def bars(title: str, unit: str, values: Mapping[str, float], ours: Sequence[str], base: float, target: float) -> str:
    """Draw one bar a name, ours in colour, with a line where the bare server is, and one at the target."""
    height = _BAR_TOP + len(values) * (_BAR + _GAP) + 30
    step, top = _scale(max(*values.values(), target))
    width = 720

    def at_x(x: float) -> float:
        return _NAMES + x / top * (width - _NAMES - 60)

    parts = [_text(16, 24, title, weight=600, size=14), _text(16, 44, unit, colour=_FAINT)]
    for number in range(round(top / step) + 1):
        x, bottom = at_x(number * step), height - 28
        parts.append(f'<path d="M{x:.1f} {_BAR_TOP - 6}V{bottom}" stroke="{_GRID}"/>')
        parts.append(_text(x, bottom + 16, f"{number * step:g}", anchor="middle", colour=_FAINT))
    for row, (name, value) in enumerate(values.items()):
        y = _BAR_TOP + row * (_BAR + _GAP)
        colour = _COLOURS[0] if name in ours else _COLOURS[1]
        parts.append(
            f'<rect x="{_NAMES}" y="{y}" width="{at_x(value) - _NAMES:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        )
        parts.append(_text(_NAMES - 10, y + _BAR - 7, name, anchor="end", weight=600 if name in ours else 400))
        parts.append(_text(at_x(value) + 6, y + _BAR - 7, f"{value:.2f}", weight=600 if name in ours else 400))
    for x, colour, dashes in ((base, _INK, ""), (target, _COLOURS[2], ' stroke-dasharray="4 3"')):
        parts.append(f'<path d="M{at_x(x):.1f} {_BAR_TOP - 6}V{height - 28}" stroke="{colour}"{dashes}/>')
    parts += _key("bare", _INK, width - 190, 40) + _key(f"target {target:g}", _COLOURS[2], width - 120, 40)
    return _svg(width, height, title, parts)


def _scale(most: float) -> tuple[float, float]:
    """Return a round step, and the first multiple of it that is not below the most."""
    power = 10.0 ** math.floor(math.log10(most or 1.0))
    step = next(power * each for each in (0.2, 0.25, 0.5, 1.0, 2.0) if most / (power * each) <= 5)
    return step, math.ceil(most / step) * step


def _curve(points: Points, colour: str) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _key(name: str, colour: str, x: float, y: float) -> list[str]:
    return [f'<rect x="{x}" y="{y - 8}" width="10" height="8" fill="{colour}"/>', _text(x + 15, y, name, colour=_FAINT)]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: int = 400, size: int = 12, colour: str = _INK
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    body = "\n".join(parts)
    return (
        f'{head} role="img" font-family="{_FONT}">\n<title>{escape(title)}</title>\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff" stroke="{_GRID}"/>\n{body}\n</svg>\n'
    )
