"""The trace of a request: its ids, whether it is sampled, and its server span.

Ids exist for the log even where no receiver is set; then nothing of OpenTelemetry is imported, and there is no thread.
Where one is set, an unsampled request builds no span, but its ids are passed on to what the request calls, with the
flag that says so; and if it fails or is slow, its server span is made afterwards.
"""

import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from observability import traceparent
from observability.libraries import instrument_libraries
from observability.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from observability.spans import Tracing

__all__ = ["FinishedRequest", "RequestTrace", "begin", "instrument_libraries", "start", "stop"]

_LOW_64 = 2**64 - 1
_tracing: "Tracing | None" = None


class FinishedRequest(Protocol):
    """What a server span says of a request."""

    environ: dict[str, Any]
    method: str  # as the metrics have it: `_OTHER` for an unknown one
    path: str
    status: int
    error: BaseException | None
    trace_flags: str


class RequestTrace:
    """The place of one request in its trace.

    Args:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them: the request's own span.
        parent_id: the caller's span; empty where the trace begins here.
        sampled: whether spans of it are recorded.
        environ: the WSGI environ, or what stands for it.
        tracing: this process's tracing; None where no receiver is set.
    """

    __slots__ = (
        "before",
        "inside",
        "kept",
        "parent_id",
        "sampled",
        "span",
        "span_id",
        "start_ns",
        "trace_id",
        "tracing",
    )
    start_ns: int  # this, and what follows, only where a receiver is set
    span: "Span"
    before: "Context"  # OpenTelemetry's context around the request
    inside: "Context"

    def __init__(
        self,
        trace_id: str,
        span_id: str,
        parent_id: str,
        sampled: bool,
        environ: Mapping[str, Any],
        tracing: "Tracing | None",
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.sampled = self.kept = sampled
        self.tracing = tracing
        if tracing is not None:
            self.start_ns = time.time_ns()
            tracing.enter(self, environ)

    @property
    def trace_flags(self) -> str:
        """The flags as log lines and headers spell them."""
        return "01" if self.kept else "00"

    def end(self, request: FinishedRequest, route: str, error_type: str, seconds: float) -> bool:
        """End the request's span, and return whether the receiver will get it.

        Args:
            request: what to say of the request; its flags are set where the trace is kept after all.
            route: the route's template; empty where none matched.
            error_type: what failed; empty where nothing did.
            seconds: how long the request took.
        """
        if self.tracing is not None:
            self.kept = self.tracing.leave(self, request, route, error_type, seconds)
            request.trace_flags = self.trace_flags
        return self.kept

    def step_out(self) -> None:
        """Take the span out of the context it was entered in, where the request may have ended in another."""
        if self.tracing is not None:
            self.tracing.step_out(self)


def begin(environ: Mapping[str, Any]) -> RequestTrace:
    """Begin a request: join the caller's trace, or begin one.

    Args:
        environ: the WSGI environ, or what another protocol's middleware put under the same names.
    """
    tracing = _tracing
    header = environ.get("HTTP_TRACEPARENT")
    if header is not None and (parent := traceparent.parse(header)) is not None:
        trace_id, parent_id, sampled = parent
        span_id = f"{random.getrandbits(64) or 1:016x}"
        return RequestTrace(trace_id, span_id, parent_id, sampled and tracing is not None, environ, tracing)
    ids = random.getrandbits(192)
    sampled = tracing is not None and (ids >> 64) & _LOW_64 < tracing.bound
    digits = f"{ids:048x}"
    return RequestTrace(digits[:32], digits[32:], "", sampled, environ, tracing)


def start(settings: Settings, instance_id: str) -> None:
    """Start tracing in this process, if a receiver is set; safe to call again.

    Under gevent it must be called after the monkey-patch, since it imports what does network I/O.

    Args:
        instance_id: `service.instance.id`, each worker's own.
    """
    global _tracing
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"  # OpenTelemetry's own switch
    if settings.otlp_endpoint and _tracing is None and not disabled:
        from observability.spans import Tracing

        _tracing = Tracing(settings, instance_id)


def stop(deadline: float) -> None:
    """Export what waits, within `deadline` seconds, and end tracing; what is left is counted as dropped."""
    global _tracing
    tracing, _tracing = _tracing, None
    if tracing is not None:
        tracing.stop(deadline)
