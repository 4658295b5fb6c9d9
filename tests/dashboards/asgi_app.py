"""The example app for a worker that speaks ASGI."""

from a2wsgi import WSGIMiddleware

from app import create_app as create_flask_app


def create_app() -> WSGIMiddleware:
    return WSGIMiddleware(create_flask_app())  # type: ignore[arg-type]
