"""An app whose every request asks another service, at UPSTREAM_URL, as most services do."""

import os

import requests
from flask import Flask

import observability


def create_app() -> Flask:
    """Make the app."""
    app = Flask(__name__)
    observability.instrument(app)

    @app.get("/ask")
    def ask() -> str:
        return requests.get(os.environ["UPSTREAM_URL"], timeout=30).text

    return app
