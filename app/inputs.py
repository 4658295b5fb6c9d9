"""What a client sends, checked against a typed struct; what is wrong is named, field by field."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import msgspec
from flask import Flask, request
from msgspec.structs import FieldInfo
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.problems import Problem

T = TypeVar("T", bound=msgspec.Struct)
MAX_ERRORS = 20  # named in one answer
MAX_NAME = 100  # characters of a client's field name that are echoed

Errors = dict[str, str]  # field name ("" for the whole) to what is wrong with it


def limit_bodies(app: Flask, size: int) -> None:
    """Refuse bodies of more than `size` bytes.

    Werkzeug is told one more: it refuses a longer Content-Length, but cuts a body in chunks silently there.
    """
    app.config["MAX_CONTENT_LENGTH"] = size + 1


def body(kind: type[T]) -> T:
    """Read the request's JSON body.

    Raises:
        Problem: 415 another media type, 413 too large, 400 no JSON, 422 not of this kind.
    """
    _check_media_type()
    try:
        return _decode(_read(), kind)
    except UnicodeDecodeError:
        raise Problem(HTTPStatus.BAD_REQUEST, "The body is not UTF-8.") from None
    except RecursionError:
        raise Problem(HTTPStatus.BAD_REQUEST, "The body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The body cannot be read as JSON: {error}.") from None


def query(kind: type[T]) -> T:
    """Read the request's query parameters.

    Raises:
        Problem: 400 not of this kind.
    """
    raw = request.args.to_dict()
    errors = {name: "is given more than once" for name, values in request.args.lists() if len(values) > 1}
    try:
        value = msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        errors |= _errors(raw, kind, strict=False) or {"": str(error)}
    if errors:
        named = [_with_parameter(name, text) for name, text in errors.items()]
        raise Problem(HTTPStatus.BAD_REQUEST, "The query is not valid.", named[:MAX_ERRORS])
    return value


def _with_parameter(name: str, text: str) -> dict[str, str]:
    return {"parameter": name[:MAX_NAME], "detail": text} if name else {"detail": text}


def _check_media_type() -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body has to be application/json, in UTF-8.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(  # RFC 9110, 12.5.3: says which encodings are taken
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The body has to come without a content encoding.",
            headers={"Accept-Encoding": "identity"},
        )


def _read() -> bytes:
    try:
        data = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as error:  # servers raise what they like: gunicorn, a ParseException for a broken chunk
        raise Problem(HTTPStatus.BAD_REQUEST, "The body cannot be read to its end.") from error
    if request.max_content_length is not None and len(data) >= request.max_content_length:
        raise RequestEntityTooLarge
    return data


def _decode(data: bytes, kind: type[T]) -> T:
    """Take the short way for what is valid, and the long way to say what is not."""
    try:
        value = msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raw = msgspec.json.decode(data)
        _refuse(_errors(raw, kind, strict=True) or _repeated(data) or {"": str(error)})
    if errors := _repeated(data):
        _refuse(errors)
    return value


def _refuse(errors: Errors) -> NoReturn:
    named = [{"pointer": _pointer(name), "detail": text} for name, text in errors.items()]
    raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The body is not valid.", named[:MAX_ERRORS])


def _pointer(name: str) -> str:
    """Point at a field, as RFC 6901 escapes it."""
    return "#/" + name[:MAX_NAME].replace("~", "~0").replace("/", "~1") if name else "#"


def _errors(raw: Any, kind: type[T], *, strict: bool) -> Errors:
    if not isinstance(raw, dict):
        return {"": "Expected an object"}
    known = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    errors = {name: "is not known" for name in raw if name not in known}
    for name, each in known.items():
        if text := _error(raw, name, each, strict=strict):
            errors[name] = text
    return errors


def _error(raw: Mapping[str, Any], name: str, each: FieldInfo, *, strict: bool) -> str:
    if name not in raw:
        return "is required" if each.required else ""
    try:
        msgspec.convert(raw[name], each.type, strict=strict)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _repeated(data: bytes) -> Errors:
    """Find names that stand twice in an object; readers differ on which one counts (RFC 8259, 4)."""
    errors: Errors = {}

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                errors[name] = "is given more than once"
            seen.add(name)

    json.loads(data, object_pairs_hook=note)
    return errors
