"""The one log: every line of the app, gunicorn, libraries, warnings and uncaught exceptions, in one form on stdout."""

import logging
import sys

import structlog

from observability import events, lines, loggers, uncaught
from observability.console import Console
from observability.events import bind_process, emit, output, write
from observability.settings import Settings
from observability.uncaught import watch_gevent

__all__ = ["adopt_servers", "bind_process", "configure", "emit", "get_logger", "output", "watch_gevent", "write"]

_handler = loggers.Handler()


def get_logger(name: str = "") -> loggers.BoundLogger:
    """Return the app's logger: `log.info("todo created", todo_id=3)`."""
    logger: loggers.BoundLogger = structlog.get_logger(name)
    return logger


def configure(settings: Settings) -> None:
    """Make this the process's one log; safe to call again."""
    output.open()
    events.encode = Console(output.isatty()) if settings.log_format == "console" else lines.encode
    events.threshold = events.NUMBERS[settings.log_level]
    version = {"service.version": settings.service_version} if settings.service_version else {}
    bind_process(
        **{"service.name": settings.service_name, "deployment.environment.name": settings.environment}, **version
    )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, loggers.render],
        wrapper_class=loggers.BoundLogger,
        logger_factory=lambda name="", *_: name or "app",
        cache_logger_on_first_use=True,
    )
    _take_over_loggers()
    logging.captureWarnings(True)
    uncaught.take_over_hooks()


def _take_over_loggers() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(events.threshold)
    # With echo=True SQLAlchemy adds a handler for stdout to a logger of its own that has none.
    for name in ("engine.Engine", "pool.impl.QueuePool", "pool.impl.SingletonThreadPool", "pool.impl.StaticPool"):
        logger = logging.getLogger(f"sqlalchemy.{name}")
        logger.handlers = logger.handlers or [logging.NullHandler()]
    for each in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(each, logging.Logger) and any(map(_writes_to_console, each.handlers)):
            each.handlers = [handler for handler in each.handlers if not _writes_to_console(handler)]
            each.propagate = True


def adopt_servers() -> None:
    """Take over the loggers of servers that run as gunicorn's workers; call it in the worker.

    uvicorn's worker cuts its own off from the rest. A request's line is the middleware's, so theirs are left out.
    """
    logging.getLogger("uvicorn.error").propagate = True
    for name in ("uvicorn.access", "tornado.access", "aiohttp.access"):
        logging.getLogger(name).disabled = True


def _writes_to_console(handler: logging.Handler) -> bool:
    if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
        return False
    flask_logging = sys.modules.get("flask.logging")
    if handler is getattr(flask_logging, "default_handler", handler if flask_logging else None):
        return True
    return handler.stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
