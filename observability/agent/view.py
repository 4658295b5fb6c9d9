"""What the agent knows of a server: its slots, and each worker's heartbeat seen from outside."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from observability import catalogue, layout
from observability.page import Page
from observability.scrape import Reading, Scraper

STATE_REQUESTS = 20  # requests in flight that /state lists for a worker, the oldest first


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
    """One live worker at one moment."""

    reading: Reading
    heartbeat: float | None
    flights: list[dict[str, Any]]

    @property
    def booted(self) -> bool:
        """Whether it has loaded the app."""
        return bool(self.reading.note.get("booted"))

    @property
    def fresh(self) -> bool:
        """Whether its heartbeat is younger than gunicorn's timeout, as far as that can be seen."""
        timeout = float(self.reading.note.get("timeout", 0))
        return self.heartbeat is None or not timeout or self.heartbeat <= timeout

    def state(self, now: float) -> dict[str, Any]:
        """Return what `/state` says of it; ages in seconds."""
        note, values = self.reading.note, self.reading.values
        return {
            "slot": self.reading.number,
            "pid": note.get("pid"),
            "worker_class": note.get("worker_class"),
            "booted": self.booted,
            "age_seconds": round(time.time() - note.get("started", time.time()), 3),
            "heartbeat_age_seconds": None if self.heartbeat is None else round(self.heartbeat, 3),
            "requests": int(values[layout.REQUESTS]),
            "errors": int(values[layout.ERRORS]),
            "busy_seconds": round(self.reading.busy, 6),
            "in_flight": int(values[layout.ACTIVE]),
            "now": [_flight(flight, now) for flight in self.flights[:STATE_REQUESTS]],
        }


def _flight(flight: dict[str, Any], now: float) -> dict[str, Any]:
    age = round(max(0.0, now - flight["start"]), 3)
    return {key: value for key, value in flight.items() if key != "start"} | {"age_seconds": age}


class View:
    """One server, read from its state directory.

    Args:
        directory: the state directory.
        ready_workers: booted workers that make the server ready.
        master: the pid of the master that started this process; 0 for a sidecar.
    """

    def __init__(self, directory: Path, ready_workers: int = 1, master: int = 0) -> None:
        self.scraper = Scraper(directory)
        self.ready_workers = ready_workers
        self.master = master

    def look(self, *, exemplars: bool = False) -> tuple[Page, list[Reading], list[Worker]]:
        """Read everything once; the page is valid until the next look."""
        page, readings = self.scraper.scrape(exemplars=exemplars)
        workers = [
            Worker(reading, heartbeat_age(reading.note), list(reading.file.flights()))
            for reading in readings
            if reading.role == "worker" and reading.live
        ]
        return page, readings, workers

    def page(self, *, exemplars: bool) -> Page:
        """Return the metrics, with what only an onlooker can tell of a worker."""
        page, _, workers = self.look(exemplars=exemplars)
        now = time.monotonic()
        for worker in workers:
            label = worker.reading.label
            if worker.heartbeat is not None:
                page.put(catalogue.WORKER_HEARTBEAT, worker.heartbeat, worker=label)
            oldest = now - worker.flights[0]["start"] if worker.flights else 0.0
            page.put(catalogue.WORKER_OLDEST, max(0.0, oldest), worker=label)
        return page

    def state(self) -> dict[str, Any]:
        """Return the whole as one JSON-ready object."""
        _, readings, workers = self.look()
        now = time.monotonic()
        return {
            "masters": [_master(reading) for reading in readings if reading.role == "master" and reading.live],
            "workers": [worker.state(now) for worker in workers],
            "agent": {"pid": os.getpid(), "corrupt_files": {str(k): v for k, v in self.scraper.corrupt.items()}},
        }

    def live(self) -> tuple[bool, str]:
        """Tell whether the master lives and a worker's heartbeat is fresh, and why not.

        Only what is seen to be dead is dead: a full or vanished state directory is the telemetry's trouble, and no
        reason to restart a server that serves.
        """
        _, readings, workers = self.look()
        if not self.master and not any(reading.role == "master" and reading.live for reading in readings):
            return False, "no master"
        if workers and not any(worker.fresh for worker in workers):
            return False, f"no fresh heartbeat among {len(workers)} workers"
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Tell whether enough workers are booted, and how many are."""
        _, _, workers = self.look()
        booted = sum(worker.booted and worker.fresh for worker in workers)
        if not workers and (unseen := self._children()):
            return True, f"{unseen} workers run, and none could claim a slot: see the log"
        return booted >= self.ready_workers, f"{booted} workers are booted, {self.ready_workers} wanted"

    def _children(self) -> int:
        """Count the master's children besides this process."""
        try:
            children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        except OSError:
            return 0
        return len(children) - (str(os.getpid()) in children)


def _master(reading: Reading) -> dict[str, Any]:
    note = reading.note
    return {
        "pid": note.get("pid"),
        "age_seconds": round(time.time() - note.get("started", time.time()), 3),
        "worker_class": note.get("worker_class"),
        "upgraded_from": note.get("upgraded_from") or None,
    }
