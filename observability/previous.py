"""How the server before this one ended, for the next start and for a person who asks.

A server that halts because its workers cannot boot takes its agent along, and nobody has scraped the reason. So a
master that ends writes down how, and where it could not (several workers failed at once, or it was killed), the next
one reads it from the slots, before it empties the directory.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

import orjson

from observability import catalogue, slots, store
from observability.page import Page
from observability.scrape import Reading, Scraper

FILE = "last-end.json"
_MOST_REQUESTS = 20
_KEYS = {"time", "outcome", "reason", "status", "exits", "boot_errors", "in_flight"}


def note(reason: str, status: int) -> None:
    """Note in the master's own slot how it ends; it takes no room, so it works on a full disk too.

    Args:
        reason: what gunicorn says of it; empty where it was asked to end.
        status: its exit status.
    """
    end = {"time": time.time(), "outcome": "halted" if status else "clean", "reason": reason, "status": status}
    store.STORE.slot.write_note(end=end)


def _save(directory: Path, found: dict[str, Any]) -> None:
    new = directory / f"{FILE}.new"
    new.write_bytes(orjson.dumps(found))
    new.replace(directory / FILE)


def read(directory: Path) -> dict[str, Any] | None:
    """Return how the last server of a state directory ended; None where there was none, or one lives.

    Keys: time (Unix seconds), outcome (clean, halted, killed), reason, status, exits by cause, boot_errors, in_flight.
    """
    return _from_slots(directory) or _noted(directory)


def keep(directory: Path) -> dict[str, Any] | None:
    """Write down how the last server ended before its slots are forgotten, and return it."""
    found = read(directory)
    if found is not None:
        _save(directory, found)
    return found


def _noted(directory: Path) -> dict[str, Any] | None:
    try:
        noted: dict[str, Any] = orjson.loads((directory / FILE).read_bytes())
        return noted if isinstance(noted, dict) and noted.keys() >= _KEYS else None
    except (OSError, ValueError):
        return None


def _from_slots(directory: Path) -> dict[str, Any] | None:
    """Read an end from the slots that a server left; None where a master lives, or none has been."""
    if not slots.stamped(directory) or slots.master_of(directory) is not None:
        return None
    with contextlib.closing(Scraper(directory)) as scraper:
        page, readings = scraper.scrape()
        masters = [reading.note for reading in readings if reading.role == "master"]
        if not masters:
            return None
        newest = max(masters, key=lambda note: float(note.get("started", 0.0)))
        workers = [reading for reading in readings if reading.role == "worker" and not reading.live]
        boot_errors = [
            {"pid": each.note.get("pid"), "slot": each.number, "error": each.note["boot_error"]}
            for each in workers
            if "boot_error" in each.note
        ]
        end = newest.get("end") or _unsaid(directory, newest, bool(boot_errors))
        dead_for = max(0.0, time.time() - end["time"])
        return end | {
            "exits": _exits(page),
            "boot_errors": boot_errors,
            "in_flight": [flight for each in workers for flight in _flights(each, dead_for)][:_MOST_REQUESTS],
        }


def _unsaid(directory: Path, newest: dict[str, Any], failed_to_boot: bool) -> dict[str, Any]:
    """Tell the end of a master that left no word; its time is that of its last sign of life."""
    return {
        "time": max((directory / slots.STAMP).stat().st_mtime, float(newest.get("started", 0.0))),
        "outcome": "halted" if failed_to_boot else "killed",
        "reason": "workers failed to boot" if failed_to_boot else "the master left no word",
        "status": None,
    }


def _exits(page: Page) -> dict[str, int]:
    counted = page[catalogue.EXITS.name].children if catalogue.EXITS.name in page else {}
    return {dict(labels)["cause"]: int(point.value) for labels, points in counted.items() for point in points.values()}


def _flights(reading: Reading, dead_for: float) -> list[dict[str, Any]]:
    """Return the requests that a worker died with, unless its master saw it die: then it has logged them."""
    if reading.ended:
        return []
    now = time.monotonic() - dead_for
    return [
        {
            "slot": reading.number,
            "pid": reading.note.get("pid"),
            **{key: flight[key] for key in ("method", "path", "trace_id")},
            "age_seconds": round(max(0.0, now - flight["start"]), 3),
        }
        for flight in reading.file.flights()
    ]
