"""The terminal view: what stands above the table, the table, and the keys."""

import threading
from collections.abc import Iterator
from typing import ClassVar, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from observability.top.cells import printable
from observability.top.columns import COLUMNS, LEFT, Column, columns_of, counterpart, fitting, ordered
from observability.top.details import Details, Help
from observability.top.paint import cell, fact_line, heading
from observability.top.rates import Row
from observability.top.source import Snapshot
from observability.top.state import State
from observability.top.words import Picture, banner, facts, last_exits, picture

FASTEST, SLOWEST = 0.1, 60.0  # seconds between two looks
_INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Pollable(Protocol):
    """Where looks come from; both may take seconds, and neither raises."""

    def poll(self) -> Snapshot:
        """Look once."""

    def stack(self, slot: int) -> str:
        """Return where a worker's threads stand."""


class Polled(Message):
    """A look was taken."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        super().__init__()


class _Workers(DataTable[Text]):
    """The table, whose Enter is worth a word at the foot."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "worker")]


class Top(App[None]):
    """One server, look after look.

    Args:
        source: where looks come from.
        interval: seconds between two looks.
        column: what the table is sorted by.
    """

    TITLE = "sightline top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: #10141a; color: #d7dde5; }
    #banner { background: #f0b400; color: #000000; text-style: bold; padding: 0 1; display: none; }
    #server { padding: 0 1; height: auto; }
    _Workers { height: 1fr; background: #10141a; scrollbar-size-horizontal: 0; }
    _Workers:focus { background-tint: #000000 0%; }
    _Workers > .datatable--header { background: #1f2a37; color: #9ecbff; text-style: bold; }
    _Workers > .datatable--cursor { background: #2b3a4d; color: #ffffff; }
    Footer { background: #1f2a37; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help"),
        Binding("space", "pause", "pause"),
        Binding("less_than_sign", "sort_next(-1)", "sort", key_display="< >"),
        Binding("greater_than_sign", "sort_next(1)", show=False),
        Binding("R", "reverse", "reverse", key_display="R"),
        Binding("plus", "slower", "interval", key_display="+ -"),
        Binding("minus", "faster", show=False),
        Binding("q,ctrl+c", "quit", "quit", key_display="q"),
        *(Binding(key, f"sort('{key}')", show=False) for key in sorted({each.key for each in (*COLUMNS, *LEFT)})),
    ]

    def __init__(self, source: Pollable, interval: float = 2.0, column: Column = COLUMNS[0]) -> None:
        super().__init__()
        self.source = source
        self.interval = interval
        self.column = column
        self.descending = column.largest_first
        self.paused = False
        self.shown: Picture | None = None
        self._before: Snapshot | None = None
        self._left = threading.Event()
        self._sooner = threading.Event()

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="banner", markup=False)
        yield Static(fact_line([], f"{self.TITLE}  asking ..."), id="server", markup=False)
        yield _Workers(cursor_type="row", cursor_foreground_priority="renderable")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.table.focus()
        # a daemon thread and no task: a look may wait for an answer, and quitting must not
        threading.Thread(target=self._look, name="look", daemon=True).start()

    def on_unmount(self) -> None:
        """Look no more."""
        self._left.set()
        self._sooner.set()

    @property
    def table(self) -> _Workers:
        """The table of workers, also while another screen lies over it."""
        return self.screen_stack[0].query_one(_Workers)

    def _look(self) -> None:
        while not self._left.is_set():
            if not self.paused:
                self.post_message(Polled(self.source.poll()))
            self._sooner.wait(self.interval)
            self._sooner.clear()

    def on_polled(self, message: Polled) -> None:
        """Show a look, with the rates since the one before."""
        if self.paused or not self.is_running:  # a look may still come when the screen has been taken down
            return
        self.shown = picture(self._before, message.snapshot)
        if message.snapshot.state is not None:
            self._before = message.snapshot
        self._show()
        for screen in self.screen_stack:
            if isinstance(screen, Details):
                screen.show(self.row_of(screen.slot), self.shown.state.time)

    def row_of(self, slot: int) -> Row | None:
        """Return the row of a slot; None where it is gone."""
        rows = self.shown.rows if self.shown is not None else []
        return next((row for row in rows if row.worker.slot == slot), None)

    def _show(self) -> None:
        if self.shown is None:
            return
        text, below = banner(self.shown.snapshot), self.screen_stack[0]
        above = below.query_one("#banner", Static)
        above.display = bool(text)
        above.update(Text(text))
        below.query_one("#server", Static).update(Text("\n").join(self._above(self.shown)))
        self._fill(self.table, self.shown)

    def _above(self, shown: Picture) -> Iterator[Text]:
        how = "paused" if self.paused else f"every {self.interval:g} s"
        yield fact_line([], f"{self.TITLE}  {printable(shown.snapshot.origin, 60)}  {how}")
        if shown.snapshot.alive:
            yield from (fact_line(line) for line in facts(shown))
        if exits := last_exits(shown):
            yield fact_line(exits, "last exits")

    def _fill(self, table: _Workers, shown: Picture) -> None:
        slot = self.chosen
        columns = self.fitting
        column = counterpart(self.column, columns_of(shown.state))
        if column.key != self.column.key:
            self.descending = column.largest_first
        self.column = column
        table.clear(columns=True)
        for column in columns:
            table.add_column(heading(column, self.column, self.descending), width=column.width)
        rows = ordered(shown.rows, self.column, descending=self.descending)
        for row in rows:
            table.add_row(*(cell(column, row) for column in columns), key=str(row.worker.slot))
        kept = [number for number, row in enumerate(rows) if row.worker.slot == slot]
        if kept:
            table.move_cursor(row=kept[0])

    @property
    def chosen(self) -> int | None:
        """The slot under the cursor."""
        table = self.table
        if not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return int(key) if key is not None else None

    def on_resize(self, _: Resize) -> None:
        """Choose the columns anew."""
        if self.is_running:
            self._show()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the head that was clicked."""
        self.action_sort(self.fitting[event.column_index].key)

    @property
    def fitting(self) -> list[Column]:
        """The columns that there is room for."""
        return fitting(columns_of(self.shown.state if self.shown else State()), self.size.width - 1)

    def action_sort(self, key: str) -> None:
        """Sort by the column of a key; by the same one again, the other way round."""
        columns = columns_of(self.shown.state if self.shown else State())
        column = next((each for each in columns if each.key == key), None)
        if column is None:
            return
        self.descending = not self.descending if column is self.column else column.largest_first
        self.column = column
        self._show()

    def action_sort_next(self, step: int) -> None:
        """Sort by the neighbour of the present column."""
        columns = self.fitting
        place = columns.index(self.column) if self.column in columns else 0
        self.action_sort(columns[(place + step) % len(columns)].key)

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self.descending = not self.descending
        self._show()

    def action_pause(self) -> None:
        """Keep the picture, or go on."""
        self.paused = not self.paused
        self._sooner.set()
        self._show()

    def action_slower(self) -> None:
        """Look less often."""
        self._set_interval(min((each for each in _INTERVALS if each > self.interval), default=SLOWEST))

    def action_faster(self) -> None:
        """Look more often."""
        self._set_interval(max((each for each in _INTERVALS if each < self.interval), default=FASTEST))

    def _set_interval(self, seconds: float) -> None:
        self.interval = seconds
        self._sooner.set()
        self._show()

    def action_help(self) -> None:
        """Explain keys and columns."""
        self.push_screen(Help())

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        """Show the chosen worker's requests and stack."""
        if (slot := self.chosen) is not None and self.shown is not None:
            self.push_screen(Details(slot, self.source.stack, self.row_of(slot), self.shown.state.time))
