"""The tuner's small web server: Alertmanager's webhook, its metrics, what it decided, and its health."""

from collections.abc import Callable
from typing import Any

import msgspec
from flask import Flask, Response, request

from observability import catalogue, exposition
from observability.tuning.memory import MOST_ENTRIES, Memory
from observability.tuning.tally import Tally
from observability.tuning.voice import Voice
from observability.tuning.webhook import MOST_BYTES, Inbox, MalformedError, Token, parse

_USUAL_ENTRIES = 100
_REFUSED = ("unauthorized", "malformed", "dropped")
_TEXT = "text/plain; charset=utf-8"
Health = Callable[[], tuple[bool, str]]


def create_tuner_app(
    inbox: Inbox, token: Token, memory: Memory, tally: Tally, voice: Voice, live: Health, ready: Health
) -> Flask:
    """Make the tuner's HTTP interface; all of it only reads, but for what the webhook puts into the inbox."""
    app = Flask("observability.tuning")

    @app.post("/alerts")
    def alerts() -> Response:
        status, result, detail = _take(inbox, token, ready)
        if result:
            tally.count(catalogue.TUNER_WEBHOOKS, result)
        _tell(voice, result, detail)
        return _plain(status, detail)

    @app.get("/metrics")
    def metrics() -> Response:
        content_type = exposition.negotiate(request.headers.get("Accept", ""))
        return Response(exposition.write(tally.page(), content_type), content_type=content_type)

    @app.get("/decisions")
    def decisions() -> Response:
        return _decisions(memory)

    @app.get("/livez")
    def livez() -> Response:
        return _health(live())

    @app.get("/readyz")
    def readyz() -> Response:
        return _health(ready())

    @app.get("/")
    def index() -> Response:
        return _plain(200, "/metrics\n/decisions?after=ID&limit=N\n/livez\n/readyz\nPOST /alerts")

    return app


def _take(inbox: Inbox, token: Token, ready: Health) -> tuple[int, str, str]:
    """Take one notification: its status, how it is counted, and what is said to whoever sent it."""
    if token.path is None:
        return 404, "", "no webhook without TUNER_WEBHOOK_TOKEN_FILE"
    if not token.matches(request.headers.get("Authorization", "")):
        return 401, "unauthorized", "the token is wrong, or missing"
    if (request.content_length or 0) > MOST_BYTES:
        return 413, "malformed", f"the body is larger than {MOST_BYTES} bytes"
    body = request.environ["wsgi.input"].read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        return 413, "malformed", f"the body is larger than {MOST_BYTES} bytes"
    try:
        notification = parse(body)
    except MalformedError as error:
        return 400, "malformed", str(error)
    if not ready()[0]:
        return 503, "dropped", ready()[1]  # Alertmanager sends it again
    result = inbox.take(notification)
    return (503, result, "too many wait") if result == "dropped" else (202, result, result)


def _tell(voice: Voice, result: str, detail: str) -> None:
    """Say when notifications begin to be refused, and no more until one is taken."""
    if result in _REFUSED:
        voice.once("webhook", result, "a notification is refused", reason=detail)
    elif result:
        for each in _REFUSED:
            voice.once("webhook", each)


def _decisions(memory: Memory) -> Response:
    try:
        after, limit = _number("after"), _number("limit")
    except ValueError as error:
        return _plain(400, str(error))
    wanted = min(MOST_ENTRIES, _USUAL_ENTRIES if limit is None else limit)
    found = memory.entries(after, wanted) if wanted else []
    return Response(msgspec.json.encode({"decisions": found}), content_type="application/json")


def _number(name: str) -> int | None:
    given = request.args.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise ValueError(f"{name} takes a whole number")
    return int(given)


def _health(found: tuple[bool, str]) -> Response:
    return _plain(200 if found[0] else 503, found[1])


def _plain(status: int, text: Any) -> Response:
    return Response(f"{text}\n", status, content_type=_TEXT)
