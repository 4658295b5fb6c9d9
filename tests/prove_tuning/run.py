"""What a scenario has at hand: the parts, a time line, and a list of what must be seen."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import requests

from tests.prove.stack import rest
from tests.prove.webhook import Notice
from tests.prove_tuning.clients import Arrivals, Clients
from tests.prove_tuning.recorder import Recorder
from tests.prove_tuning.stack import Stack
from tests.tuning.parts import WINDOW

Say = Callable[[str], None]
SHIPPED_WINDOW = 60.0
Seen = str | float | None


class Run:
    """One run of a scenario.

    Args:
        stack: what runs.
        say: takes words of progress.
        extra: what the scenario's `arrange` returned.
    """

    def __init__(self, stack: Stack, say: Say, extra: Any = None) -> None:
        self.stack, self.say, self.extra = stack, say, extra
        self.started = time.time()
        self.marks: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.numbers: dict[str, float | str | None] = {}
        self.asking: list[Clients | Arrivals] = []
        self.recorder = Recorder(stack, self.started)

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """What was seen every five seconds."""
        return self.recorder.rows

    @property
    def seconds(self) -> float:
        """Seconds since the scenario began."""
        return time.time() - self.started

    @property
    def window(self) -> float:
        """Seconds that rates are taken over."""
        return float(WINDOW) if self.stack.scaled else SHIPPED_WINDOW

    def at(self, moment: float) -> float:
        """Return a Unix time as seconds on the time line."""
        return round(moment - self.started, 1)

    def mark(self, text: str) -> None:
        """Put a moment on the time line."""
        self.say(text)
        self.marks.append({"t": round(self.seconds, 1), "text": text})

    def check(self, what: str, met: object, seen: Seen = None) -> bool:
        """Write down whether something that must be seen was, and go on.

        Args:
            what: a sentence.
            met: whether it was.
            seen: the number or the words behind it.
        """
        if not met:
            self.say(f"NOT MET: {what} ({seen})")
        self.checks.append({"what": what, "met": bool(met), "seen": seen})
        return bool(met)

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> bool:
        """Wait for a condition, and tell whether it came to hold; a part that does not answer does not meet it."""
        deadline = time.time() + seconds
        while True:
            with contextlib.suppress(requests.RequestException, psutil.Error):
                if condition():
                    return True
            if time.time() >= deadline:
                self.say(f"waited {seconds:.0f} s in vain for {what}")
                return False
            rest(0.2)

    def rest(self, seconds: float) -> None:
        """Let time pass, where that nothing happens is what must be seen."""
        rest(seconds)

    @contextmanager
    def clients(self, path: str, count: int, pause: float = 0.0, *, faulty: bool = False) -> Iterator[Clients]:
        """Have clients ask for a path in a closed loop while the block runs."""
        with Clients(self.stack.server.url + path, count, pause, faulty=faulty) as found:
            self.asking.append(found)
            yield found

    @contextmanager
    def arrivals(self, path: str, rate: float, *, faulty: bool = False) -> Iterator[Arrivals]:
        """Have requests for a path arrive at a rate while the block runs."""
        with Arrivals(self.stack.server.url + path, rate, faulty=faulty) as found:
            self.asking.append(found)
            yield found

    def told(self, *alerts: str, since: float = 0.0) -> Notice | None:
        """Return the first notification that somebody got of one of these alerts."""
        found = [notice for alert in alerts for notice in self.stack.people.notices(alert, since=since)]
        return min(found, key=lambda notice: notice.at, default=None)

    def failures(self) -> Sequence[str]:
        """Return what became of the requests that failed, those of faulty clients apart."""
        failed = [sample for each in self.asking if not each.faulty for sample in each.failed]
        return [f"{sample.status or sample.error} at {self.at(sample.at)} s" for sample in failed]
