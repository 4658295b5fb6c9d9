"""The server span of a request, as an exporter reads it: what it says is put together only then, in its thread."""

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from observability import events, redact, traceparent
from observability.traces import TracedRequest

UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SCOPE = InstrumentationScope("observability")
LONGEST_TRACE = 16 * 1024
_LONGEST_TEXT = 1024
_NO_STATE = TraceState()
_ERROR, _UNSET = Status(StatusCode.ERROR), Status(StatusCode.UNSET)


def state_of(header: str | None) -> TraceState:
    """Read a tracestate header."""
    return TraceState(traceparent.parse_state(header)) if header else _NO_STATE


class ServerSpan:
    """A finished request's span, with the attributes of the SDK's `ReadableSpan`.

    It keeps what it needs of the request, and neither the request nor its environ.

    Args:
        request: what it says.
        resource: the process.
        route: the route's template; empty where none matched.
        error_type: what failed; empty where nothing did.
        seconds: how long the request took, up to now.
    """

    __slots__ = (
        "_client",
        "_error_type",
        "_ids",
        "_method",
        "_original_method",
        "_path",
        "_protocol",
        "_route",
        "_sampled",
        "_scheme",
        "_state",
        "_status_code",
        "_user_agent",
        "end_time",
        "events",
        "resource",
        "start_time",
        "status",
    )
    kind = SpanKind.SERVER
    instrumentation_scope = SCOPE
    links: tuple[()] = ()
    dropped_attributes = dropped_events = dropped_links = 0

    def __init__(self, request: TracedRequest, resource: Resource, route: str, error_type: str, seconds: float) -> None:
        environ, error = request.environ, request.error
        self.resource = resource
        self.end_time = time.time_ns()
        self.start_time = self.end_time - int(seconds * 1e9)
        self.events: tuple[Event, ...] = ()
        if error is not None:
            self.events = (Event("exception", _exception_attributes(error), self.end_time),)
        self.status = _ERROR if error is not None or request.status >= 500 else _UNSET
        self._ids = request.trace_id, request.span_id, request.parent_id
        self._sampled = request.sampled
        self._method, self._original_method = request.method, environ["REQUEST_METHOD"]
        self._path, self._route = request.path, route
        self._status_code, self._error_type = request.status, error_type
        self._scheme, self._protocol = environ.get("wsgi.url_scheme", ""), environ.get("SERVER_PROTOCOL", "")
        self._client, self._user_agent = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_USER_AGENT", "")
        self._state = environ.get("HTTP_TRACESTATE") if request.parent_id else None

    @property
    def name(self) -> str:
        """The method and the route, which are few."""
        method = "HTTP" if self._method == "_OTHER" else self._method
        return f"{method} {self._route}" if self._route else method

    @property
    def context(self) -> SpanContext:
        """Its own ids: sampled, since it is exported."""
        trace_id, span_id, _ = self._ids
        return SpanContext(int(trace_id, 16), int(span_id, 16), False, SAMPLED, state_of(self._state))

    @property
    def parent(self) -> SpanContext | None:
        """The caller's span."""
        trace_id, _, parent_id = self._ids
        if not parent_id:
            return None
        flags = SAMPLED if self._sampled else UNSAMPLED
        return SpanContext(int(trace_id, 16), int(parent_id, 16), True, flags, state_of(self._state))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The stable HTTP attributes; the query is left out, since it may hold secrets.

        So is server.address, which the client chooses.
        """
        attributes = {
            "http.request.method": self._method,
            "http.request.method_original": self._original_method if self._method == "_OTHER" else "",
            "url.path": self._path,
            "url.scheme": self._scheme,
            "http.route": self._route,
            "user_agent.original": self._user_agent,
            "client.address": self._client,
            "network.protocol.version": self._protocol.partition("/")[2],
            "error.type": self._error_type,
        }
        shown: dict[str, Any] = {key: redact.text(value, _LONGEST_TEXT) for key, value in attributes.items() if value}
        if self._status_code:
            shown["http.response.status_code"] = self._status_code
        return shown


def _exception_attributes(error: BaseException) -> dict[str, str]:
    return {
        "exception.type": events.type_name(error),
        "exception.message": redact.shown(error)[:_LONGEST_TEXT],
        "exception.stacktrace": events.stacktrace(error)[-LONGEST_TRACE:],
    }
