"""What the agent knows of a server: its slots, and what an onlooker sees of it."""

import os
import time
from pathlib import Path
from typing import Any

from observability import catalogue, limits
from observability.agent.outside import Outside
from observability.agent.worker import Worker
from observability.page import Page
from observability.probes import cgroup
from observability.probes.busy import Window
from observability.scrape import Reading, Scraper

_MOST_EXITS = 10


class View:
    """One server, read from its state directory and from the kernel.

    Args:
        directory: the state directory.
        ready_workers: booted workers that make the server ready.
        master: the pid of the master that started this process; 0 for a sidecar.
    """

    def __init__(self, directory: Path, ready_workers: int = 1, master: int = 0) -> None:
        self.directory = directory
        self.scraper = Scraper(directory)
        self.ready_workers = ready_workers
        self.master = master
        self.outside = Outside(sidecar=not master)
        self.observed_at = 0.0  # monotonic seconds
        self._window = Window()

    def look(self, *, exemplars: bool = False) -> tuple[Page, list[Reading], list[Worker]]:
        """Read all slots once; the page is valid until the next look."""
        page, readings = self.scraper.scrape(exemplars=exemplars)
        return page, readings, [Worker.of(reading) for reading in readings if reading.role == "worker" and reading.live]

    def observe(self, *, exemplars: bool = False) -> tuple[Page, list[Reading], list[Worker]]:
        """Read all slots, and what only an onlooker can tell, onto the page."""
        self.observed_at = time.monotonic()
        page, readings, workers = self.look(exemplars=exemplars)
        masters = [reading for reading in readings if reading.role == "master" and reading.live]
        self.outside.look(masters, [reading for reading in readings if reading.role == "worker"])
        self.outside.put(page)
        for worker in workers:
            worker.ledger = self.outside.ledgers.get(worker.reading.number)
        ratios = self._window.ratios(self.observed_at, {each.reading.label: each.mark(page) for each in workers})
        for worker in workers:
            label = worker.reading.label
            worker.busy_ratio = ratios.get(label)
            if worker.busy_ratio is not None:
                page.put(catalogue.WORKER_BUSY_RATIO, worker.busy_ratio, worker=label)
            if worker.heartbeat is not None:
                page.put(catalogue.WORKER_HEARTBEAT, worker.heartbeat, worker=label)
            page.put(catalogue.WORKER_OLDEST, worker.oldest, worker=label)
        return page, readings, workers

    def page(self, *, exemplars: bool) -> Page:
        """Return the metrics."""
        return self.observe(exemplars=exemplars)[0]

    def state(self, *, dead: bool = False) -> dict[str, Any]:
        """Return the whole as one JSON-ready object.

        Args:
            dead: whether slots whose last owner is dead are listed too, as it left them.
        """
        page, readings, workers = self.observe()
        masters = [reading for reading in readings if reading.role == "master"]
        state = {
            "time": round(time.time(), 3),
            "masters": [_master(reading) for reading in masters if reading.live],
            "server": self._server(page, masters, workers),
            "workers": [worker.state(page) for worker in workers],
            "agent": {"pid": os.getpid(), "corrupt_files": {str(k): v for k, v in self.scraper.corrupt.items()}},
        }
        if dead:
            left = (reading for reading in readings if reading.role == "worker" and not reading.live)
            state["dead"] = [Worker.of(reading).state(page) for reading in left]
        return state

    def _server(self, page: Page, masters: list[Reading], workers: list[Worker]) -> dict[str, Any]:
        target = page.value(catalogue.WORKERS, "target")
        ratios = [worker.busy_ratio for worker in workers if worker.busy_ratio is not None]
        group = cgroup.directory_of(self.master) if self.master else None
        exits = page.get(catalogue.EXITS.name)
        return {
            "workers_target": None if target is None else int(target),
            "workers_live": sum(worker.reading.forked for worker in workers),
            "busy_ratio": round(sum(ratios) / len(ratios), 3) if ratios else None,
            "listeners": [_listener(address, found) for address, found in self.outside.listeners.items()],
            "cpu_quota": limits.cpus(group) if self.master else None,
            "memory_limit_bytes": limits.memory(group) if self.master else None,
            "memory_used_bytes": self.outside.usage.memory_used,
            "exits": {
                labels[0][1]: int(point.value)
                for labels, points in (exits.children if exits else {}).items()
                for point in points.values()
                if point.seen
            },
            "last_exits": _last_exits(masters),
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


def _listener(address: str, found: list[Any]) -> dict[str, Any]:
    known = all(each.limit is not None for each in found)
    return {
        "address": address,
        "kind": found[0].kind,
        "backlog": sum(each.backlog for each in found),
        "backlog_limit": sum(each.limit for each in found) if known else None,
    }


_EXIT = ("time", "slot", "pid", "cause", "signal", "code", "age_seconds", "requests")


def _last_exits(masters: list[Reading]) -> list[dict[str, Any]]:
    """Return the last exits that the masters have noted, the newest last."""
    noted = [dict(zip(_EXIT, each, strict=False)) for reading in masters for each in reading.note.get("exits", ())]
    return sorted(noted, key=lambda each: float(each["time"]))[-_MOST_EXITS:]
