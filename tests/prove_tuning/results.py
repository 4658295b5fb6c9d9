"""What was seen: kept as JSON beside the scenarios, written by the command alone."""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.prove.results import seen_on
from tests.prove_tuning.trial import Result

FILE: Final = Path(__file__).with_name("results.json")
TRIALS: Final = "trials"
DAYS: Final = "days"
_ROW: Final = re.compile(r'\{\s*("t": [^{}]*?)\s*\}')


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
        with _locked():
            return cls(_kept())

    def begin(self, lacking: Mapping[str, str]) -> None:
        """Note what it is seen on, and drop results of scenarios that are no more.

        Args:
            lacking: why this machine cannot run a scenario, or nothing, by the name of each.
        """
        self.found |= seen_on()
        self.found["lacking"] = {name: why for name, why in lacking.items() if why}
        self.found[TRIALS] = [each for each in self.found[TRIALS] if each["scenario"] in lacking]

    def trial(self, name: str) -> Result | None:
        """Return what was seen in a scenario, if it was run."""
        return next((each for each in self.found[TRIALS] if each["scenario"] == name), None)

    def keep(self, result: Result) -> list[str]:
        """Put a result in the place of the last one of its scenario, and say what was not met."""
        with _locked():
            self._take_over()
            others = [each for each in self.found[TRIALS] if each["scenario"] != result["scenario"]]
            self.found[TRIALS] = sorted([*others, result], key=lambda each: str(each["scenario"]))
            self.write()
        return wrong(result)

    def keep_days(self, result: dict[str, Any]) -> list[str]:
        """Keep the simulated days."""
        with _locked():
            self._take_over()
            self.found[DAYS] = result
            self.write()
        return []

    def _take_over(self) -> None:
        """Take over what another command has kept since."""
        since = _kept()
        self.found |= {name: since[name] for name in (TRIALS, DAYS) if name in since}

    def write(self) -> None:
        """Write the file; a moment of a time line is a line of it."""
        text = json.dumps(self.found, indent=1)
        FILE.write_text(_ROW.sub(lambda row: "{" + re.sub(r"\s*\n\s*", " ", row[1]) + "}", text) + "\n")


@contextmanager
def _locked() -> Iterator[None]:
    """Keep other commands, and threads, away from the file; the lock is its directory's, which is always there."""
    directory = os.open(FILE.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {TRIALS: []}
    return found


def wrong(result: Result) -> list[str]:
    """Say what was not met."""
    return [f"{each['what']} ({each['seen']})" for each in result["checks"] if not each["met"]]
