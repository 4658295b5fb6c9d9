"""A request's line: by far the most frequent one, so what all lines of one kind of request share is made once.

That text is cut out of a line of stand-ins that `events` and `lines` made, so it has the form of all others; only the
values that differ from request to request are put in later.
"""

import logging
import secrets
from typing import TYPE_CHECKING, Any

from observability import context, events, lines, redact, stdout

if TYPE_CHECKING:
    from observability.request import Request

_NAME = "http.server.request"
_LONGEST_KEPT = 128
_MOST_KEPT = 1024
_quoted: dict[str, str] = {}
# What differs from request to request, in the order of the line; some come with their quotes, or take none.
_UNQUOTED = (
    "url.path",
    "duration_seconds",
    "client.address",
    "user_agent.original",
    "http.response.body.size",
    "in_flight",
)
_DIFFER = ("timestamp", "trace_id", "span_id", "trace_flags", *_UNQUOTED)


class Line:
    """The line of all requests of one kind.

    Args:
        scheme: of the URL.
        error_type: what failed; empty where nothing did.
        plain: whether only what differs from request to request is left to say.
    """

    __slots__ = ("error_type", "plain", "process", "scheme", "texts")

    def __init__(self, scheme: str, error_type: str, plain: bool) -> None:
        self.scheme, self.error_type, self.plain = scheme, error_type, plain
        self.process: object = None
        self.texts: list[str] = []

    def write(self, request: "Request", duration: float, cpu: float | None) -> None:
        """Write a request's line; `duration` and `cpu` are in seconds."""
        if not self.plain or request.fields or events.encode is not lines.encode:
            write(request, self.scheme, self.error_type, duration, cpu)
            return
        if events.threshold > logging.INFO:
            return
        data = self.text(request, duration, cpu)
        if len(data) > events.output.longest:
            write(request, self.scheme, self.error_type, duration, cpu)
        else:
            events.put("info", data)

    def text(self, request: "Request", duration: float, cpu: float | None) -> bytes:
        """Return a request's line, however long it is."""
        if self.process is not events.process:  # at first, and when the process has learnt more of itself
            self.texts, self.process = _texts(request, self.scheme), events.process
        environ = request.environ
        client, agent = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_USER_AGENT", "")
        a, b, c, d, e, f, g, h, i, j, k = self.texts
        line = (
            f"{a}{events.timestamp()}{b}{request.trace_id}{c}{request.span_id}{d}{request.trace_flags}"
            f"{e}{_quoted.get(request.path) or quoted(request.path)}{f}{duration:.6f}"
            f"{g}{_quoted.get(client) or quoted(client)}{h}{_quoted.get(agent) or quoted(agent)}"
            f"{i}{request.sent}{j}{request.in_flight}{k}"
        )
        if request.queued is not None:
            line = f'{line},"queue_seconds":{request.queued:.6f}'
        if cpu is not None:
            line = f'{line},"cpu_seconds":{cpu:.6f}'
        return f"{line}}}\n".encode()


def write(request: "Request", scheme: str, error_type: str, duration: float, cpu: float | None) -> None:
    """Write a request's line, whatever it says."""
    fields = _about(request, scheme, duration)
    if request.queued is not None:
        fields["queue_seconds"] = round(request.queued, 6)
    if cpu is not None:
        fields["cpu_seconds"] = round(cpu, 6)
    if error_type:
        fields["error.type"] = error_type
    if request.method == "_OTHER":
        fields["http.request.method_original"] = request.environ["REQUEST_METHOD"]
    if request.fields:
        fields = {**request.fields, **fields}
    failed = request.status >= 500 or request.error is not None
    events.emit("error" if failed else "info", _NAME, fields, request, _body(request))


def _about(request: "Request", scheme: str, duration: float) -> dict[str, Any]:
    """Return what every line says of its request."""
    environ = request.environ
    return {
        "http.request.method": request.method,
        "url.path": request.path,
        "http.route": request.route,
        "http.response.status_code": request.status,
        "duration_seconds": round(duration, 6),
        "url.scheme": scheme,
        "client.address": environ.get("REMOTE_ADDR", ""),
        "user_agent.original": environ.get("HTTP_USER_AGENT", ""),
        "http.response.body.size": request.sent,
        "in_flight": request.in_flight,
    }


def _body(request: "Request") -> str:
    return f"{request.method} {request.route or request.path} {request.status}"


def _texts(request: "Request", scheme: str) -> list[str]:
    """Return what the lines of requests of one kind share: the text before each value that differs, and after the last.

    Args:
        request: one of that kind.
    """
    mark = secrets.token_hex(16)
    stand_ins = {name: f"{mark}{number:02}" for number, name in enumerate(_DIFFER)}
    ids = context.RequestContext(stand_ins["trace_id"], stand_ins["span_id"], stand_ins["trace_flags"])
    line = events.begin("info", _body(request), ids)
    line["event.name"] = _NAME
    line["timestamp"] = stand_ins["timestamp"]
    lines.add(line, {name: stand_ins.get(name, value) for name, value in _about(request, scheme, 0.0).items()})
    text = lines.encode(line, stdout.LONGEST).decode().removesuffix("}\n")
    for name, stand_in in stand_ins.items():
        text = text.replace(f'"{stand_in}"' if name in _UNQUOTED else stand_in, mark)
    return text.split(mark)


def quoted(value: Any) -> str:
    """Return a text from a client as JSON has it in a line."""
    if type(value) is not str:  # as some middleware may have left it
        return lines.dumps(redact.plain(value)).decode()
    found = _quoted.get(value)
    if found is None:
        found = lines.dumps(redact.text(value)).decode()
        if len(value) <= _LONGEST_KEPT:
            if len(_quoted) >= _MOST_KEPT:
                _quoted.clear()
            _quoted[value] = found
    return found
