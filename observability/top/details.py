"""What lies over the table on demand: one worker's requests and stack, and the help."""

import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from observability.top.cells import class_name, duration, printable, whole
from observability.top.columns import COLUMNS, LEFT
from observability.top.paint import NAME, TITLE, grid
from observability.top.rates import Row
from observability.top.words import age_of

_LEAVE = (
    Binding("escape", "dismiss", "back"),
    Binding("q,enter", "dismiss", "back", show=False),
    Binding("ctrl+c", "app.quit", "quit", show=False),
)
_KEYS = (
    ("enter", "the worker's requests in flight; there, s asks it for its stack"),
    ("< >", "sort by the next column to the left or right"),
    ("R", "sort the other way round; so does the key of the column again"),
    ("space", "pause, and go on"),
    ("+ -", "look less, or more often"),
    ("q", "quit"),
)


class StackAnswered(Message):
    """A worker's stack has come."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__()


class _Over(ModalScreen[None]):
    """What fills the screen until it is dismissed."""

    CSS = """
    _Over VerticalScroll { background: #10141a; color: #d7dde5; padding: 0 1; }
    _Over Static { height: auto; }
    """


class Details(_Over):
    """One worker.

    Args:
        slot: its slot.
        ask: returns its stack; it may take seconds.
        row: what is known of it.
        now: Unix time at which that was so.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*_LEAVE, Binding("s", "stack", "stack")]

    def __init__(self, slot: int, ask: Callable[[int], str], row: Row | None, now: float | None) -> None:
        super().__init__()
        self.slot = slot
        self._ask = ask
        self._row, self._now = row, now

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        with VerticalScroll():
            yield Static(id="requests", markup=False)
            yield Static(Text("\ns asks the worker where its threads stand.", NAME), id="stack", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Show what is known."""
        self.show(self._row, self._now)

    def show(self, row: Row | None, now: float | None) -> None:
        """Show the worker as it is now, in Unix time; one that is gone stays as it was."""
        self._row, self._now = row or self._row, now
        lines = list(self._lines(self._row, gone=row is None))
        self.query_one("#requests", Static).update(Text("\n").join(lines))

    def _lines(self, row: Row | None, *, gone: bool) -> Iterator[Text]:
        if row is None:
            yield Text(f"Slot {self.slot} has no worker.")
            return
        worker = row.worker
        state = "gone" if gone else "booted" if worker.live and worker.booted else "booting" if worker.live else "dead"
        about = f"  pid {whole(worker.pid)}  {class_name(worker.worker_class)}  {state}"
        yield Text.assemble((f"slot {self.slot}", TITLE), f"{about}  age {duration(worker.age)}")
        counts = f"{whole(worker.requests)} requests, {whole(worker.errors)} failed"
        yield Text(f"{counts}, {whole(worker.in_flight)} in flight" + (", the oldest:" if worker.now else ""))
        if worker.now:
            yield Text(f"\n{'age' if worker.timed else 'began':>8}  {'trace id':32}  {'method':8}  path", NAME)
        for flight in worker.now:
            known = f"{age_of(flight, worker, self._now):>8}  {printable(flight.trace_id, 32) or '-':32}  "
            yield Text(f"{known}{printable(flight.method, 8):8}  {printable(flight.path)}", no_wrap=True)

    def action_stack(self) -> None:
        """Ask for the stack, without waiting for it here."""
        self.query_one("#stack", Static).update(Text("\nasking ...", NAME))
        threading.Thread(target=lambda: self.post_message(StackAnswered(self._ask(self.slot))), daemon=True).start()

    def on_stack_answered(self, message: StackAnswered) -> None:
        """Show the stack."""
        safe = "\n".join(printable(line) for line in message.text.splitlines())
        self.query_one("#stack", Static).update(Text("\n" + safe))


class Help(_Over):
    """The keys, and the columns with what they mean."""

    BINDINGS: ClassVar[list[BindingType]] = [*_LEAVE, Binding("question_mark", "dismiss", "back", show=False)]

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        heads = ("key", "column", "what it shows", "when it is bad")
        left = [column for column in LEFT if column not in COLUMNS]
        columns = [(column.key, column.title, column.means, column.bad) for column in COLUMNS]
        columns += [(column.key, column.title, f"of a dead server: {column.means}", column.bad) for column in left]
        with VerticalScroll():
            yield Static(grid(_KEYS))
            yield Static(grid([("",), heads, *columns, ("",)]))
            yield Static(Text("! marks what is bad, !! what is very bad; - is not known.", NAME))
        yield Footer()
