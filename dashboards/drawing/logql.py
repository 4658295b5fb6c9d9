"""Answer the dashboards' queries of Loki from the lines that a run has written, as far as they go.

A stream selector, `| json`, comparisons of fields, `| line_format`, and `sum by (...) (rate({...}[...]))`; what else a
query may say is an error, never a wrong answer.
"""

import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Json = dict[str, Any]
Test = Callable[[Json], bool]

_SELECTOR: Final = re.compile(r"\{(?P<matchers>[^}]*)\}")
_COMPARISON: Final = r'(?P<field>\w+)\s*(?P<sign>=~|!~|>=|<=|!=|=|>|<)\s*(?P<value>"(?:[^"\\]|\\.)*"|`[^`]*`|[\d.]+)'
_STAGE: Final = re.compile(rf"\|\s*(?:(?P<json>json)|line_format\s*`(?P<format>[^`]*)`|{_COMPARISON})\s*")
_RATE: Final = re.compile(r"sum by \((?P<by>[^)]*)\) \(rate\((?P<lines>.*)\[(?P<seconds>\d+)s\]\)\)", re.DOTALL)
_ORDER: Final = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_LEVELS: Final = {"FATAL": "critical", "WARN": "warning"}


@dataclass(frozen=True)
class Line:
    """One line of a log, with the labels of its stream."""

    timestamp: float
    text: str
    labels: dict[str, str]
    fields: Json


def lines_of(service: str, text: str) -> Iterator[Line]:
    """Yield a log's lines as Alloy labels them (monitoring/alloy/config.alloy)."""
    for each in text.splitlines():
        try:
            said = json.loads(each)
            timestamp = datetime.fromisoformat(said["timestamp"]).timestamp()
        except (ValueError, KeyError):
            continue  # a line that is cut off, or not of the service
        labels = {"service": service, "level": said.get("severity_text", "")}
        yield Line(timestamp, each, labels, {re.sub(r"\W", "_", key): value for key, value in said.items()})


class Log:
    """The lines of one time range.

    Args:
        lines: all that were written.
        start: Unix time.
        end: Unix time.
        most: lines that a panel is given; the newest.
    """

    def __init__(self, lines: Iterable[Line], start: float, end: float, most: int = 200) -> None:
        inside = [line for line in lines if start <= line.timestamp <= end]
        self.lines = sorted(inside, key=lambda line: line.timestamp, reverse=True)
        self.start, self.end, self.most = start, end, most

    def ask(self, query: str, panel: str) -> Json:
        """Answer a query of a panel of this type."""
        if panel == "logs":
            found = list(self._found(query))[: self.most]
            return {"kind": "lines", "lines": [_shown(line, text) for line, text in found]}
        metric = _RATE.fullmatch(query.strip())
        if metric is None:
            raise ValueError(f"not among what is answered here: {query}")
        by = [label.strip() for label in metric["by"].split(",")]
        seconds = max(5, int(metric["seconds"]))
        return {"kind": "matrix", "step": seconds, "series": self._rates(metric["lines"], by, seconds)}

    def _found(self, query: str) -> Iterator[tuple[Line, str]]:
        matchers, stages = _parsed(query)
        for line in self.lines:
            if all(test(line.labels) for test in matchers):
                text = line.text
                for stage in stages:
                    changed = stage(line, text)
                    if changed is None:
                        break
                    text = changed
                else:
                    yield line, text

    def _rates(self, query: str, by: list[str], seconds: int) -> list[Json]:
        counts: dict[tuple[str, ...], Counter[int]] = {}
        for line, _ in self._found(query):
            labels = tuple(line.labels.get(label, "") for label in by)
            counts.setdefault(labels, Counter())[int((line.timestamp - self.start) // seconds) + 1] += 1
        steps = range(1, int((self.end - self.start) // seconds) + 1)
        return [
            {
                "metric": dict(zip(by, labels, strict=True)),
                "values": [[self.start + step * seconds, str(found[step] / seconds)] for step in steps if found[step]],
            }
            for labels, found in sorted(counts.items())
        ]


def _parsed(query: str) -> tuple[list[Test], list[Callable[[Line, str], str | None]]]:
    selector = _SELECTOR.match(query.strip())
    if selector is None:
        raise ValueError(f"no stream selector: {query}")
    matchers = [_test(each) for each in re.finditer(_COMPARISON, selector["matchers"])]
    rest, stages = query.strip()[selector.end() :].strip(), []
    while rest:
        stage = _STAGE.match(rest)
        if stage is None:
            raise ValueError(f"not among what is answered here: {rest}")
        if not stage["json"]:
            stages.append(_stage(stage))
        rest = rest[stage.end() :]
    return matchers, stages


def _stage(stage: "re.Match[str]") -> Callable[[Line, str], str | None]:
    if stage["format"] is not None:
        form = stage["format"]
        return lambda line, _: re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda name: _text(line.fields.get(name[1])), form)
    test = _test(stage)
    return lambda line, text: text if test(line.fields) else None


def _test(match: "re.Match[str]") -> Test:
    name, sign, value = match["field"], match["sign"], match["value"]
    if not value.startswith(('"', "`")):
        number = float(value)
        compare: Any = _ORDER.get(sign, operator.eq)
        return lambda fields: isinstance(found := fields.get(name), int | float) and bool(compare(found, number))
    wanted = value[1:-1] if value.startswith("`") else re.sub(r"\\(.)", r"\1", value[1:-1])
    if sign in ("=~", "!~"):
        pattern = re.compile(wanted)
        return lambda fields: bool(pattern.fullmatch(_text(fields.get(name)))) == (sign == "=~")
    return lambda fields: (_text(fields.get(name)) == wanted) == (sign == "=")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _shown(line: Line, text: str) -> Json:
    level = line.labels["level"]
    return {"timestamp": line.timestamp, "level": _LEVELS.get(level, level.lower()), "line": text}
