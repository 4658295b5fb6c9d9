"""Asks what dashboards ask, as Grafana does: variables first, each with the choices that those before it leave."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from dashboards.build import Asked, build
from tests.dashboards.grafana import ALL, Span, Variable, substitute
from tests.prometheus import Prometheus
from tests.prove.scaling import seconds
from tests.server import ROOT

LABEL_VALUES: Final = re.compile(r"label_values\((?:(?P<of>.+),)?\s*(?P<label>\w+)\s*\)")
QUERY_RESULT: Final = re.compile(r"query_result\((?P<query>.+)\)")
BOARDS: Final[dict[str, Any]] = {board["uid"]: board for board in build().values()}
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Window:
    """A time range, in Unix time."""

    start: float
    end: float

    def span(self, scrape: float) -> Span:
        """Return what a panel of usual width makes of it."""
        return Span(self.end - self.start, points=1000, scrape=scrape)


@dataclass(frozen=True)
class Phase:
    """A time range with each dashboard's variables, as they were then: what was there since is in Prometheus too."""

    window: Window
    variables: Mapping[str, Mapping[str, Variable]]


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels but for the name, and its numbers, which are not NaN."""

    labels: dict[str, str]
    values: tuple[float, ...]

    @property
    def key(self) -> Labels:
        """What tells it from others."""
        return frozenset(self.labels.items())


@dataclass(frozen=True)
class Grafana:
    """A user of dashboards, on a Prometheus."""

    prometheus: Prometheus
    scrape: float

    def phase(self, window: Window, uids: Iterable[str] = BOARDS, **chosen: Sequence[str]) -> Phase:
        """Look at some dashboards now; what is not chosen is All."""
        return Phase(window, {uid: self._variables(uid, window, chosen) for uid in uids})

    def _variables(self, uid: str, window: Window, chosen: Mapping[str, Sequence[str]]) -> dict[str, Variable]:
        found: dict[str, Variable] = {}
        for each in BOARDS[uid]["templating"]["list"]:
            if each["type"] != "query":
                continue
            options = self.values(each, found, window)
            choice = chosen.get(each["name"], [ALL])
            found[each["name"]] = Variable(
                choice, options, each.get("multi", False), each.get("includeAll", False), each.get("allValue") or ""
            )
        return found

    def values(self, variable: Mapping[str, Any], variables: Mapping[str, Variable], window: Window) -> list[str]:
        """Return the choices of a variable."""
        query = substitute(variable["query"]["query"], variables, window.span(self.scrape))
        if result := QUERY_RESULT.fullmatch(query):
            lines = map(_line, self.prometheus.api("query", query=result["query"], time=window.end)["result"])
            wanted = re.compile(variable["regex"].strip("/"))
            return sorted({found[1] for line in lines if (found := wanted.search(line))})
        parts = LABEL_VALUES.fullmatch(query)
        assert parts, f"{query} is no query of a variable"
        matching = {"match[]": parts["of"]} if parts["of"] else {}
        found = self.prometheus.api(f"label/{parts['label']}/values", start=window.start, end=window.end, **matching)
        return sorted(each for each in found if each)

    def ask(self, asked: Asked, phase: Phase, *, once: bool | None = None) -> list[Series]:
        """Return the series of a panel's query, those left out that are nothing but NaN.

        Args:
            asked: a PromQL query.
            phase: over which, or at whose end, as the panel has it.
            once: whether to ask at the end only; None leaves it to the panel.
        """
        at_end = asked.shape in ("instant", "table") if once is None else once
        answer = self._answer(asked, phase, at_end=at_end)
        return [each for each in map(_series, answer) if each.values]

    def shown(self, asked: Asked, phase: Phase) -> list[float | None]:
        """Return what a number shows of each series of a range: what it has at the last point, which may be NaN.

        A series that has ended before is None: Grafana would show what it ended with.
        """
        step = self._span(asked, phase).interval
        points = (phase.window.end - phase.window.start) // step
        ends = [each["values"][-1] for each in self._answer(asked, phase, at_end=False)]
        return [float(value) if time > phase.window.start + (points - 0.5) * step else None for time, value in ends]

    def _answer(self, asked: Asked, phase: Phase, *, at_end: bool) -> list[dict[str, Any]]:
        window, span = phase.window, self._span(asked, phase)
        query = substitute(asked.expression, phase.variables[asked.dashboard], span)
        if at_end:
            return _results(self.prometheus.api("query", query=query, time=window.end))
        start, end = window.start, window.end
        return _results(self.prometheus.api("query_range", query=query, start=start, end=end, step=span.interval))

    def _span(self, asked: Asked, phase: Phase) -> Span:
        return phase.window.span(seconds(asked.every) if asked.every else self.scrape)


def _line(result: dict[str, Any]) -> str:
    """Write a series as Grafana does before a variable's regular expression looks at it."""
    inner = ",".join(f'{name}="{value}"' for name, value in result["metric"].items() if name != "__name__")
    return f"{result['metric'].get('__name__', '')}{{{inner}}} {' '.join(map(str, result['value'][::-1]))}"


def provisioned() -> float:
    """Return the scrape interval that Grafana is told, in seconds: rates are over four of it."""
    sources = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/sightline.yml").read_text())
    (told,) = [each["jsonData"]["timeInterval"] for each in sources["datasources"] if each["uid"] == "prometheus"]
    return seconds(told)


def _results(found: dict[str, Any]) -> list[dict[str, Any]]:
    if found["resultType"] in ("scalar", "string"):
        return [{"metric": {}, "value": found["result"]}]
    results: list[dict[str, Any]] = found["result"]
    return results


def _series(result: dict[str, Any]) -> Series:
    labels = {name: value for name, value in result["metric"].items() if name != "__name__"}
    numbers = [float(value) for _, value in result.get("values", [result.get("value")])]
    return Series(labels, tuple(each for each in numbers if not math.isnan(each)))
