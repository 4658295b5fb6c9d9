"""One log line: a JSON object that nothing in it can break, forge, or make too long."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from observability import redact
from observability.settings import MASK

# JSON allows these unescaped, but terminals and readers of lines act on them: DEL and C1 controls, the line and
# paragraph separators, and what reverses the direction of text.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SIMPLE = frozenset({int, float, bool, type(None)})
_TRUNCATED = "log.truncated"
_LONGEST_KEY = 128
_MOST_KEYS = 4096
_keys: dict[str, tuple[str, int]] = {}
_SMALLEST_SHARE = 64  # no id and no timestamp is longer
_KEEPS_ITS_END = "exception.stacktrace"
RESERVED = {
    *("timestamp", "severity_text", "severity_number", "body", "logger", "event.name"),
    *("service.name", "service.version", "deployment.environment.name", "process.pid", "worker"),
    *("trace_id", "span_id", "trace_flags"),
    *("exception.type", "exception.message", "exception.stacktrace"),
}


def _escaped(found: "re.Match[str]") -> str:
    return f"\\u{ord(found[0]):04x}"


def dumps(value: Any) -> bytes:
    """Encode to JSON; control characters of all kinds are escaped.

    Raises:
        TypeError: a value that JSON has no place for; `redact.plain` makes one of anything.
    """
    data = orjson.dumps(value)
    if data.isascii() and b"\x7f" not in data:
        return data
    return _UNSAFE.sub(_escaped, data.decode()).encode()


def encode(line: dict[str, Any], longest: int) -> bytes:
    """Encode a line, its line feed included, in at most `longest` bytes."""
    try:
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        line = {redact.text(str(key), 256): redact.plain(value) for key, value in line.items()}
        data = dumps(line) + b"\n"
    if not data.isascii() or b"\x7f" in data:
        data = _UNSAFE.sub(_escaped, data.decode()).encode()
    return data if len(data) <= longest else shortened(line, longest - 1) + b"\n"


def add(line: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Add fields to a line: secrets masked, and no field in the place of one that Sightline writes."""
    for key, value in fields.items():
        name, judged = _keys.get(key) or _admit(key)
        if judged != redact.SHOWN and redact.hides(name, value):
            line[name] = MASK
        elif type(value) is str:
            line[name] = value if len(value) < 1024 and "://" not in value else redact.text(value)
        else:
            line[name] = value if type(value) in _SIMPLE else redact.plain(value)


def _admit(key: Any) -> tuple[str, int]:
    """Say under which name a field stands in a line, and whether it is a secret's."""
    name = key if type(key) is str else redact.shown(key)
    name = redact.text(name, _LONGEST_KEY)
    judged = redact.verdict(name)
    if name in RESERVED:
        name = "field." + name
    if type(key) is str:
        if len(_keys) >= _MOST_KEYS:
            _keys.clear()
        _keys[key] = name, judged
    return name, judged


def shortened(line: Mapping[str, Any], longest: int) -> bytes:
    """Encode a line in at most `longest` bytes: its longest values give way first, then its last fields."""
    texts = {key: value if isinstance(value, str) else dumps(value).decode() for key, value in line.items()}
    sizes = {key: len(dumps(value)) for key, value in line.items()}
    overhead = sum(len(dumps(key)) + 2 for key in line) + len(_TRUNCATED) + 10
    share = _share(sorted(sizes.values()), longest - overhead)
    short = {
        key: value if sizes[key] <= share else _cut(texts[key], share, key == _KEEPS_ITS_END)
        for key, value in line.items()
    }
    short[_TRUNCATED] = True
    return _without_last_fields(short, longest)


def _share(sizes: list[int], room: int) -> int:
    """Return the most bytes a value may have so that all fit: what short values leave, long ones share."""
    for index, size in enumerate(sizes):
        share = room // (len(sizes) - index)
        if size > share:
            return max(share, _SMALLEST_SHARE)
        room -= size
    return max(sizes, default=0)


def _cut(value: str, most: int, keep_end: bool) -> str:
    """Cut a text so that its JSON takes at most `most` bytes."""
    while value and (size := len(dumps(value))) > most:
        keep = min(len(value) - 1, len(value) * most // size)
        value = value[len(value) - keep :] if keep_end else value[:keep]
    return value


def _without_last_fields(line: dict[str, Any], longest: int) -> bytes:
    data = dumps(line)
    names = [key for key in line if key not in RESERVED and key != _TRUNCATED]
    while len(data) > longest and names:
        for key in names[len(names) // 2 :]:
            del line[key]
        del names[len(names) // 2 :]
        data = dumps(line)
    return data
