"""The OpenTelemetry side of tracing; imported only where a receiver is set."""

import random
import time
from contextvars import ContextVar
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.context.context import _RuntimeContext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind

from observability import catalogue, store
from observability.context import current
from observability.otlp import Sender
from observability.server_span import LONGEST_TRACE, SAMPLED, SCOPE, UNSAMPLED, ServerSpan, state_of
from observability.settings import Settings
from observability.span_queue import SpanQueue
from observability.traces import TracedRequest

_EMPTY = Context()

# The ids of the server span that is being started: the request had them before.
_given: ContextVar[tuple[int, int] | None] = ContextVar("observability.given_ids", default=None)


class _Ids(IdGenerator):
    def generate_trace_id(self) -> int:
        given = _given.get()
        return given[0] if given else random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        given = _given.get()
        return given[1] if given else random.getrandbits(64) or 1


class Contexts(_RuntimeContext):
    """OpenTelemetry's context of a thread, a greenlet, or a task: within a request, one with the request's span in it.

    That one is made when somebody asks: a request that calls nothing with spans of its own costs nothing here. What is
    attached within the request is kept as it is.
    """

    def __init__(self) -> None:
        self._attached: ContextVar[tuple[Context, object] | None] = ContextVar("observability.attached", default=None)

    def attach(self, context: Context) -> Any:
        """Make a context the current one."""
        return self._attached.set((context, current.get()))

    def detach(self, token: Any) -> None:
        """Go back to the context before."""
        self._attached.reset(token)

    def get_current(self) -> Context:
        """Return the current context."""
        attached, request = self._attached.get(), current.get()
        around = attached[0] if attached is not None else _EMPTY
        if not isinstance(request, TracedRequest) or request.tracing is None:
            return around
        if attached is not None and attached[1] is request:
            return around
        if _given.get() is not None:  # the span is just being made, and something that sees it begin asks for it
            return around
        try:
            # No lock: it would be held over the code of others. Threads that ask at once make one each, of the same
            # ids, and the last one stays.
            if request.span is None:
                span = request.tracing.span_of(request)
                request.inside = trace.set_span_in_context(span, around)
                request.span = span
            return request.inside
        except Exception:
            store.child(catalogue.HOOK_FAILURES, "trace").inc()
            return around

    def leave(self) -> None:
        """Leave the present request's span, here alone: what else runs in its context keeps it."""
        attached = self._attached.get()
        self._attached.set((attached[0] if attached is not None else _EMPTY, current.get()))


# Before anything is attached; OpenTelemetry's own way, by entry points, is only for installed packages.
_contexts = context._RUNTIME_CONTEXT = Contexts()


class Tracing:
    """Tracing of this process: its provider, its queue, and the server spans.

    Args:
        settings: the receiver, sampling, and bounds.
        instance_id: `service.instance.id`.
    """

    def __init__(self, settings: Settings, instance_id: str) -> None:
        sampler = TraceIdRatioBased(settings.sample_ratio)
        # What the lower half of a sampled trace id's digits comes before; "g" is after all of them.
        self.bound = f"{sampler.bound:016x}" if sampler.bound < 2**64 else "g"
        self.slow = settings.slow_seconds
        self._queue = SpanQueue(lambda: Sender(settings), settings.span_queue)
        provider = TracerProvider(
            sampler=ParentBased(sampler),
            resource=Resource.create(_resource_attributes(settings, instance_id)),
            shutdown_on_exit=False,
            id_generator=_Ids(),
            span_limits=SpanLimits(max_attribute_length=LONGEST_TRACE),
        )
        provider.add_span_processor(self._queue)
        trace.set_tracer_provider(provider)
        self._provider = provider
        self._tracer = provider.get_tracer(SCOPE.name)
        self.stop = self._queue.stop
        self.leave = _contexts.leave

    def span_of(self, request: TracedRequest) -> trace.Span:
        """Make a request's span, for what runs in it: a recording one if it is sampled."""
        ids = int(request.trace_id, 16), int(request.span_id, 16)
        state = state_of(request.environ.get("HTTP_TRACESTATE") if request.parent_id else None)
        if not request.sampled or request.over:
            flags = SAMPLED if request.trace_flags == "01" else UNSAMPLED
            return NonRecordingSpan(SpanContext(ids[0], ids[1], False, flags, state))
        around = Context()
        if request.parent_id:
            parent = SpanContext(ids[0], int(request.parent_id, 16), True, SAMPLED, state)
            around = trace.set_span_in_context(NonRecordingSpan(parent), around)
        begun = time.time_ns() - int((time.monotonic() - request.start) * 1e9)
        before = _given.get()
        _given.set(ids)
        try:
            return self._tracer.start_span(request.method, around, SpanKind.SERVER, start_time=begun)
        finally:
            _given.set(before)

    def end(self, request: TracedRequest, route: str, error_type: str, seconds: float) -> bool:
        """End a request's span, and return whether it goes to the receiver."""
        made = ServerSpan(request, self._provider.resource, route, error_type, seconds)
        span = request.span
        if span is None and request.sampled and len(self._provider._active_span_processor._span_processors) > 1:
            span = self.span_of(request)  # the app has added a processor, which is to see it
        request.over = True
        if not isinstance(span, Span):  # nobody has asked for it, or it is one that records nothing
            return self._queue.put(made)
        span.update_name(made.name)
        span.set_attributes(dict(made.attributes))
        span.set_status(made.status)
        end_time = (span.start_time or made.start_time) + made.end_time - made.start_time
        for event in made.events:
            span.add_event(event.name, event.attributes, end_time)
        span.end(end_time)
        return True


def _resource_attributes(settings: Settings, instance_id: str) -> dict[str, str]:
    attributes = {
        "service.name": settings.service_name,
        "service.version": settings.service_version,
        "deployment.environment.name": settings.environment,
        "service.instance.id": instance_id,
    }
    return {name: value for name, value in attributes.items() if value}
