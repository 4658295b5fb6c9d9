"""Tables in the docs that tests fill: a cell is what a test saw, and the page is checked against it.

A test records cells; the module's last test calls `check()`. With SIGHT_WRITE=1 that writes the page anew.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TABLES: list["Table"] = []


class Table:
    """One table of one page.

    Args:
        name: as in the page's markers, `<!-- table: NAME -->` and `<!-- end of table -->`.
        page: the page, from the repository's root.
        columns: the heads, that of the rows' names first.
        rows: the rows' names in order; a check with fewer says that it cannot tell.
    """

    def __init__(self, name: str, page: str, columns: Sequence[str], rows: Sequence[str] = ()) -> None:
        self.name = name
        self.page = ROOT / page
        self.columns = list(columns)
        self.rows = list(rows)
        self.cells: dict[tuple[str, str], str] = {}
        TABLES.append(self)

    def record(self, row: str, column: str, text: str) -> None:
        """Note what was seen."""
        assert column in self.columns[1:], column
        if row not in self.rows:
            self.rows.append(row)
        self.cells[row, column] = text

    def missing(self) -> list[tuple[str, str]]:
        """Return the cells that no test has filled."""
        return [(row, column) for row in self.rows for column in self.columns[1:] if (row, column) not in self.cells]

    def text(self) -> str:
        """Return the table as Markdown."""
        heads = [self.columns, ["---"] * len(self.columns)]
        body = [[row, *(self.cells.get((row, column), "") for column in self.columns[1:])] for row in self.rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in [*heads, *body])

    def check(self) -> None:
        """Compare with the page, or write it; skipped where only some of the table's tests ran."""
        if missing := self.missing():
            pytest.skip(f"{len(missing)} cells of the table were not tried in this run: {missing[:3]}")
        block = re.compile(rf"(<!-- table: {self.name} -->\n).*?(\n?<!-- end of table -->)", re.DOTALL)
        before = self.page.read_text()
        assert block.search(before), f"{self.page} lacks the markers of the table {self.name}"
        after = block.sub(lambda found: found[1] + self.text() + "\n<!-- end of table -->", before)
        if os.environ.get("SIGHT_WRITE"):
            self.page.write_text(after)
        assert self.page.read_text() == after, f"{self.page.name} is not what was seen: run `make sight SIGHT_WRITE=1`"
