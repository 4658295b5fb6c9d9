"""What was seen: kept as JSON beside the scenarios, written by the command alone."""

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from scripts import packages
from tests.prove.stack import WATCHDOG
from tests.prove.trial import Result

FILE: Final = Path(__file__).with_name("results.json")
TRIALS: Final = "trials"
HEALTHY: Final = "healthy"
MOST_UNRELATED: Final = 1
_KEY: Final = {TRIALS: ("scenario", "compressed"), HEALTHY: ("worker_class",)}


class Results:
    """The file's content.

    Args:
        found: as in the file.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    @classmethod
    def read(cls) -> "Results":
        """Read what was kept, if anything was."""
        return cls(json.loads(FILE.read_text()) if FILE.exists() else {TRIALS: [], HEALTHY: []})

    def begin(self, lacking: Mapping[str, str]) -> None:
        """Note what it is seen on, and drop results of scenarios that are no more."""
        self.found |= {
            **seen_on(),
            "lacking": {name: why for name, why in lacking.items() if why},
        }
        self.found[TRIALS] = [each for each in self.found[TRIALS] if each["scenario"] in lacking]

    def add(self, kind: str, result: Result) -> None:
        """Put a result in the place of the last one of its kind."""
        others = [each for each in self.found[kind] if key(kind, each) != key(kind, result)]
        self.found[kind] = sorted([*others, result], key=lambda each: str(key(kind, each)))

    def keep(self, kind: str, result: Result) -> list[str]:
        """Keep a result at once, and say what was not as it should be."""
        self.add(kind, result)
        self.write()
        return wrong(kind, result)

    def write(self) -> None:
        """Write the file."""
        FILE.write_text(json.dumps(self.found, indent=1) + "\n")


def key(kind: str, result: Result) -> tuple[Any, ...]:
    """Return what names a result among those of its kind."""
    return tuple(result[name] for name in _KEY[kind])


def wrong(kind: str, result: Result) -> list[str]:
    """Say what was not as it should be."""
    # Prometheus repeats an alert once a minute: one that it lost at its start may not have come in a shorter run.
    missed = not result["watchdog"] and result["seconds"] > 90
    found = [f"{WATCHDOG} was not told of"] if missed else []
    if kind == HEALTHY:
        return found + [f"{alert} fired" for alert in result["fired"]]
    found += [f"{alert} did not fire" for alert, seen in result["alerts"].items() if not seen["fired"]]
    if result["compressed"]:
        found += [f"{alert} was not over" for alert, seen in result["alerts"].items() if seen["over_seconds"] is None]
    if len(result["unrelated"]) > MOST_UNRELATED:
        found.append(f"unrelated: {', '.join(result['unrelated'])}")
    return found + [f"{alert} fired before the fault" for alert in result["before"]]


def seen_on() -> dict[str, Any]:
    """Return when and on what something is seen."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"cores": len(os.sched_getaffinity(0)), "kernel": platform.release()},
        "versions": {"python": platform.python_version(), **dict(_versions())},
    }


def _versions() -> Iterator[tuple[str, str]]:
    for tool in (packages.PROMETHEUS, packages.ALERTMANAGER):
        if path := tool.path():
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            found = re.search(r"version (\S+)", said.stdout + said.stderr)
            yield Path(path).name.removeprefix("prometheus-"), found[1] if found else ""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], capture_output=True, text=True, check=False
    )
    yield "commit", described.stdout.strip()
