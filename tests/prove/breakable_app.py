"""The example app, whose start can be broken while it is served: by a file whose path is in BREAKS_THE_START."""

import os
import sys
from pathlib import Path

import app


def create_app() -> object:
    """Make the app, or fail as the file says: `raise` halts gunicorn, anything else has it try again and again."""
    how = Path(os.environ["BREAKS_THE_START"])
    if how.exists():
        if how.read_text() == "raise":
            raise RuntimeError("broken on purpose")
        sys.exit(1)
    return app.create_app()
