"""Reads LogQL and TraceQL by Grafana's own grammars, and finds what they ask for among real lines and spans.

It knows what the dashboards use of the two languages, by the rules of Loki and Tempo; of anything else it says so.
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.dashboards import node
from tests.otlp import ReceivedSpan

# A regular expression is that of the whole value, in Loki and in Tempo.
_COMPARED: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "=~": lambda value, pattern: re.fullmatch(pattern, str(value)) is not None,
    "!~": lambda value, pattern: re.fullmatch(pattern, str(value)) is None,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Unread(AssertionError):
    """A query has a syntax error, or something that is not known here."""


@dataclass(frozen=True)
class Node:
    """A part of a query."""

    name: str
    text: str
    error: bool
    children: tuple["Node", ...]

    def all(self, *names: str) -> Iterator["Node"]:
        """Yield the outermost nodes of these names, in their order."""
        for child in self.children:
            if child.name in names:
                yield child
            else:
                yield from child.all(*names)

    def whole(self) -> Iterator["Node"]:
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            yield from child.whole()


def parse(language: str, queries: Sequence[str], directory: Path) -> list[Node]:
    """Return the trees of queries; `Unread` where one has an error."""
    trees = [_node(tree) for tree in node.trees(language, queries, directory)]
    for query, tree in zip(queries, trees, strict=True):
        if any(each.error for each in tree.whole()):
            raise Unread(f"{query} is no {language}")
    return trees


def _node(tree: Mapping[str, Any]) -> Node:
    return Node(tree["name"], tree["text"], tree["error"], tuple(map(_node, tree["children"])))


@dataclass(frozen=True)
class Line:
    """One log line as Loki has it: its stream's labels, the structured metadata beside it, and its text."""

    labels: dict[str, str]
    metadata: dict[str, str]
    text: str


def fields(text: str) -> dict[str, str]:
    """Return what Loki's `json` makes of a line: names of letters, digits and underscores."""
    return dict(_flat(json.loads(text), ""))


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(each, f"{name}_{key}" if name else key)
    elif not isinstance(value, list):
        yield re.sub(r"\W", "_", name), value if isinstance(value, str) else json.dumps(value)


def lines(query: Node, among: Sequence[Line]) -> list[dict[str, str]]:
    """Return the labels of each line that a LogQL query finds."""
    return [found for line in among if (found := _line(query, line)) is not None]


def _line(query: Node, line: Line) -> dict[str, str] | None:
    (selector,) = query.all("Selector")
    if not all(_matches(matcher, line.labels) for matcher in selector.all("Matcher")):
        return None
    found = line.labels | line.metadata
    for stage in (each for each in query.whole() if each.name == "PipelineStage"):
        (does,) = [child for child in stage.children if child.name != "Pipe"]
        if does.name == "LabelParser" and does.text == "json":
            found = fields(line.text) | found
        elif does.name == "LabelFilter":
            if not _matches(does.children[0], found):
                return None
        elif does.name != "LineFormatExpr":
            raise Unread(f"{does.name} in {query.text}")
    return found


def _matches(matcher: Node, labels: Mapping[str, str]) -> bool:
    """Apply a matcher of texts, for which a missing label is empty, or one of numbers, which a missing one fails."""
    name, compared, value = matcher.children
    if matcher.name == "Matcher":
        return _COMPARED[_sign(matcher)](labels.get(name.text, ""), _text(value))
    if matcher.name != "NumberFilter":
        raise Unread(f"{matcher.name}: {matcher.text} by {compared.text}")
    return name.text in labels and _COMPARED[_sign(matcher)](float(labels[name.text]), float(value.text))


def _sign(matcher: Node) -> str:
    return matcher.children[1].text


def _text(value: Node) -> str:
    return value.text[1:-1] if value.text.startswith("`") else str(json.loads(value.text))


def named(query: Node) -> set[str]:
    """Return the fields that a LogQL query names: in filters, groups and templates."""
    identifiers = {each.text for each in query.whole() if each.name == "Identifier"}
    templates = (each.text for each in query.all("LineFormatExpr", "LabelFormatExpr"))
    return identifiers | {name for text in templates for name in re.findall(r"\{\{\s*\.(\w+)", text)}


def spans(query: Node, among: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
    """Return the spans that a TraceQL query finds."""
    (pipeline,) = query.all("SpansetPipeline")
    if [each.name for each in pipeline.children] != ["SpansetFilter"]:
        raise Unread(f"{query.text} is more than one filter")
    (expression,) = pipeline.children[0].children
    return [span for span in among if _holds(expression, span)]


def _holds(expression: Node, span: ReceivedSpan) -> bool:
    left, sign, right = expression.children
    if sign.name in ("And", "Or"):
        both = _holds(left, span), _holds(right, span)
        return all(both) if sign.name == "And" else any(both)
    value = _of_span(left, span)
    return value is not None and _COMPARED[sign.text](value, _static(right.text))


def _of_span(asked: Node, span: ReceivedSpan) -> Any:
    """Return an attribute or an intrinsic; a span that has none of that name is found by no comparison."""
    (field,) = asked.children
    if field.name == "AttributeField":
        scope, _, name = field.text.partition(".")
        return {"span": span.attributes, "resource": span.resource}[scope].get(name)
    seconds = (span.end_ns - span.start_ns) / 1e9
    intrinsics = {"kind": span.kind, "status": span.status, "name": span.name, "duration": seconds}
    if field.text not in intrinsics:
        raise Unread(f"{field.text} is not known here")
    return intrinsics[field.text]


def _static(text: str) -> Any:
    if text.startswith(('"', "`")):
        return text[1:-1] if text.startswith("`") else json.loads(text)
    if found := re.fullmatch(r"([\d.]+)(ns|us|ms|s|m|h)", text):
        return float(found[1]) * _UNITS[found[2]]
    return float(text) if re.fullmatch(r"-?[\d.]+", text) else text
