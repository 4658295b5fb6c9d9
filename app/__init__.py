"""The example service: a todo API. Replace it by your own; `instrument(app)` is all it takes to be seen."""

from flask import Flask, Response

from app import cache, faults, inputs, pages, problems, todos
from app.database import Database
from app.settings import Settings
from observability import get_logger, instrument
from observability.settings import load, shown

__all__ = ["Settings", "create_app"]

_log = get_logger("app")


def create_app(settings: Settings | None = None) -> Flask:
    """Make the service; without settings, it reads them from the environment.

    Raises:
        SettingsError: the environment holds a senseless value.
    """
    app = Flask(__name__)
    instrument(app)
    settings = settings or load(Settings)
    _log.info("app.settings", settings=dict(shown(settings)))
    database = Database(settings)
    database.prepare()
    problems.install(app)
    inputs.limit_bodies(app, settings.max_body)
    app.register_blueprint(pages.blueprint(settings))
    app.register_blueprint(todos.blueprint(database, cache.make(settings)))
    if settings.faults_served:
        app.register_blueprint(faults.blueprint(database))
    elif settings.faults:
        _log.warning("faults.refused", reason="APP_ENV is production, where FAULTS_ENABLED has no effect")
    app.after_request(_harden)
    return app


def _harden(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    )
    return response
