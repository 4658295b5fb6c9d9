"""The app, watched by Sightline."""

from flask import Flask

from bench.apps import todos
from observability import instrument


def create_app() -> Flask:
    """Make the app."""
    return instrument(todos.create_app())
