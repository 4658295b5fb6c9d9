"""The app itself, watched by nothing: the todo list without its database, and routes by the number."""

from flask import Flask, Response, jsonify

ROUTES = 500
_TODOS = [
    {
        "id": number,
        "title": f"Water the plants of the {number}th floor",
        "notes": "",
        "done": number % 2 == 0,
        "created_at": "2026-01-01T08:00:00Z",
        "updated_at": "2026-01-01T08:00:00Z",
    }
    for number in range(1, 6)
]


def create_app() -> Flask:
    """Make the app."""
    app = Flask("todos")

    @app.get("/todos")
    def index() -> Response:
        return jsonify(items=_TODOS, links={"next": None, "prev": None})

    @app.get("/status/<int:status>")
    def answer(status: int) -> tuple[str, int]:
        return "answered\n", status

    for number in range(ROUTES):
        app.add_url_rule(f"/routes/{number}/<name>", f"route-{number}", _named)
    return app


def _named(name: str) -> str:
    return name
