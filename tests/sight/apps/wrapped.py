"""The probe's Flask app for a worker that speaks ASGI: the Flask app is the instrumented one."""

from a2wsgi import WSGIMiddleware

from tests import probe_app


def create_app() -> WSGIMiddleware:
    return WSGIMiddleware(probe_app.create_app())  # type: ignore[arg-type]
