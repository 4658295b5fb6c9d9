"""A dashboard's variables, with the values that Grafana's page would give them at its first look.

https://grafana.com/docs/grafana/latest/dashboards/variables/variable-syntax/
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
ALL = "$__all"
_USED = re.compile(r"\$\{(\w+)(?:\.[^:^}]+)?(?::(\w+))?\}|\$(\w+)|\[\[(\w+)(?::(\w+))?\]\]")
_LABEL_VALUES = re.compile(r"^\s*label_values\(\s*(?:(.*)\s*,)?\s*(\w+)\s*\)\s*$", re.DOTALL)
_SPECIAL = re.compile(r"([\\^$.*+?()\[\]{}|])")

_QUERY_RESULT = re.compile(r"^\s*query_result\((.*)\)\s*$", re.DOTALL)
# Asked for (data source's uid, selector or "", label), it returns the label's values.
LabelValues = Callable[[str, str, str], list[str]]
# Asked for (data source's uid, expression), it returns the labels of each series that there is.
Result = Callable[[str, str], list[dict[str, str]]]


@dataclass
class Variables:
    """The values by name, as text for queries.

    Args:
        values: the values by name.
        several: the names of which more than one may be chosen, which a query gets as a regular expression.
        raw: text that is put in as it is.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)
    raw: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """Put the values into a text; what Grafana's backend fills in by itself, `$__...`, stays."""
        return _USED.sub(self._value, text)

    def _value(self, used: "re.Match[str]") -> str:
        name = used[1] or used[3] or used[4]
        how = used[2] or used[5] or ""
        if name in self.raw:
            return self.raw[name]
        if name not in self.values:
            return used[0]
        return _formatted(self.values[name], how, several=name in self.several)

    def filled(self, value: Any) -> Any:
        """Put the values into every text of a query."""
        if isinstance(value, str):
            return self.fill(value)
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        if isinstance(value, dict):
            return {key: self.filled(each) for key, each in value.items()}
        return value


def _formatted(values: list[str], how: str, *, several: bool) -> str:
    if how in ("raw", "text", "csv"):
        return ",".join(values)
    if how == "pipe":
        return "|".join(values)
    if not several and how != "regex":
        return _in_quotes("".join(values[:1]))
    escaped = [_SPECIAL.sub(r"\\\1", each) for each in values]
    # a backslash has to survive the quotes of the query around it
    return _in_quotes(escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})")


def _in_quotes(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def resolve(model: Json, sources: dict[str, str], ask: LabelValues, result: Result, times: dict[str, str]) -> Variables:
    """Give each variable of a dashboard a value, in their order, since one may ask with those before it.

    Args:
        model: the dashboard.
        sources: the uid of the data source that stands for each type.
        ask: returns a label's values.
        result: returns what a query finds.
        times: what `$__from` and the like stand for.
    """
    made = Variables(raw=dict(times))
    for each in model.get("templating", {}).get("list", []):
        name, current = str(each.get("name")), _current(each)
        if each.get("multi") or each.get("includeAll"):
            made.several.add(name)
        if each.get("type") == "datasource":
            made.raw[name] = current[0] if current else sources.get(str(each.get("query")), "")
        elif current and current != [ALL]:
            made.values[name] = current
        elif current and each.get("allValue"):
            made.raw[name] = str(each["allValue"])
        else:
            options = _options(made, each, ask, result)
            made.values[name] = options if current == [ALL] else options[:1]
    return made


def _current(variable: Json) -> list[str]:
    value = (variable.get("current") or {}).get("value")
    values = value if isinstance(value, list) else [value]
    found = [str(each) for each in values if each not in (None, "")]
    if not found and variable.get("includeAll") and variable.get("type") != "datasource":
        return [ALL]
    return found


def _options(made: Variables, variable: Json, ask: LabelValues, result: Result) -> list[str]:
    query = variable.get("query")
    text = str(query.get("query", "") if isinstance(query, dict) else query or "")
    if variable.get("type") != "query":
        return [option.strip() for option in text.split(",") if option.strip()]
    source = made.fill(str((variable.get("datasource") or {}).get("uid", "")))
    if found := _QUERY_RESULT.match(made.fill(text)):
        return _taken((_line(each) for each in result(source, found[1])), str(variable.get("regex", "")))
    found = _LABEL_VALUES.match(made.fill(text))
    return ask(source, (found[1] or "").strip(), found[2]) if found else []


def _line(labels: dict[str, str]) -> str:
    """Write a series as Grafana does before a variable's regular expression looks at it."""
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items() if key != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"


def _taken(lines: Iterable[str], pattern: str) -> list[str]:
    """Return what the regular expression takes from each line, each value once; without one, the lines."""
    if not pattern:
        return sorted(set(lines))
    wanted = re.compile(pattern.removeprefix("/").removesuffix("/"))
    return sorted({found[1] for line in lines if (found := wanted.search(line)) and found.groups()})
