"""The request that runs now: its trace ids, and the fields that the app adds to its log line."""

from contextvars import ContextVar
from typing import Any

MOST_FIELDS = 64


class RequestContext:
    """What log lines and `annotate` need to know of a request.

    Args:
        trace_id: 32 hexadecimal digits in lower case.
        span_id: 16 of them.
        trace_flags: "01" where the trace is sampled, else "00".
    """

    __slots__ = ("__weakref__", "fields", "span_id", "trace_flags", "trace_id")

    def __init__(self, trace_id: str, span_id: str, trace_flags: str) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.trace_flags = trace_flags
        self.fields: dict[str, Any] = {}


current: ContextVar[RequestContext | None] = ContextVar("observability.request", default=None)


def annotate(**fields: Any) -> None:
    """Add fields to the request's log line, from anywhere in the request; outside of one, do nothing.

    A thread or a greenlet that the request starts sees it where it runs in a copy of the request's context:
    `gevent.spawn(contextvars.copy_context().run, work)`. The last value of a field wins; new fields beyond the most
    that a line takes are left out.
    """
    request = current.get()
    if request is None:
        return
    known = request.fields
    if len(known) + len(fields) <= MOST_FIELDS:
        known.update(fields)
        return
    for name, value in fields.items():
        if name in known or len(known) < MOST_FIELDS:
            known[name] = value
