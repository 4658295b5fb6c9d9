"""The example app, whose start can be broken as tests/prove/breakable_app.py's can, where the check does not see it."""

import sys

import app
from tests.prove import breakable_app


def create_app() -> object:
    """Make the app, or fail; never in `gunicorn --check-config`."""
    return app.create_app() if "--check-config" in sys.argv else breakable_app.create_app()
