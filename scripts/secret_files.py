"""The secrets that docker-compose.yml mounts: made on first use, each with a random value.

Run as a program, it makes those that are missing.
"""

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.options import ROOT
from scripts.problem import Problem, report

DIRECTORY = ROOT / ".secrets"
NAMES = ("database_password", "grafana_admin_password", "webhook_token", "control_token")
# Compose mounts the file itself, with its owner and mode, and the services run as users of their own: so the file can
# be read by all, in a directory that nobody but its owner can enter.
DIRECTORY_MODE, FILE_MODE = 0o700, 0o444


def ensure() -> None:
    """Make what containers mount and is missing; what is there stays as it is."""
    make(DIRECTORY, NAMES, FILE_MODE)


def make(directory: Path, names: Sequence[str], mode: int) -> None:
    """Make those secrets of a directory that are missing."""
    try:
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)
        for name in names:
            _make(directory / name, mode)
    except OSError as error:
        raise Problem(f"The secrets in {directory} cannot be made: {error.strerror}") from error


def _make(path: Path, mode: int) -> None:
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24))
    draft.chmod(mode)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(report(ensure))
