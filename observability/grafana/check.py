"""`grafana check`: are the data sources well, and does every panel's query, run by Grafana itself, return something?"""

import re
import time
from collections.abc import Iterator
from typing import Any

from observability.grafana import boards, sources, sync, variables
from observability.grafana.client import Grafana, Json
from observability.grafana.errors import GrafanaError, message
from observability.grafana.settings import Settings
from observability.grafana.variables import Variables
from observability.top.cells import printable

_POINTS = 300  # that a panel of usual width asks for
_PERIOD_MS = 30 * 60 * 1000
_NO_BACKEND = ("dashboard", "-- Dashboard --", "datasource", "-- Mixed --", "grafana", "-- Grafana --")
_TRACEQL_METRICS = re.compile(r"\|\s*(?:rate|compare|\w+_over_time)\s*\(")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def run(grafana: Grafana, settings: Settings, uids: list[str]) -> int:
    """Check everything, print what is not well, and return 1 if anything is."""
    check = Check(grafana, settings)
    troubles = [*check.sources(), *(found for uid in check.chosen(uids) for found in check.dashboard(uid))]
    for trouble in troubles:
        print(printable(trouble))
    failed = f"{len(troubles)} of them" if troubles else "none"
    print(
        f"{len(check.found)} data sources, {check.dashboards} dashboards and {check.queries} queries; {failed} failed."
    )
    return 1 if troubles else 0


class Check:
    """One check.

    Args:
        grafana: which Grafana.
        settings: the dashboards and the data sources that it should have.
    """

    def __init__(self, grafana: Grafana, settings: Settings) -> None:
        self.grafana, self.settings = grafana, settings
        self.boards = {board.uid: board for board in boards.load(settings.dashboards)}
        there = grafana.sources()
        folder = sync.find_folder(grafana, settings.folder)
        planned = sources.plan(settings, folder.uid, settings.folder, there)
        known = {str(each["uid"]): each for each in there}
        self.uids = planned.uids
        self.found = {kind: known[uid] for kind, uid in planned.uids.items() if uid in known}
        self.types = {uid: str(each.get("type")) for uid, each in known.items()}
        self.dashboards = self.queries = 0

    def chosen(self, uids: list[str]) -> list[str]:
        """Return the dashboards to be checked: those that were named, or all.

        Raises:
            GrafanaError: one that the code does not have.
        """
        if unknown := [uid for uid in uids if uid not in self.boards]:
            raise GrafanaError(f"No dashboard {unknown[0]} in {self.settings.dashboards}")
        return uids or list(self.boards)

    def sources(self) -> Iterator[str]:
        """Say which data sources are not there, or not well."""
        for kind, uid in self.uids.items():
            if kind not in self.found:
                yield f"data source {kind}: not there; `grafana sync` makes it"
                continue
            try:
                health = self.grafana.health(uid)  # none: the type has no health check, as Alertmanager's
            except GrafanaError as error:
                if error.ends_all and error.status < 500:
                    raise
                yield f"data source {uid}: {error}"
                continue
            if health is not None and health.get("status") != "OK":
                yield f"data source {uid}: {message(health)}"

    def dashboard(self, uid: str) -> Iterator[str]:
        """Say which panels of a dashboard, as Grafana has it, fail or are empty without saying that they may be."""
        there = self.grafana.dashboard(uid)
        if there is None:
            yield f"{uid}: not there; `grafana sync` brings it"
            return
        self.dashboards += 1
        model = there["dashboard"]
        now = int(time.time() * 1000)
        start = now - _period(model)
        times = {"__from": str(start), "__to": str(now)}

        def values(source: str, selector: str, label: str) -> list[str]:
            return self._values(source, selector, label, start, now)

        def result(source: str, expression: str) -> list[dict[str, str]]:
            return self._result(source, expression, now)

        chosen = variables.resolve(model, self.uids, values, result, times)
        for panel in _panels(model):
            for target in panel.get("targets") or []:
                if not target.get("hide"):
                    yield from self._target(uid, panel, target, chosen, (start, now))

    def _values(self, source: str, selector: str, label: str, start: int, end: int) -> list[str]:
        params: Json = {"start": start // 1000, "end": end // 1000}
        if selector:
            params["match[]"] = selector
        found = self.grafana.resource(source, f"api/v1/label/{label}/values", params)
        return [str(each) for each in found.get("data", [])]

    def _result(self, source: str, expression: str, at: int) -> list[dict[str, str]]:
        found = self.grafana.resource(source, "api/v1/query", {"query": expression, "time": at // 1000})
        return [dict(each.get("metric") or {}) for each in (found.get("data") or {}).get("result") or []]

    def _target(self, uid: str, panel: Json, target: Json, chosen: Variables, period: tuple[int, int]) -> Iterator[str]:
        query = chosen.filled(target)
        source = query.get("datasource") or chosen.filled(panel.get("datasource") or {})
        if source.get("uid") in _NO_BACKEND:
            return
        self.queries += 1
        where = f"{uid}: {panel.get('title')!r}, query {query.get('refId')}"
        try:
            filled = self._run({**query, "datasource": source}, period)
        except GrafanaError as error:
            if error.ends_all and error.status < 500:
                raise
            yield f"{where}: {error}"
            return
        rightly = (panel.get("fieldConfig") or {}).get("defaults", {}).get("noValue")
        if not filled and rightly is None:
            yield f"{where}: returned nothing"

    def _run(self, query: Json, period: tuple[int, int]) -> bool:
        """Run a query, and tell whether it returned something."""
        uid = str(query["datasource"].get("uid", ""))
        if self.types.get(uid) == "tempo" and not _TRACEQL_METRICS.search(str(query.get("query", ""))):
            # As Grafana's own page does it: "backend TraceQL search queries are not supported", only metrics of traces.
            params = {"q": query["query"], "limit": 20, "start": period[0] // 1000, "end": period[1] // 1000}
            return bool(self.grafana.proxied(uid, "api/search", params).get("traces"))
        step = max((period[1] - period[0]) // _POINTS, 1000)
        asked = {**query, "maxDataPoints": _POINTS, "intervalMs": step}
        results = self.grafana.query([asked], *period)
        result = results.get(query.get("refId", "A"), {})
        if error := result.get("error"):
            raise GrafanaError(message(error), int(result.get("status") or 400))
        return any(_filled(frame) for frame in result.get("frames") or [])


def _filled(frame: Json) -> bool:
    """Tell whether a frame has a value; times alone, and what is no number (NaN), show as nothing."""
    kinds = [each.get("type") for each in frame.get("schema", {}).get("fields", [])]
    columns: list[list[Any]] = frame.get("data", {}).get("values", [])
    return any(
        value is not None
        for kind, column in zip(kinds, columns, strict=False)
        if kind != "time" or len(kinds) == 1
        for value in column
    )


def _panels(model: Json) -> Iterator[Json]:
    """Yield the panels, those of folded rows included."""
    for panel in model.get("panels") or []:
        yield panel
        yield from panel.get("panels") or []


def _period(model: Json) -> int:
    """Return a dashboard's time range in milliseconds."""
    begins = str((model.get("time") or {}).get("from", ""))
    number, unit = begins.removeprefix("now-")[:-1], begins[-1:]
    return int(number) * _UNITS[unit] * 1000 if number.isdigit() and unit in _UNITS else _PERIOD_MS
