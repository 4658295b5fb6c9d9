"""Log lines for people: colours on a terminal, and still no value that could pass for a line of its own."""

import re
from typing import Any

from structlog.dev import ConsoleRenderer

from observability import redact

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# the same on every line of a process: for machines
_LEFT_OUT = {
    *("severity_text", "severity_number", "service.name", "service.version", "deployment.environment.name"),
    *("exception.type", "exception.message", "exception.stacktrace", "trace_flags"),
}
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARN": "warning", "ERROR": "error", "FATAL": "critical"}


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Console:
    """Renders a line's fields for a person.

    Args:
        colors: whether the reader is a terminal.
    """

    def __init__(self, colors: bool) -> None:
        self._renderer = ConsoleRenderer(colors=colors, sort_keys=False)

    def __call__(self, line: dict[str, Any], longest: int) -> bytes:
        """Render a line, and its stack trace below it, indented, in at most `longest` bytes."""
        fields: dict[str, Any] = {
            "timestamp": line["timestamp"],
            "level": _LEVELS[line["severity_text"]],
            "event": _escaped(redact.shown(line["body"])),
        }
        for key, value in line.items():
            if key not in _LEFT_OUT and key not in ("timestamp", "body"):
                shown = value if isinstance(value, str) else str(redact.plain(value))
                fields[_escaped(redact.text(key))] = _escaped(redact.text(shown))
        text = self._renderer(None, "", fields)
        for each in line.get("exception.stacktrace", "").split("\n"):
            text += f"\n    | {_escaped(redact.text(each))}" if each else ""
        data = text.encode("utf-8", "backslashreplace")
        if len(data) >= longest:
            data = data[: longest - 4].decode("utf-8", "ignore").encode() + b"..."
        return data + b"\n"
