"""What may stand in a log line: secrets are masked by key, and any object becomes plain JSON values.

`plain` never raises an `Exception`, whatever the object does, and bounds depth, items and length.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from observability.settings import MASK

DEEPEST = 6
MOST_ITEMS = 100
LONGEST = 32 * 1024
_MOST_KEYS = 4096
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # orjson's integers

SHOWN, HIDDEN, NUMBER_SHOWN = range(3)

# Long words are unmistakable wherever they stand in a key; short ones must be a word of it.
_SECRET = re.compile(
    r"passw|passphrase|secret|token|api_?key|authorization|cookie|session|credential|private_?key|access_?key"
    r"|signing_?key|encryption_?key|(?:^|_)(?:pwd|dsn|auth|jwt|bearer|otp|cvv|ssn|csrf)(?:_|$)"
)
# tokens_total=7, session_count=2 and token_expires_at=1700000000 are numbers about secrets, not secrets.
_ABOUT = re.compile(
    r"^(?:n|num|max|min)_|(?:tokens|sessions|cookies|secrets|credentials)$"
    r"|_(?:total|count|seconds|ms|bytes|size|length|len|ttl|age|expires|expires_at|expires_in|limit|rate|ratio)$"
)
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Starts at the colon of a port-like pair, so that a long text without one costs nothing.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/?#:@]{0,256}):[^\s/]{0,1024}@")
_SAYS_ITSELF = (str, BaseException, datetime, date, time, Decimal, PurePath, Enum, UUID)

_verdicts: dict[str, int] = {}


def verdict(key: str) -> int:
    """Say whether the value under a key is shown, hidden, or shown if it is a number."""
    found = _verdicts.get(key)
    if found is None:
        if len(_verdicts) >= _MOST_KEYS:
            _verdicts.clear()
        found = _verdicts[key] = _judge(key[:256])
    return found


def _judge(key: str) -> int:
    words = re.sub(r"[^a-z0-9]+", "_", _WORD_BOUNDARY.sub("_", key).lower())
    if not _SECRET.search(words):
        return SHOWN
    return NUMBER_SHOWN if _ABOUT.search(words) else HIDDEN


def hides(key: str, value: object) -> bool:
    """Tell whether a value must be masked; None says that there is none, and stays."""
    judged = verdict(key)
    return judged != SHOWN and value is not None and (judged == HIDDEN or not isinstance(value, int | float))


def text(value: str, longest: int = LONGEST) -> str:
    """Shorten a text, make it encodable, and mask the passwords of URLs in it."""
    if len(value) > longest:
        value = value[:longest]
    if "://" in value and "@" in value:
        value = _URL_PASSWORD.sub(rf"\1:{MASK}@", value)
    if not value.isascii():
        value = value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate has no UTF-8
    return value


def shown(value: object) -> str:
    """Return an object's own text, or what it is where it cannot say."""
    try:
        return text(str(value) if isinstance(value, _SAYS_ITSELF) else repr(value))
    except Exception as error:
        return f"<unprintable {type(value).__name__}: {type(error).__name__}>"


def plain(value: Any, depth: int = 0) -> Any:
    """Turn any object into what JSON has, secrets masked."""
    try:
        return _plain(value, depth)
    except Exception as error:
        return f"<unprintable {type(value).__name__}: {type(error).__name__}>"


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is float:  # orjson writes NaN and infinity as null
        return value
    if kind is str:
        return text(value)
    if kind is int:
        return value if _SMALLEST <= value <= _LARGEST else f"<integer of {value.bit_length()} bits>"
    if isinstance(value, bytes | bytearray | memoryview):
        return text(bytes(value[:LONGEST]).decode("utf-8", "backslashreplace"))
    return _structure(value, depth)


def _structure(value: Any, depth: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    elif hasattr(type(value), "_asdict"):  # a named tuple
        value = value._asdict()
    pairs = isinstance(value, Mapping) or callable(getattr(type(value), "items", None))  # HTTP headers are none
    if not pairs and not isinstance(value, list | tuple | set | frozenset):
        return shown(value)
    if depth >= DEEPEST:
        return f"<{type(value).__name__} nested too deep>"
    return _mapping(value.items(), depth + 1) if pairs else _sequence(value, depth + 1)


def _mapping(items: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in items:
        if len(result) >= MOST_ITEMS:
            result["..."] = "more left out"
            break
        name = text(key, 256) if type(key) is str else shown(key)[:256]
        result[name] = MASK if hides(name, value) else plain(value, depth)
    return result


def _sequence(items: Iterable[Any], depth: int) -> list[Any]:
    result: list[Any] = []
    for item in items:
        if len(result) >= MOST_ITEMS:
            result.append("... more left out")
            break
        # a list of pairs, such as WSGI's headers, is a mapping too
        if type(item) is tuple and len(item) == 2 and type(item[0]) is str and hides(item[0], item[1]):
            item = (item[0], MASK)
        result.append(plain(item, depth))
    return result
