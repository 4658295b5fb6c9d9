"""Spans of outgoing calls, by the maintained instrumentations, whenever the app imports the libraries.

An instrumentation imports its library, and a network library must not be imported before gevent's monkey-patch. So
each waits for the app's own import.
"""

import importlib
import logging
import os
from typing import Any

import wrapt

from observability.settings import Settings

_log = logging.getLogger(__name__)
# what the app imports: the instrumentation's module and class
_INSTRUMENTATIONS = {
    "requests": ("opentelemetry.instrumentation.requests", "RequestsInstrumentor"),
    "urllib3": ("opentelemetry.instrumentation.urllib3", "URLLib3Instrumentor"),
    "sqlalchemy": ("opentelemetry.instrumentation.sqlalchemy", "SQLAlchemyInstrumentor"),
    "redis": ("opentelemetry.instrumentation.redis", "RedisInstrumentor"),
}
_waiting = False


def instrument_libraries(settings: Settings) -> None:
    """Trace calls of requests, urllib3, SQLAlchemy and redis, if a receiver is set; safe to call again.

    Call it before the app's own imports: `from sqlalchemy import create_engine` keeps the untraced function otherwise.
    """
    global _waiting
    if not settings.otlp_endpoint or _waiting:
        return
    _waiting = True
    # the stable names of attributes; without it the instrumentations write those of before 2023
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    for library in _INSTRUMENTATIONS:
        wrapt.register_post_import_hook(_instrument, library)


def _instrument(library: Any) -> None:
    """Instrument a library that was just imported; it works untraced where that fails."""
    try:
        module, name = _INSTRUMENTATIONS[library.__name__]
        # The check refuses releases that the instrumentation's metadata does not know yet, such as SQLAlchemy 2.1,
        # with which our tests see it work.
        getattr(importlib.import_module(module), name)().instrument(skip_dep_check=True)
    except Exception:
        _log.warning("calls of %s are not traced", library.__name__, exc_info=True)
