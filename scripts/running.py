"""What `make up` left running, so that down, status and logs need no settings."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from scripts.options import Options
from scripts.problem import Problem

FILE = "running.json"


def remember(options: Options) -> None:
    """Note the options in force; `mode` is the one that was chosen."""
    options.run.mkdir(parents=True, exist_ok=True)
    draft = options.run / f"{FILE}.draft"
    draft.write_text(json.dumps(asdict(options)))
    draft.replace(options.run / FILE)


def recall(options: Options) -> Options | None:
    """Return the options in force in this state directory; None if nothing was left running."""
    try:
        return replace(options, **json.loads((options.run / FILE).read_text()) | {"run_dir": options.run_dir})
    except (OSError, ValueError, TypeError):
        return None


def forget(options: Options) -> None:
    """Drop the note."""
    (options.run / FILE).unlink(missing_ok=True)


@contextmanager
def alone(options: Options) -> Iterator[None]:
    """Let no second `make up` or `make down` work in the same state directory meanwhile."""
    options.run.mkdir(parents=True, exist_ok=True)
    with (options.run / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(f"Another `make up` or `make down` is at work in {options.run_dir}: wait for it") from None
        yield
