"""What loggers end in: structlog's for the app, and a handler for all of the standard library's."""

import logging
import traceback
from typing import Any, ClassVar

import structlog

from observability import events, redact


class BoundLogger(structlog.BoundLoggerBase):
    """structlog's logger as the app uses it; no call of it raises."""

    def log(self, level: int, event: object = "", *args: Any, **fields: Any) -> None:
        """Log at a level of the standard library's."""
        self._log(events.level_of(level), event, args, fields)

    def debug(self, event: object = "", *args: Any, **fields: Any) -> None:
        """Log what only a developer wants to know."""
        self._log("debug", event, args, fields)

    def info(self, event: object = "", *args: Any, **fields: Any) -> None:
        """Log what happened."""
        self._log("info", event, args, fields)

    def warning(self, event: object = "", *args: Any, **fields: Any) -> None:
        """Log what may become a problem."""
        self._log("warning", event, args, fields)

    def error(self, event: object = "", *args: Any, **fields: Any) -> None:
        """Log what failed."""
        self._log("error", event, args, fields)

    def critical(self, event: object = "", *args: Any, **fields: Any) -> None:
        """Log what ends the service."""
        self._log("critical", event, args, fields)

    def exception(self, event: object = "", *args: Any, **fields: Any) -> None:
        """Log what failed, with the exception that is handled now."""
        fields.setdefault("exc_info", True)
        self._log("error", event, args, fields)

    warn, fatal, msg, err = warning, critical, info, error

    def _log(self, level: str, event: object, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if events.NUMBERS[level] < events.threshold:
            return
        try:
            if args:
                event = _formatted(event, args, fields)
            self._process_event(level, event, fields)  # type: ignore[arg-type]
        except structlog.DropEvent:
            pass
        except Exception:
            events.lost()


def _formatted(event: object, args: tuple[Any, ...], fields: dict[str, Any]) -> str:
    try:
        return str(event) % args
    except Exception:
        fields["args"] = args  # a wrong format must not lose the message
        return redact.shown(event)


def render(logger: Any, level: str, event: Any) -> Any:
    """Write the event; the end of structlog's chain of processors."""
    if event.pop("stack_info", False):
        event["code.stacktrace"] = "".join(traceback.format_stack())
    events.write(level, logger, event.pop("event", ""), event, event.pop("exc_info", None))
    raise structlog.DropEvent


class Handler(logging.Handler):
    """Where all records of the standard library's loggers end."""

    NAMES: ClassVar = {"gunicorn.error": "gunicorn"}
    STANDARD: ClassVar = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

    def createLock(self) -> None:
        """Make none: a lock over a write that waits could stop the process, or a fork's child for good."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record unless a filter refuses it."""
        kept = self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        fields = {key: value for key, value in record.__dict__.items() if key not in self.STANDARD}
        try:
            body: object = record.getMessage()
        except Exception:
            body, fields["args"] = record.msg, record.args
        if record.stack_info:
            fields["code.stacktrace"] = record.stack_info
        events.write(
            events.level_of(record.levelno), self.NAMES.get(record.name, record.name), body, fields, record.exc_info
        )
