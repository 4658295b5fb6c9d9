"""Facts and cells as coloured text.

The colours are of the palette of Okabe and Ito, which people see apart whatever colours they cannot tell; an unhealthy
value has a mark and another shape as well. https://jfly.uni-koeln.de/color/
"""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from observability.top.cells import MARKS
from observability.top.columns import BY_TITLE, Column
from observability.top.rates import Row
from observability.top.words import Fact

NAME = "#8b98a9"
SORTED = "bold #ffffff"
TITLE = "bold #56b4e9"
LEVELS = ("", "bold #f0b400", "bold #000000 on #ff8c42")  # plain, amber, black on vermilion
BARS = ("#56b4e9", "#f0b400", "#ff8c42")
_EMPTY = "#35465c"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR = 8
_FLUSH_LEFT = {"class", "busy", "was doing"}


def fact_line(found: Iterable[Fact], head: str = "") -> Text:
    """Paint facts side by side, after a head."""
    line = Text()
    if head:
        line.append(head, TITLE)
    for fact in found:
        if line:
            line.append("   ")
        line.append(f"{fact.name} ", NAME)
        if fact.share is not None:
            line.append_text(bar(fact.share, fact.level))
            line.append(" ")
        line.append(fact.marked, LEVELS[fact.level] or "bold")
    return line


def bar(share: float, level: int, width: int = _BAR) -> Text:
    """Paint a share as a bar."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    filled = "█" * full + (_EIGHTHS[part] if part else "")
    return Text.assemble((filled, BARS[level]), ("░" * (width - len(filled)), _EMPTY))


def cell(column: Column, row: Row) -> Text:
    """Paint one cell of the table."""
    level = column.level(row)
    text = Text(column.shown(row) + MARKS[level], LEVELS[level], no_wrap=True)
    if column is BY_TITLE["busy"] and row.busy is not None:
        return Text.assemble(bar(row.busy, level), " ", text, no_wrap=True)
    text.justify = "left" if column.title in _FLUSH_LEFT else "right"
    return text


def heading(column: Column, chosen: Column, descending: bool) -> Text:
    """Paint a head: the key that sorts by it underlined, and an arrow where it is what the table is sorted by."""
    title = Text(column.title, SORTED if column is chosen else "", no_wrap=True)
    place = column.title.lower().find(column.key)
    if place >= 0:
        title.stylize("underline", place, place + 1)
    if column is chosen:
        title.append("▼" if descending else "▲")
    title.justify = "left" if column.title in _FLUSH_LEFT else "right"
    return title


def grid(lines: Iterable[Sequence[str]]) -> Table:
    """Paint a table without lines, the first column of which names what the others explain."""
    table = Table.grid(padding=(0, 2))
    for cells in lines:
        table.add_row(Text(cells[0], TITLE), *(Text(each) for each in cells[1:]))
    return table
