"""Ask a dashboard's queries as Grafana does, and keep the answers in the form that the page draws (src/recorded.ts)."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import pstdev
from typing import Any, Final

import requests

Json = dict[str, Any]
# (a query, its variables' values by name, the points that fit into its panel, its language, its least interval)
# -> what Grafana sends
Substitute = Callable[[str, Mapping[str, "Choice"], int, str, str], str]
Ask = Callable[[str, str], Json]  # (expression, its variables being substituted, and the panel's type) -> the answer

ALL: Final = "All"
PIXELS: Final = 1600 // 24  # of a column, as the page is drawn: a graph is asked for a point for each pixel
LABEL_VALUES: Final = re.compile(r"label_values\((?:(?P<of>.+),)?\s*(?P<label>\w+)\)", re.DOTALL)
QUERY_RESULT: Final = re.compile(r"query_result\((?P<query>.+)\)", re.DOTALL)
_EXEMPLAR_DEVIATIONS: Final = 2  # Grafana leaves out exemplars that lie nearer to each other, in one step
_TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True)
class Choice:
    """What a variable stands for: all its options."""

    options: list[str]
    all_value: str
    multi: bool


@dataclass(frozen=True)
class Recorder:
    """Asks Prometheus for one time range, and others for what is not in Prometheus.

    Args:
        prometheus: its address.
        start: Unix time.
        end: Unix time.
        step: (points, a query's least interval or "") -> seconds between two of them, as Grafana rounds.
        substitute: puts values in the place of variables.
        absent: why a query is not asked; nothing where it is.
        others: by language, who answers what Prometheus does not.
    """

    prometheus: str
    start: float
    end: float
    step: Callable[[int, str], float]
    substitute: Substitute
    absent: Callable[[str], str]
    others: Mapping[str, Ask] = field(default_factory=dict)

    def record(self, dashboard: Json) -> Json:
        """Return the dashboard with its answers."""
        choices = self._choices(dashboard)
        return {
            "dashboard": dashboard,
            "from": self.start,
            "to": self.end,
            "variables": [_shown(each) for each in dashboard["templating"]["list"] if not each.get("hide")],
            "answers": {str(panel["id"]): dict(self._answers(panel, choices)) for panel in _panels(dashboard)},
            "marks": [
                self._marks(each, choices) for each in dashboard["annotations"]["list"] if "expr" in _asked(each)
            ],
        }

    def _choices(self, dashboard: Json) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                asked = self.substitute(variable["query"]["query"], choices, 1000, "promql", "")
                options = self._options(asked.strip(), variable.get("regex", ""))
                choices[variable["name"]] = Choice(options, variable.get("allValue", ""), variable.get("multi", False))
        return choices

    def _options(self, asked: str, pattern: str) -> list[str]:
        if result := QUERY_RESULT.fullmatch(asked):
            series = self._api("query", query=result["query"], time=self.end)["result"]
            lines = (",".join(f'{name}="{value}"' for name, value in each["metric"].items()) for each in series)
            wanted = re.compile(pattern.strip("/"))
            return sorted({taken[1] for line in lines if (taken := wanted.search(line))})
        found = LABEL_VALUES.fullmatch(asked)
        if found is None:
            raise ValueError(f"no label_values() or query_result(): {asked}")
        matching = {"match[]": found["of"].strip()} if found["of"] else {}
        values: list[str] = self._api(f"label/{found['label']}/values", **matching)
        return sorted(filter(None, values))

    def _answers(self, panel: Json, choices: Mapping[str, Choice]) -> Iterator[tuple[str, Json]]:
        for target in panel.get("targets", []):
            try:
                yield target["refId"], self._answer(panel, target, choices)
            except (ValueError, KeyError) as error:  # as in Grafana, a query that fails is its panel's trouble alone
                print(f"{panel['title']}: {error!r}", flush=True)
                yield target["refId"], _answer("note", note="The query failed")

    def _answer(self, panel: Json, target: Json, choices: Mapping[str, Choice]) -> Json:
        points = panel.get("maxDataPoints") or panel["gridPos"]["w"] * PIXELS
        language = _language(target)
        least = target.get("interval", "")
        asked = self.substitute(target.get("expr") or target["query"], choices, points, language, least)
        if why := self.absent(asked):
            return _answer("note", note=why)
        if language in self.others:
            return _answer(**self.others[language](asked, panel["type"]))
        if target.get("instant"):
            return _answer("vector", series=self._instant(asked))
        step = self.step(points, least)
        exemplars = self._exemplars(asked, step) if target.get("exemplar") else []
        return _answer("matrix", step=step, series=self._range(asked, step), exemplars=exemplars)

    def _instant(self, asked: str) -> list[Json]:
        found = self._api("query", query=asked, time=self.end)
        if found["resultType"] == "scalar":
            return [{"metric": {}, "values": [found["result"]]}]
        return [{"metric": each["metric"], "values": [each["value"]]} for each in found["result"]]

    def _range(self, asked: str, step: float) -> list[Json]:
        start, end = (self.start // step * step, self.end // step * step)
        series: list[Json] = self._api("query_range", query=asked, start=start, end=end, step=step)["result"]
        return series

    def _exemplars(self, asked: str, step: float) -> list[Json]:
        found = self._api("query_exemplars", query=asked, start=self.start, end=self.end)
        return _sampled([exemplar for series in found for exemplar in series["exemplars"]], step)

    def _marks(self, annotation: Json, choices: Mapping[str, Choice]) -> Json:
        step = 5.0
        target = _asked(annotation)
        asked = self.substitute(target["expr"], choices, 1000, "promql", target.get("interval", ""))
        times = [begun for series in self._range(asked, step) for begun in _begins(series["values"], step)]
        return {"name": annotation["name"], "color": annotation["iconColor"], "times": sorted(set(times))}

    def _api(self, path: str, **parameters: object) -> Any:
        answer = requests.post if path.startswith("query") else requests.get
        found = answer(f"{self.prometheus}/api/v1/{path}", params=parameters, timeout=_TIMEOUT_SECONDS)  # type: ignore[arg-type]
        if not found.ok:
            raise ValueError(f"{parameters}: {found.text[:500]}")
        return found.json()["data"]


def renewed(recorded: Json, dashboard: Json) -> Json:
    """Return recorded answers with the dashboard as it is now, which may look different as long as it asks the same.

    Raises:
        ValueError: a panel asks what was not recorded.
    """
    answers = recorded["answers"]
    known = {_asks(panel): answers[str(panel["id"])] for panel in _panels(recorded["dashboard"])}
    missing = [panel["title"] for panel in _panels(dashboard) if _asks(panel) not in known]
    if missing:
        raise ValueError(f"{dashboard['title']}: {', '.join(missing)}")
    return recorded | {
        "dashboard": dashboard,
        "answers": {str(panel["id"]): known[_asks(panel)] for panel in _panels(dashboard)},
    }


def _asks(panel: Json) -> str:
    asked = ("refId", "expr", "query", "format", "instant", "exemplar")
    return json.dumps([[target.get(each) for each in asked] for target in panel.get("targets", [])])


def _answer(kind: str, **more: Any) -> Json:
    return {"kind": kind, "step": 0, "series": [], "exemplars": [], "lines": [], "rows": [], "note": ""} | more


def _panels(dashboard: Json) -> Iterator[Json]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def _language(target: Json) -> str:
    return {"loki": "logql", "tempo": "traceql"}.get(target.get("datasource", {}).get("type", ""), "promql")


def _asked(annotation: Json) -> Json:
    found: Json = annotation.get("target") or {}
    return found


def _shown(variable: Json) -> Json:
    text = ALL if variable["type"] == "query" else variable["query"].capitalize()
    return {"name": variable["name"], "label": variable.get("label") or variable["name"], "text": text}


def _begins(values: list[list[Any]], step: float) -> Iterator[float]:
    """Yield the times at which values other than zero begin: one mark for as long as they last."""
    last = -step
    for time, value in values:
        if float(value) != 0:
            if time - last > step * 1.5:
                yield time
            last = time


def _sampled(exemplars: list[Json], step: float) -> list[Json]:
    """Leave out what lies near to another, as Grafana does: of each step the highest, and those well below the last."""
    apart = _EXEMPLAR_DEVIATIONS * pstdev([float(each["value"]) for each in exemplars]) if exemplars else 0.0
    kept: list[Json] = []
    steps: dict[int, list[Json]] = {}
    for each in exemplars:
        steps.setdefault(int(each["timestamp"] // step), []).append(each)
    for each_step in steps.values():
        lowest = float("inf")
        for exemplar in sorted(each_step, key=lambda one: -float(one["value"])):
            if lowest - float(exemplar["value"]) >= apart:
                kept.append(exemplar)
                lowest = float(exemplar["value"])
    return kept
