"""How strict the stand-in for Grafana is: what an endpoint takes, and what it answers to everything else."""

import re
from collections.abc import Callable
from typing import Any

from flask import request

RIGHTS = frozenset(
    {
        *("folders:read", "folders:create"),
        *("dashboards:read", "dashboards:create", "dashboards:write", "dashboards:delete"),
        *("datasources:read", "datasources:create", "datasources:write", "datasources:delete", "datasources:query"),
        *("annotations:read", "annotations:create", "annotations:delete"),
    }
)
UID = re.compile(r"[a-zA-Z0-9\-_]{1,40}")
NULL = type(None)
STR, INT, BOOL = (str,), (int,), (bool,)
Json = dict[str, Any]
Fields = dict[str, tuple[type, ...]]


class Refused(Exception):
    """An answer of 400 and above."""

    def __init__(self, status: int, /, **body: Any) -> None:
        super().__init__(body)
        self.status, self.body = status, body


def endpoint(path: str, method: str, *rights: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a method as what answers to a path below /api, and to whom."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__dict__["endpoint"] = (path, method, rights)
        return function

    return mark


def typed(body: Any, fields: Fields, required: tuple[str, ...] = ()) -> Json:
    """Refuse what is no object of these fields with these types."""
    if not isinstance(body, dict):
        raise Refused(400, message="bad request data")
    for name, value in body.items():
        if name not in fields:
            raise Refused(400, message="bad request data", error=f"unknown field {name}")
        if not isinstance(value, fields[name]) or (isinstance(value, bool) and bool not in fields[name]):
            raise Refused(400, message="bad request data", error=f"{name} has the wrong type")
    for name in required:
        if body.get(name) in (None, ""):
            raise Refused(400, message="bad request data", error=f"{name} is required")
    return body


def parameters(*known: str) -> None:
    for name in request.args:
        if name not in known:
            raise Refused(400, message="bad request data", error=f"unknown parameter {name}")


def check_uid(uid: Any, what: str) -> None:
    """Identifiers: `dashboard/#identifier-id-vs-unique-identifier-uid`: at most 40 characters."""
    if not isinstance(uid, str) or not UID.fullmatch(uid):
        raise Refused(400, message=f"{what} uid is invalid: at most 40 of a-z, A-Z, 0-9, - and _")
