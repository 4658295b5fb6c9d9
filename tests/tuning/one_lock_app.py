"""An app whose requests all wait for one lock, whoever serves them: no worker more can help it."""

import fcntl
import os
import time
from pathlib import Path

from flask import Flask

import observability


def create_app() -> Flask:
    """Make the app; the lock is in DATA_DIR."""
    app = Flask(__name__)
    observability.instrument(app)
    directory = Path(os.environ["DATA_DIR"])
    directory.mkdir(parents=True, exist_ok=True)

    @app.get("/")
    def index() -> str:
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(0.05)
        return "done"

    return app
