"""An app whose requests need CPU time: so much of it, and not so much of the clock."""

import time

from flask import Flask, jsonify, request

import observability


def create_app() -> Flask:
    """Make the app."""
    app = Flask(__name__)
    observability.instrument(app)

    @app.get("/compute")
    def compute() -> object:
        seconds, started = float(request.args.get("seconds", "0.05")), time.monotonic()
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return jsonify(did={"seconds": round(time.monotonic() - started, 4)})

    return app
