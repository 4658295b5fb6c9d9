"""The trace of a request: its ids, whether it is sampled, and its server span.

Ids exist for the log even where no receiver is set; then nothing of OpenTelemetry is imported, and there is no thread.
Where one is set, a request still builds no span: a server span is made when its request has ended, and only if the
request is sampled, failed, or was slow. What the request calls gets its ids, and its span if it is sampled, as soon as
somebody asks OpenTelemetry for the present context (spans.py).
"""

import os
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from observability import context, traceparent
from observability.libraries import instrument_libraries
from observability.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from observability.spans import Tracing

__all__ = ["TracedRequest", "begin", "end", "instrument_libraries", "leave", "start", "stop"]

_tracing: "Tracing | None" = None
_PAIRS = 64
_ids: list[tuple[str, str]] = []  # of traces and spans to come
os.register_at_fork(after_in_child=_ids.clear)  # a child's would be its siblings' too


class TracedRequest(context.RequestContext):
    """A request as its trace sees it; what is set here is set by `begin`."""

    __slots__ = (
        "environ",
        "error",
        "inside",
        "method",
        "over",
        "parent_id",
        "path",
        "sampled",
        "span",
        "start",
        "status",
        "tracing",
    )
    environ: dict[str, Any]  # the WSGI environ, or what another protocol's middleware put under the same names
    method: str  # as the metrics have it: `_OTHER` for an unknown one
    path: str
    start: float  # monotonic seconds
    status: int
    error: BaseException | None

    parent_id: str  # the caller's span; empty where the trace begins here
    sampled: bool  # whether spans of it are recorded
    tracing: "Tracing | None"  # None where no receiver is set
    over: bool  # whether its span has ended
    span: "Span | None"  # None until somebody asks for it
    inside: "Context"  # OpenTelemetry's context with the span in it


def begin(request: TracedRequest, environ: Mapping[str, Any]) -> None:
    """Begin a request: join the caller's trace, or begin one."""
    tracing = request.tracing = _tracing
    request.span = None
    request.over = False
    header = environ.get("HTTP_TRACEPARENT")
    if header is not None and (parent := traceparent.parse(header)) is not None:
        request.trace_id, request.parent_id, sampled = parent
        request.span_id = f"{random.getrandbits(64) or 1:016x}"
        request.sampled = sampled and tracing is not None
    else:
        try:
            request.trace_id, request.span_id = _ids.pop()
        except IndexError:
            request.trace_id, request.span_id = _more_ids()
        request.parent_id = ""
        # OpenTelemetry's rule, of the lower 64 bits; digits of one length compare as their numbers do.
        request.sampled = tracing is not None and request.trace_id[16:] < tracing.bound
    request.trace_flags = "01" if request.sampled else "00"


def _more_ids() -> tuple[str, str]:
    """Make many pairs of ids at once, which costs each a third, and return one."""
    digits = random.getrandbits(_PAIRS * 192).to_bytes(_PAIRS * 24, "big").hex()
    pairs = [(digits[at : at + 32], digits[at + 32 : at + 48]) for at in range(0, _PAIRS * 48, 48)]
    _ids.extend(pairs[1:])
    return pairs[0]


def end(request: TracedRequest, route: str, error_type: str, seconds: float) -> bool:
    """End the request's span, and return whether the receiver will get it; the trace flags say so from then on.

    Args:
        request: what the span says.
        route: the route's template; empty where none matched.
        error_type: what failed; empty where nothing did.
        seconds: how long the request took.
    """
    tracing = request.tracing
    if tracing is None:
        return False
    failed = request.status >= 500 or request.error is not None
    if not request.sampled and not failed and seconds < tracing.slow:
        request.over = True
        return False
    kept = tracing.end(request, route, error_type, seconds)
    request.trace_flags = "01" if kept else "00"
    return kept


def leave(request: TracedRequest) -> None:
    """Leave a request's span where the request goes on being the current one after its end, as on an event loop."""
    if request.tracing is not None:
        request.tracing.leave()


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
