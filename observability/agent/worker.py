"""One worker as the agent shows it: from its slot, and from what only an onlooker can tell."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from observability import catalogue, layout
from observability.agent.outside import Ledger
from observability.page import Page
from observability.probes.busy import Mark
from observability.scrape import DURATION_BOUNDS, Reading

STATE_REQUESTS = 20  # requests in flight that /state lists for a worker, the oldest first
BOUNDS = [bound if bound in catalogue.DURATION_BUCKETS else "inf" for bound in DURATION_BOUNDS]


def heartbeat_age(note: dict[str, Any]) -> float | None:
    """Return the seconds since a worker's last heartbeat: the time of its temporary file, which gunicorn itself reads.

    The file is unlinked, and reached through the master's descriptor: the worker's own is closed to this process where
    the worker has dropped privileges. None where it cannot be seen.
    """
    try:
        # gunicorn writes monotonic seconds as the file's times
        return time.monotonic() - Path(f"/proc/{note['master']}/fd/{note['heartbeat_fd']}").stat().st_mtime
    except (OSError, KeyError):
        return None


@dataclass
class Worker:
    """One worker at one moment.

    Args:
        reading: its slot.
        heartbeat: seconds since its last heartbeat; None where that cannot be seen, or it is dead.
        flights: its requests in flight, the oldest first.
        ledger: its process; None where nobody has looked.
        busy_ratio: as observability/probes/busy.py defines it; None until it was seen for a while.
    """

    reading: Reading
    heartbeat: float | None
    flights: list[dict[str, Any]]
    ledger: Ledger | None = None
    busy_ratio: float | None = None

    @classmethod
    def of(cls, reading: Reading) -> "Worker":
        """Make one of its slot."""
        return cls(reading, heartbeat_age(reading.note) if reading.live else None, list(reading.file.flights()))

    @property
    def booted(self) -> bool:
        """Whether it has loaded the app."""
        return bool(self.reading.note.get("booted"))

    @property
    def fresh(self) -> bool:
        """Whether its heartbeat is younger than gunicorn's timeout, as far as that can be seen."""
        timeout = float(self.reading.note.get("timeout", 0))
        return self.heartbeat is None or not timeout or self.heartbeat <= timeout

    @property
    def until(self) -> float:
        """Monotonic seconds up to which its requests have run: now, or its end."""
        return self.reading.ended or time.monotonic()

    @property
    def oldest(self) -> float:
        """Age of its oldest request in flight in seconds; 0 where there is none."""
        return max(0.0, self.until - self.flights[0]["start"]) if self.flights else 0.0

    def mark(self, page: Page) -> Mark:
        """Return what the busy ratio is taken from."""
        label = self.reading.label
        return Mark(
            pid=int(self.reading.note.get("pid", 0)),
            busy=self.reading.busy,
            capacity=page.value(catalogue.WORKER_CAPACITY, worker=label),
            cpu=self.ledger.cpu if self.ledger else None,
            late=page.value(catalogue.WORKER_LAG, worker=label, suffix="_sum"),
            late_now=page.value(catalogue.WORKER_LATE, worker=label),
        )

    def state(self, page: Page) -> dict[str, Any]:
        """Return what `/state` says of it; ages in seconds."""
        note, values = self.reading.note, self.reading.values
        now = self.until
        state = {
            "slot": self.reading.number,
            "pid": note.get("pid"),
            "worker_class": note.get("worker_class"),
            "live": self.reading.live,
            "booted": self.booted,
            "age_seconds": _rounded(time.time() - note.get("started", time.time()) - (time.monotonic() - now)),
            "heartbeat_age_seconds": _rounded(self.heartbeat),
            "timeout_seconds": note.get("timeout"),
            "requests": int(values[layout.REQUESTS]),
            "errors": int(values[layout.ERRORS]),
            "busy_seconds": round(self.reading.busy, 6),
            "busy_ratio": _rounded(self.busy_ratio),
            "in_flight": int(values[layout.ACTIVE]),
            "oldest_request_seconds": _rounded(self.oldest),
            "durations": {"bounds": BOUNDS, "counts": self.reading.file.durations(values)},
            "now": [_flight(flight, now) for flight in self.flights[:STATE_REQUESTS]],
        }
        if not self.reading.live:
            state["ended"] = _rounded(time.time() - time.monotonic() + now) if self.reading.ended else None
        return state | self._gauges(page) | self._process()

    def _gauges(self, page: Page) -> dict[str, Any]:
        """Return what the worker itself has measured of its saturation."""
        label = self.reading.label
        return {
            "capacity": _whole(page.value(catalogue.WORKER_CAPACITY, worker=label)),
            "queued": _whole(page.value(catalogue.WORKER_QUEUED, worker=label)),
            "kept_connections": _whole(page.value(catalogue.WORKER_KEPT, worker=label)),
            "lag_seconds": _rounded(page.value(catalogue.WORKER_LAG_MAX, worker=label)),
        }

    def _process(self) -> dict[str, Any]:
        """Return what the kernel says of its process; counters are the slot's, over all its workers."""
        ledger, now = self.ledger, self.ledger.now if self.ledger else None
        return {
            "cpu_seconds": _rounded(ledger.user.total + ledger.system.total) if ledger else None,
            "run_queue_seconds": _rounded(ledger.run_queue.total) if ledger and ledger.waits_known else None,
            "rss_bytes": now.rss if now else None,
            "pss_bytes": ledger.pss if ledger and now else None,
            "open_fds": now.fds if now else None,
            "threads": len(now.threads) if now else None,
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _flight(flight: dict[str, Any], now: float) -> dict[str, Any]:
    age = round(max(0.0, now - flight["start"]), 3)
    return {key: value for key, value in flight.items() if key != "start"} | {"age_seconds": age}
