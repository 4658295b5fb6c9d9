"""What Grafana puts in a query's place for its variables before it sends it, by its documented rules.

They are in its documentation's "Variable syntax", "Global variables" and "Prometheus template variables"; how a data
source escapes values is in its own plugin's code.
"""

import bisect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ALL: Final = "$__all"
_USED: Final = re.compile(r"\$(?P<a>\w+)|\$\{(?P<b>\w+)(?::(?P<bf>\w+))?\}|\[\[(?P<c>\w+)(?::(?P<cf>\w+))?\]\]")
# Grafana's rangeutil.roundInterval: what is below the first number of milliseconds becomes the second one.
_ROUNDED: Final = (
    *((10, 1), (15, 10), (35, 20), (75, 50), (150, 100), (350, 200), (750, 500), (1500, 1000), (3500, 2000)),
    *((7500, 5000), (12_500, 10_000), (17_500, 15_000), (25_000, 20_000), (45_000, 30_000), (90_000, 60_000)),
    *((210_000, 120_000), (450_000, 300_000), (750_000, 600_000), (1_050_000, 900_000), (1_500_000, 1_200_000)),
    *((2_700_000, 1_800_000), (5_400_000, 3_600_000), (9_000_000, 7_200_000), (16_200_000, 10_800_000)),
)


@dataclass(frozen=True)
class Variable:
    """One variable with what a user has chosen.

    Args:
        chosen: values, or `ALL`.
        options: all values that there are.
        multi: whether several may be chosen.
        include_all: whether All may be.
        all_value: what stands for All, as it is; without it, All is all options.
    """

    chosen: Sequence[str]
    options: Sequence[str] = ()
    multi: bool = False
    include_all: bool = False
    all_value: str = ""

    def value(self) -> str | list[str]:
        """Return what is to be escaped: one text, or several."""
        chosen = list(self.options) if ALL in self.chosen else list(self.chosen)
        return chosen if self.multi or ALL in self.chosen else chosen[0]


@dataclass(frozen=True)
class Span:
    """A time range as a panel shows it: seconds, the points that fit into it, and the data source's scrape interval."""

    seconds: float
    points: int = 1000
    scrape: float = 15.0

    @property
    def interval(self) -> float:
        """Seconds between two points: $__interval."""
        return max(rounded(self.seconds / self.points), self.scrape)

    @property
    def rate_interval(self) -> float:
        """Seconds of $__rate_interval: at least four scrapes, and one more than the interval."""
        return max(self.interval + self.scrape, 4 * self.scrape)

    def values(self) -> dict[str, str]:
        """Return the global variables that follow from it."""
        seconds = {"interval": self.interval, "rate_interval": self.rate_interval, "range": round(self.seconds)}
        texts = {f"__{name}": duration(value) for name, value in seconds.items()}
        texts |= {f"__{name}_ms": f"{value * 1000:.0f}" for name, value in seconds.items()}
        return texts | {"__range_s": f"{seconds['range']}"}


def rounded(seconds: float) -> float:
    """Round as Grafana does, to a step that people like; up to three hours."""
    return _ROUNDED[bisect.bisect_right([below for below, _ in _ROUNDED], seconds * 1000)][1] / 1000


def duration(seconds: float) -> str:
    """Write a duration as Prometheus reads it."""
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def substitute(query: str, variables: Mapping[str, Variable], span: Span, language: str = "promql") -> str:
    """Return the query as it is sent.

    Args:
        query: with $name, ${name}, ${name:format} or [[name]].
        variables: the dashboard's, by name.
        span: the time range.
        language: promql, logql or traceql, each of which escapes in its own way.

    Raises:
        KeyError: a variable, or a format, that there is none of.
    """
    globals_ = span.values()

    def replaced(match: "re.Match[str]") -> str:
        name = match["a"] or match["b"] or match["c"]
        if name in globals_:
            return globals_[name]
        return _formatted(variables[name], match["bf"] or match["cf"] or "", language)

    return _USED.sub(replaced, query)


def _formatted(variable: Variable, form: str, language: str) -> str:
    if ALL in variable.chosen and variable.all_value:
        return variable.all_value  # whatever the format: it is the author's own expression
    return _FORMATS[form](variable.value()) if form else _LANGUAGES[language](variable)


def _promql(variable: Variable) -> str:
    value = variable.value()
    if not (variable.multi or variable.include_all):
        return _plain(value)
    return _alternatives(value, _escaped_in_text)


def _logql(variable: Variable) -> str:
    value = variable.value()
    if not (variable.multi or variable.include_all):
        return _plain(value)
    return "|".join(_escaped_in_text(each) for each in _several(value))


def _traceql(variable: Variable) -> str:
    return "|".join(_several(variable.value()))


def _plain(value: str | list[str]) -> str:
    return "".join(_several(value)).replace("\\", "\\\\").replace("'", "\\\\'")


def _escaped_in_text(value: str) -> str:
    """Escape for an expression within quotes, where a backslash takes two."""
    return re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))


def _escaped(value: str) -> str:
    return re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", value)


def _alternatives(value: str | list[str], escape: Callable[[str], str]) -> str:
    escaped = [escape(each) for each in _several(value)]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


_LANGUAGES: Final = {"promql": _promql, "logql": _logql, "traceql": _traceql}
_FORMATS: Final[dict[str, Callable[[str | list[str]], str]]] = {
    "csv": lambda value: ",".join(_several(value)),
    "doublequote": lambda value: ",".join('"' + each.replace('"', '\\"') + '"' for each in _several(value)),
    "glob": lambda value: "{" + ",".join(value) + "}" if len(_several(value)) > 1 else _several(value)[0],
    "json": lambda value: value if isinstance(value, str) else json.dumps(value),
    "pipe": lambda value: "|".join(_several(value)),
    "raw": lambda value: ",".join(_several(value)),
    "regex": lambda value: _alternatives(value, _escaped),
}
