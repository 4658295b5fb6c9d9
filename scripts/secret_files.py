"""The secrets that docker-compose.yml mounts: made on first use, each with a random value.

Run as a program, it makes those that are missing.
"""

import os
import secrets
import sys

from scripts.options import ROOT
from scripts.problem import Problem, report

DIRECTORY = ROOT / ".secrets"
NAMES = ("database_password", "grafana_admin_password")
# Compose mounts the file itself, with its owner and mode, and the services run as users of their own: so the file can
# be read by all, in a directory that nobody but its owner can enter.
DIRECTORY_MODE, FILE_MODE = 0o700, 0o444


def ensure() -> None:
    """Make what is missing; what is there stays as it is."""
    try:
        DIRECTORY.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        DIRECTORY.chmod(DIRECTORY_MODE)
        for name in NAMES:
            _make(name)
    except OSError as error:
        raise Problem(f"The secrets in {DIRECTORY} cannot be made: {error.strerror}") from error


def _make(name: str) -> None:
    path = DIRECTORY / name
    if path.exists():
        return
    draft = DIRECTORY / f"{name}.draft"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24))
    draft.chmod(FILE_MODE)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(report(ensure))
