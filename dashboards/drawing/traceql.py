"""Answer the dashboards' searches of Tempo from the spans that a run has sent, as far as they go.

One set of spans in braces, whose conditions are all joined by `&&`; what else a search may say is an error.
"""

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

Json = dict[str, Any]

_CONDITION: Final = re.compile(r'(?P<name>[\w.]+)\s*(?P<sign>=~|!=|>=|<=|=|>|<)\s*(?P<value>"[^"]*"|`[^`]*`|[\w.]+)')
_DURATION: Final = re.compile(r"(?P<number>[\d.]+)(?P<unit>ns|us|ms|s|m)")
_NANOSECONDS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000}
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Span(Protocol):
    """What is known of a span."""

    name: str
    trace_id: str
    parent_id: str
    kind: str
    status: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Spans:
    """The spans of one time range.

    Args:
        spans: all that were received.
        start: Unix time.
        end: Unix time.
        most: traces that a search returns; the newest.
    """

    def __init__(self, spans: Iterable[Span], start: float, end: float, most: int = 20) -> None:
        inside = [span for span in spans if start <= span.start_ns / 1e9 <= end]
        self.spans = sorted(inside, key=lambda span: span.start_ns, reverse=True)
        self.most = most

    def ask(self, query: str, panel: str) -> Json:
        """Answer a search as Tempo's data source shows it in a table."""
        if panel != "table":
            raise ValueError(f"a search is shown in a table, not in a panel of the type {panel}")
        conditions = _parsed(query)
        found: dict[str, Span] = {}
        for span in self.spans:
            if all(condition(span) for condition in conditions):
                found.setdefault(span.trace_id, span)
        return {"kind": "traces", "rows": [_row(span) for span in list(found.values())[: self.most]]}


def _parsed(query: str) -> list[Callable[[Span], bool]]:
    inside = re.fullmatch(r"\{(.*)\}", query.strip(), re.DOTALL)
    if inside is None:
        raise ValueError(f"no set of spans: {query}")
    return [_condition(each.strip()) for each in inside[1].split("&&") if each.strip()]


def _condition(text: str) -> Callable[[Span], bool]:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ValueError(f"not among what is answered here: {text}")
    name, sign, said = found["name"], found["sign"], found["value"]
    if sign == "=~":
        pattern = re.compile(said[1:-1])
        return lambda span: pattern.fullmatch(str(_of(span, name))) is not None
    wanted, compare = _value(said), _ORDER[sign]
    return lambda span: (value := _of(span, name)) is not None and compare(value, wanted)


def _value(said: str) -> Any:
    duration = _DURATION.fullmatch(said)
    if duration:
        return float(duration["number"]) * _NANOSECONDS[duration["unit"]]
    return float(said) if re.fullmatch(r"[\d.]+", said) else said.strip('"`')


def _of(span: Span, name: str) -> Any:
    scope, _, attribute = name.partition(".")
    if scope in ("span", "resource"):
        return (span.attributes if scope == "span" else span.resource).get(attribute)
    if name == "duration":
        return span.end_ns - span.start_ns
    if name in ("kind", "status", "name"):
        return getattr(span, name)
    raise ValueError(f"not among what is answered here: {name}")


def _row(span: Span) -> Json:
    return {
        "Trace ID": span.trace_id,
        "Start time": span.start_ns / 1e6,
        "Service": span.resource.get("service.name", ""),
        "Name": span.name,
        "Duration": (span.end_ns - span.start_ns) / 1e6,
    }
