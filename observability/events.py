"""One event is one line: what stands in it, in what form, and that it is counted.

Names follow OpenTelemetry's log data model. Nothing here raises, and no lock is held over a write: what cannot be
written is counted.
"""

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from observability import catalogue, context, lines, redact, store
from observability.stdout import Output

# https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
SEVERITIES = {
    "debug": ("DEBUG", 5),
    "info": ("INFO", 9),
    "warning": ("WARN", 13),
    "error": ("ERROR", 17),
    "critical": ("FATAL", 21),
}
NUMBERS = {name: getattr(logging, name.upper()) for name in SEVERITIES}
_MOST_FRAMES = 50

output = Output()
encode: Callable[[dict[str, Any], int], bytes] = lines.encode  # the form: a line's fields, and its most bytes
threshold = logging.INFO
process: dict[str, Any] = {"process.pid": os.getpid()}
_second = (0, "")
_written: dict[str, Any] = {}  # the recorder of each level


def bind_process(**fields: Any) -> None:
    """Add fields to every line of this process from now on, such as `worker`."""
    global process
    process = process | fields


def _after_fork() -> None:
    global process
    process = {key: value for key, value in process.items() if key != "worker"} | {"process.pid": os.getpid()}


os.register_at_fork(after_in_child=_after_fork)


def timestamp() -> str:
    """Return the time as RFC 3339 has it; the text up to the second is made once a second."""
    global _second
    begun, text = _second
    now = time.time_ns()
    if not 0 <= now - begun < 1_000_000_000:
        begun = now - now % 1_000_000_000
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(begun // 1_000_000_000))
        _second = (begun, text)
    return f"{text}{str((now - begun) // 1000 + 1_000_000)[1:]}Z"


def begin(level: str, body: str, request: context.RequestContext | None) -> dict[str, Any]:
    """Begin a line: what every line has."""
    text, number = SEVERITIES[level]
    line = {"timestamp": timestamp(), "severity_text": text, "severity_number": number, "body": body, **process}
    if request is not None:
        line["trace_id"] = request.trace_id
        if request.span_id:  # of a request that another process speaks of, only the trace is known
            line["span_id"] = request.span_id
            line["trace_flags"] = request.trace_flags
    return line


def put(level: str, data: bytes) -> None:
    """Write an encoded line, and count it."""
    if output.write(data):
        recorder = _written.get(level)
        if recorder is None:
            recorder = _written[level] = store.child(catalogue.LOG_MESSAGES, level)
        recorder.inc()
    else:
        store.child(catalogue.LOG_LINES_DROPPED).inc()


def lost() -> None:
    """Count a line that could not be made or written."""
    with contextlib.suppress(Exception):  # the last line of defence: there is nobody left to tell
        store.child(catalogue.LOG_LINES_DROPPED).inc()


def emit(
    level: str,
    event_name: str,
    fields: Mapping[str, Any],
    request: context.RequestContext | None = None,
    body: str = "",
) -> None:
    """Write one event at little cost: one encoding, one system call.

    Args:
        level: debug, info, warning, error, or critical.
        event_name: what happened, as `event.name`.
        fields: what is known of it; values under secret-like keys are masked.
        request: whose ids the line carries; by default the one that runs now.
        body: the line as a person would say it; by default the event's name.
    """
    if NUMBERS[level] < threshold:
        return
    try:
        line = begin(level, body or event_name, request or context.current.get())
        line["event.name"] = event_name
        lines.add(line, fields)
        put(level, encode(line, output.longest))
    except Exception:
        lost()


def write(level: str, logger: str, body: object, fields: Mapping[str, Any], exc_info: object = None) -> None:
    """Write one line for a logger, whatever the values are.

    Args:
        exc_info: as the standard library takes it: an exception, a tuple, or true for the one that is handled now.
    """
    try:
        line = begin(level, redact.shown(body), context.current.get())
        line["logger"] = redact.text(logger, 256)
        if exc_info:
            _add_exception(line, exc_info)
        lines.add(line, fields)
        put(level, encode(line, output.longest))
    except Exception:
        lost()


def _add_exception(line: dict[str, Any], exc_info: object) -> None:
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    if error is None:
        return
    line["exception.type"] = type_name(error)
    line["exception.message"] = redact.shown(error)
    line["exception.stacktrace"] = stacktrace(error)


def type_name(error: BaseException) -> str:
    """Return an exception's type as `exception.type` has it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def stacktrace(error: BaseException) -> str:
    """Return an exception's stack trace; of a deep one its end, where it was raised."""
    try:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-_MOST_FRAMES))
    except Exception as failure:
        return f"<stack trace lost: {type(failure).__name__}>"
    return redact.text(trace[-redact.LONGEST :])


def level_of(number: int) -> str:
    """Return the level that a number of the standard library's falls into."""
    for name in ("critical", "error", "warning", "info"):
        if number >= NUMBERS[name]:
            return name
    return "debug"
