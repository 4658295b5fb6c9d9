"""Every error is a problem document (RFC 9457), whatever raised it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.urls import iri_to_uri

MEDIA_TYPE = "application/problem+json"
INVALID = "urn:sightline:problem:invalid"  # the request was read, and `errors` says what is wrong with it
_ABOUT_STATUS = "about:blank"  # RFC 9457, 4.2.1: means no more than its status
_KEPT_HEADERS = ("Allow", "Retry-After", "Accept-Encoding")


class Problem(HTTPException):
    """A request that fails, and what the client is told of it.

    Args:
        status: the HTTP status.
        detail: one sentence for the person at the other end.
        errors: what is wrong, each with `detail` and either `pointer` (into the body) or `parameter`.
        headers: further response headers.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = int(status)
        self.errors = errors
        self.headers = dict(headers or {})


def install(app: Flask) -> None:
    """Answer every error of the app with a problem document.

    An uncaught exception arrives here as an InternalServerError, after Flask has logged it and told the
    listeners of `got_request_exception`; its text stays inside.
    """
    app.register_error_handler(HTTPException, _respond)


def _respond(error: HTTPException) -> Any:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect, or a response made by hand
        return error
    response = Response(msgspec.json.encode(_document(error)), status=error.code, content_type=MEDIA_TYPE)
    for name, value in error.get_headers():
        if name in _KEPT_HEADERS:
            response.headers[name] = value
    response.headers.update(getattr(error, "headers", {}))
    return response


def _document(error: HTTPException) -> dict[str, Any]:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    errors = getattr(error, "errors", ())
    document = {
        "type": INVALID if errors else _ABOUT_STATUS,
        "title": status.phrase,
        "status": int(status),
        "detail": error.description or status.description,
        "instance": iri_to_uri(request.path),
    }
    return document | {"errors": errors} if errors else document
