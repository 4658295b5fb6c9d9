"""How the server before this one ended, for the next start and for a person who asks.

A server that halts because its workers cannot boot takes its agent along, and nobody has scraped the reason. So a
master that ends writes down how, and where it could not (several workers failed at once, or it was killed), the next
one reads it from the slots, before it empties the directory.
"""

import os
import time
from pathlib import Path
from typing import Any

import orjson

from observability import catalogue, layout, slots
from observability.scrape import Reading, Scraper

FILE = "last-end.json"
_MOST_REQUESTS = 20


def write(directory: Path, outcome: str, reason: str, status: int) -> None:
    """Write down how this server ends; called by its master when no worker is left.

    Args:
        directory: the state directory.
        outcome: `clean`, or `halted`.
        reason: what gunicorn says of it.
        status: the master's exit status.
    """
    _save(directory, _account(directory) | {"outcome": outcome, "reason": reason, "status": status})


def _save(directory: Path, found: dict[str, Any]) -> None:
    new = directory / f"{FILE}.new"
    new.write_bytes(orjson.dumps(found))
    new.replace(directory / FILE)


def read(directory: Path) -> dict[str, Any] | None:
    """Return how the last server of a state directory ended; None where there was none, or one lives.

    Keys: time (Unix seconds), outcome (clean, halted, killed), reason, status, exits by cause, boot_errors, in_flight.
    """
    noted = _noted(directory)
    found = _from_slots(directory)
    if found is not None and (noted is None or noted["time"] < found["started"]):
        return {key: value for key, value in found.items() if key != "started"}
    return noted


def keep(directory: Path) -> dict[str, Any] | None:
    """Write down how the last server ended before its slots are forgotten, and return it."""
    found = read(directory)
    if found is not None:
        _save(directory, found)
    return found


def _noted(directory: Path) -> dict[str, Any] | None:
    try:
        noted: dict[str, Any] = orjson.loads((directory / FILE).read_bytes())
        return noted if isinstance(noted, dict) and isinstance(noted.get("time"), int | float) else None
    except (OSError, ValueError):
        return None


def _from_slots(directory: Path) -> dict[str, Any] | None:
    """Read an end that its master could not write down; None where a master lives, or none has been."""
    if not slots.stamped(directory) or slots.master_of(directory) is not None:
        return None
    _, readings = _scraped(directory)
    masters = [reading for reading in readings if reading.role == "master"]
    if not masters:
        return None
    account = _account(directory)
    outcome = "halted" if account["boot_errors"] else "killed"
    reason = "workers failed to boot" if account["boot_errors"] else "the master left no word"
    started = max(reading.note.get("started", 0.0) for reading in masters)
    return account | {
        "time": max((directory / slots.STAMP).stat().st_mtime, started),  # the last sign of life
        "outcome": outcome,
        "reason": reason,
        "status": None,
        "started": started,
    }


def _scraped(directory: Path) -> tuple[Any, list[Reading]]:
    return Scraper(directory).scrape()


def _account(directory: Path) -> dict[str, Any]:
    """Sum up what the slots hold."""
    page, readings = _scraped(directory)
    counted = page[catalogue.EXITS.name].children if catalogue.EXITS.name in page else {}
    workers = [reading for reading in readings if reading.role == "worker" and not reading.live]
    return {
        "time": time.time(),
        "exits": {
            dict(labels)["cause"]: int(point.value) for labels, points in counted.items() for point in points.values()
        },
        "boot_errors": [
            {"pid": each.note.get("pid"), "slot": each.number, "error": each.note["boot_error"]}
            for each in workers
            if "boot_error" in each.note
        ],
        "in_flight": [flight for each in workers for flight in _flights(each)][:_MOST_REQUESTS],
    }


def _flights(reading: Reading) -> list[dict[str, Any]]:
    """Return the requests that a worker died with, unless its master saw it die: then it has logged them."""
    header = os.pread(reading.file.fd, layout.HEADER_SIZE, 0)
    if layout.ENDED.unpack_from(header, layout.ENDED_AT)[0]:
        return []
    now = time.monotonic()
    return [
        {
            "slot": reading.number,
            "pid": reading.note.get("pid"),
            **{key: flight[key] for key in ("method", "path", "trace_id")},
            "age_seconds": round(max(0.0, now - flight["start"]), 3),
        }
        for flight in reading.file.flights()
    ]
