"""The table as plain text, for scripts, pipes, and terminals that can do nothing else."""

from collections.abc import Iterator

from rich.cells import cell_len

from observability.top.cells import printable
from observability.top.columns import Column, columns_of, counterpart, ordered
from observability.top.words import Fact, Picture, age_of, banner, facts, last_exits

_MOST_REQUESTS = 5  # in flight that are shown of each worker
_TO_THE_LEFT = {"class", "was doing"}


def render(shown: Picture, column: Column, *, descending: bool) -> str:
    """Write everything: the banner, the server, the workers, and their oldest requests in flight."""
    return "\n".join(_lines(shown, column, descending)) + "\n"


def _lines(shown: Picture, column: Column, descending: bool) -> Iterator[str]:
    if text := banner(shown.snapshot):
        yield f"!! {text}"
    if shown.snapshot.alive:
        yield from (_line(line) for line in facts(shown))
    if exits := last_exits(shown):
        yield "last exits  " + _line(exits)
    columns = columns_of(shown.state)
    rows = ordered(shown.rows, counterpart(column, columns), descending=descending)
    if not rows:
        return
    yield ""
    yield from _table([[each.title for each in columns], *([each.text(row) for each in columns] for row in rows)])
    requests = [
        [
            str(row.worker.slot),
            age_of(flight, row.worker, shown.state.time),
            printable(flight.trace_id, 32) or "-",
            printable(flight.method, 8),
            printable(flight.path, 80),
        ]
        for row in rows
        for flight in row.worker.now[:_MOST_REQUESTS]
    ]
    if requests:
        yield ""
        yield from _table(
            [["slot", "age" if shown.snapshot.alive else "age, or begin", "trace id", "method", "path"], *requests],
            left=2,
        )


def _line(found: list[Fact]) -> str:
    return "  ".join(f"{fact.name} {fact.marked}" for fact in found)


def _table(cells: list[list[str]], left: int = 99) -> Iterator[str]:
    """Yield the lines of a table; columns from `left` on are flush left, and so are words."""
    widths = [max(cell_len(row[number]) for row in cells) for number in range(len(cells[0]))]
    for row in cells:
        padded = (
            _pad(cell, width, cells[0][number] in _TO_THE_LEFT or number >= left)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()


def _pad(cell: str, width: int, left: bool) -> str:
    blank = " " * (width - cell_len(cell))
    return cell + blank if left else blank + cell
