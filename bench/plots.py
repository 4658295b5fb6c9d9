"""Small charts as SVG: lines over a logarithmic x axis, and bars. No library: a page shows them as they are."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 56, 44
_FONT = "-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
COLOURS = ("#0b6e99", "#9aa3ad", "#d9730d")
INK, FAINT, GRID = "#24292f", "#6a737d", "#e4e7ea"
_BAR, _GAP, _NAMES, _BAR_TOP = 22, 10, 262, 58


def lines(title: str, x_name: str, unit: str, curves: Mapping[str, Points]) -> str:
    """Draw curves over a logarithmic x axis; y begins at 0, so that what does not grow looks flat."""
    xs = sorted({x for points in curves.values() for x, _ in points})
    step, top = scale(max(y for points in curves.values() for _, y in points))
    low, high = math.log(xs[0]), math.log(xs[-1]) or 1.0

    def at_x(x: float) -> float:
        return _LEFT + (math.log(x) - low) / ((high - low) or 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [text(16, 24, title, weight=600, size=14)]
    for number in range(round(top / step) + 1):
        y = at_y(number * step)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{GRID}"/>')
        parts.append(text(_LEFT - 8, y + 4, f"{number * step:g}", anchor="end", colour=FAINT))
    parts += [text(at_x(x), _HEIGHT - _BOTTOM + 18, f"{x:g}", anchor="middle", colour=FAINT) for x in xs]
    parts.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_name, anchor="middle", colour=FAINT))
    parts.append(text(16, 44, unit, colour=FAINT))
    for index, (name, points) in enumerate(curves.items()):
        parts += _curve([(at_x(x), at_y(y)) for x, y in points], COLOURS[index % len(COLOURS)])
        parts += key(name, COLOURS[index % len(COLOURS)], _WIDTH - _RIGHT - 110 * (len(curves) - index), 44)
    return svg(_WIDTH, _HEIGHT, title, parts)


def bars(title: str, unit: str, values: Mapping[str, float], ours: Sequence[str], base: float, target: float) -> str:
    """Draw one bar a name, ours in colour, with a line where the bare server is, and one at the target."""
    height = _BAR_TOP + len(values) * (_BAR + _GAP) + 30
    step, top = scale(max(*values.values(), target))
    width = 720

    def at_x(x: float) -> float:
        return _NAMES + x / top * (width - _NAMES - 60)

    parts = [text(16, 24, title, weight=600, size=14), text(16, 44, unit, colour=FAINT)]
    for number in range(round(top / step) + 1):
        x, bottom = at_x(number * step), height - 28
        parts.append(f'<path d="M{x:.1f} {_BAR_TOP - 6}V{bottom}" stroke="{GRID}"/>')
        parts.append(text(x, bottom + 16, f"{number * step:g}", anchor="middle", colour=FAINT))
    for row, (name, value) in enumerate(values.items()):
        y = _BAR_TOP + row * (_BAR + _GAP)
        colour = COLOURS[0] if name in ours else COLOURS[1]
        parts.append(
            f'<rect x="{_NAMES}" y="{y}" width="{at_x(value) - _NAMES:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        )
        parts.append(text(_NAMES - 10, y + _BAR - 7, name, anchor="end", weight=600 if name in ours else 400))
        parts.append(text(at_x(value) + 6, y + _BAR - 7, f"{value:.2f}", weight=600 if name in ours else 400))
    for x, colour, dashes in ((base, INK, ""), (target, COLOURS[2], ' stroke-dasharray="4 3"')):
        parts.append(f'<path d="M{at_x(x):.1f} {_BAR_TOP - 6}V{height - 28}" stroke="{colour}"{dashes}/>')
    parts += key("bare", INK, width - 190, 40) + key(f"target {target:g}", COLOURS[2], width - 120, 40)
    return svg(width, height, title, parts)


def scale(most: float) -> tuple[float, float]:
    """Return a round step, and the first multiple of it that is not below the most."""
    power = 10.0 ** math.floor(math.log10(most or 1.0))
    step = next(power * each for each in (0.2, 0.25, 0.5, 1.0, 2.0) if most / (power * each) <= 5)
    return step, math.ceil(most / step) * step


def _curve(points: Points, colour: str) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def key(name: str, colour: str, x: float, y: float) -> list[str]:
    """Draw what a colour stands for."""
    return [f'<rect x="{x}" y="{y - 8}" width="10" height="8" fill="{colour}"/>', text(x + 15, y, name, colour=FAINT)]


def text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: int = 400, size: int = 12, colour: str = INK
) -> str:
    """Write words."""
    style = f'text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """Put parts together to a picture."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    body = "\n".join(parts)
    return (
        f'{head} role="img" font-family="{_FONT}">\n<title>{escape(title)}</title>\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff" stroke="{GRID}"/>\n{body}\n</svg>\n'
    )
