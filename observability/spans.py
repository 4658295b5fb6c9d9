"""The OpenTelemetry side of tracing; imported only where a receiver is set."""

import random
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from observability import events, redact, traceparent
from observability.otlp import Sender
from observability.settings import Settings
from observability.span_queue import SpanQueue

if TYPE_CHECKING:
    from observability.traces import FinishedRequest, RequestTrace

_UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_STATE = TraceState()
_SCOPE = InstrumentationScope("observability")
_LONGEST_TEXT = 1024
_LONGEST_TRACE = 16 * 1024

# The ids of the server span that is being started: the request had them before.
_given: ContextVar[tuple[int, int] | None] = ContextVar("observability.given_ids", default=None)


class _Ids(IdGenerator):
    def generate_trace_id(self) -> int:
        given = _given.get()
        return given[0] if given else random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        given = _given.get()
        return given[1] if given else random.getrandbits(64) or 1


class Tracing:
    """Tracing of this process: its provider, its queue, and what happens to one request.

    Args:
        settings: the receiver, sampling, and bounds.
        instance_id: `service.instance.id`.
    """

    def __init__(self, settings: Settings, instance_id: str) -> None:
        sampler = TraceIdRatioBased(settings.sample_ratio)
        self.bound = sampler.bound
        self._slow = settings.slow_seconds
        self._queue = SpanQueue(lambda: Sender(settings), settings.span_queue)
        provider = TracerProvider(
            sampler=ParentBased(sampler),
            resource=Resource.create(_resource_attributes(settings, instance_id)),
            shutdown_on_exit=False,
            id_generator=_Ids(),
            span_limits=SpanLimits(max_attribute_length=_LONGEST_TRACE),
        )
        provider.add_span_processor(self._queue)
        trace.set_tracer_provider(provider)
        self._provider = provider
        self._tracer = provider.get_tracer(_SCOPE.name)
        self.stop = self._queue.stop

    def enter(self, request: "RequestTrace", environ: Mapping[str, Any]) -> None:
        """Make the request's span the current one: a recording one if it is sampled."""
        if request.sampled:
            span = self._recording_span(request, environ)
        else:
            state = _state(environ) if request.parent_id else _NO_STATE
            ids = int(request.trace_id, 16), int(request.span_id, 16)
            span = NonRecordingSpan(SpanContext(ids[0], ids[1], False, _UNSAMPLED, state))
        request.span = span
        request.before = context.get_current()
        request.inside = trace.set_span_in_context(span)
        context.attach(request.inside)

    def _recording_span(self, request: "RequestTrace", environ: Mapping[str, Any]) -> trace.Span:
        ids = int(request.trace_id, 16), int(request.span_id, 16)
        around = context.Context()
        if request.parent_id:
            parent = SpanContext(ids[0], int(request.parent_id, 16), True, _SAMPLED, _state(environ))
            around = trace.set_span_in_context(NonRecordingSpan(parent), around)
        before = _given.get()
        _given.set(ids)
        try:
            return self._tracer.start_span(
                environ["REQUEST_METHOD"], around, SpanKind.SERVER, start_time=request.start_ns
            )
        finally:
            _given.set(before)

    def leave(
        self, request: "RequestTrace", finished: "FinishedRequest", route: str, error_type: str, seconds: float
    ) -> bool:
        """End the request's span, and return whether it goes to the receiver."""
        self.step_out(request)
        failed = finished.status >= 500 or finished.error is not None
        if request.sampled:
            self._end(request, finished, route, error_type, seconds, failed)
            return True
        if failed or seconds >= self._slow:
            return self._keep(request, finished, route, error_type, seconds, failed)
        return False

    def step_out(self, request: "RequestTrace") -> None:
        """Give back the context that was before the request, if this is the one that it was entered in."""
        # No token: a body may be closed in another context than it was begun in, where one is refused.
        if context.get_current() is request.inside:
            context.attach(request.before)

    def _end(
        self,
        request: "RequestTrace",
        finished: "FinishedRequest",
        route: str,
        error_type: str,
        seconds: float,
        failed: bool,
    ) -> None:
        span: trace.Span = request.span
        end_ns = request.start_ns + int(seconds * 1e9)
        span.update_name(_name(finished, route))
        span.set_attributes(_attributes(finished, route, error_type))
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        if finished.error is not None:
            span.add_event("exception", _exception_attributes(finished.error), end_ns)
        span.end(end_ns)

    def _keep(
        self,
        request: "RequestTrace",
        finished: "FinishedRequest",
        route: str,
        error_type: str,
        seconds: float,
        failed: bool,
    ) -> bool:
        """Make the span of a request that was not sampled, but failed or was slow."""
        own = request.span.get_span_context()
        end_ns = request.start_ns + int(seconds * 1e9)
        parent = None
        if request.parent_id:
            parent = SpanContext(own.trace_id, int(request.parent_id, 16), True, _UNSAMPLED, own.trace_state)
        error = finished.error
        return self._queue.put(
            ReadableSpan(
                name=_name(finished, route),
                context=SpanContext(own.trace_id, own.span_id, False, _SAMPLED, own.trace_state),
                parent=parent,
                resource=self._provider.resource,
                attributes=_attributes(finished, route, error_type),
                events=[Event("exception", _exception_attributes(error), end_ns)] if error is not None else [],
                kind=SpanKind.SERVER,
                status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
                start_time=request.start_ns,
                end_time=end_ns,
                instrumentation_scope=_SCOPE,
            )
        )


def _resource_attributes(settings: Settings, instance_id: str) -> dict[str, str]:
    attributes = {
        "service.name": settings.service_name,
        "service.version": settings.service_version,
        "deployment.environment.name": settings.environment,
        "service.instance.id": instance_id,
    }
    return {name: value for name, value in attributes.items() if value}


def _state(environ: Mapping[str, Any]) -> TraceState:
    header = environ.get("HTTP_TRACESTATE")
    return TraceState(traceparent.parse_state(header)) if header else _NO_STATE


def _name(finished: "FinishedRequest", route: str) -> str:
    method = "HTTP" if finished.method == "_OTHER" else finished.method
    return f"{method} {route}" if route else method


def _attributes(finished: "FinishedRequest", route: str, error_type: str) -> dict[str, Any]:
    """Return the stable HTTP attributes; the query is left out, since it may hold secrets.

    So is server.address, which the client chooses.
    """
    environ = finished.environ
    protocol = environ.get("SERVER_PROTOCOL", "").partition("/")[2]
    attributes = {
        "http.request.method": finished.method,
        "http.request.method_original": environ["REQUEST_METHOD"] if finished.method == "_OTHER" else "",
        "url.path": finished.path,
        "url.scheme": environ.get("wsgi.url_scheme", ""),
        "http.route": route,
        "user_agent.original": environ.get("HTTP_USER_AGENT", ""),
        "client.address": environ.get("REMOTE_ADDR", ""),
        "network.protocol.version": protocol,
        "error.type": error_type,
    }
    shown: dict[str, Any] = {key: redact.text(value, _LONGEST_TEXT) for key, value in attributes.items() if value}
    if finished.status:
        shown["http.response.status_code"] = finished.status
    return shown


def _exception_attributes(error: BaseException) -> dict[str, str]:
    return {
        "exception.type": events.type_name(error),
        "exception.message": redact.shown(error)[:_LONGEST_TEXT],
        "exception.stacktrace": events.stacktrace(error)[-_LONGEST_TRACE:],
    }
