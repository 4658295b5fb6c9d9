"""Data sources and queries of the stand-in; the pages cited are those of server.py."""

import re
from typing import Any

import requests
from flask import request

from tests.grafana.strict import BOOL, INT, NULL, STR, Fields, Json, Refused, check_uid, endpoint, typed

_SOURCE: Fields = {
    **dict.fromkeys(("uid", "name", "type", "access", "url", "user", "database", "basicAuthUser"), STR),
    **dict.fromkeys(("basicAuth", "isDefault", "withCredentials", "readOnly"), BOOL),
    **dict.fromkeys(("id", "orgId", "version"), INT),
    **dict.fromkeys(("jsonData", "secureJsonData"), (dict, NULL)),
}


class Sources:
    """Data sources, and what is behind them."""

    def __init__(self, grafana: Any) -> None:
        self.grafana = grafana

    def found(self, uid: str) -> Json:
        if uid not in self.grafana.sources:
            raise Refused(404, message="Data source not found")
        return self.grafana.sources[uid]

    def checked(self) -> Json:
        body = typed(request.get_json(), _SOURCE, ("name", "type", "access"))
        check_uid(body.get("uid", "x"), "data source")
        if body["access"] not in ("proxy", "direct"):
            raise Refused(400, message="bad request data", error="access")
        if any(
            each["name"] == body["name"] and each["uid"] != body.get("uid") for each in self.grafana.sources.values()
        ):
            raise Refused(409, message="data source with the same name already exists")
        return body

    # data_source/#get-all-data-sources: less of each than alone
    @endpoint("/datasources", "GET", "datasources:read")
    def every(self) -> list[Json]:
        return [
            {key: value for key, value in each.items() if key not in ("version", "withCredentials")}
            for each in self.grafana.sources.values()
        ]

    # data_source/#get-a-single-data-source-by-uid
    @endpoint("/datasources/uid/<uid>", "GET", "datasources:read")
    def one(self, uid: str) -> Json:
        return self.found(uid)

    # data_source/#create-a-data-source
    @endpoint("/datasources", "POST", "datasources:create")
    def create(self) -> Json:
        body = self.checked()
        if body["uid"] in self.grafana.sources:
            raise Refused(409, message="data source with the same uid already exists")
        self.grafana.add_source(**body)
        return {
            "datasource": self.grafana.sources[body["uid"]],
            "id": 1,
            "message": "Datasource added",
            "name": body["name"],
        }

    # data_source/#update-an-existing-data-source; what a `version` does is in Grafana's own pkg/services/datasources:
    # one that is not the newest is refused, and none overwrites whatever there is
    @endpoint("/datasources/uid/<uid>", "PUT", "datasources:write")
    def update(self, uid: str) -> Json:
        if self.found(uid)["readOnly"]:
            raise Refused(403, message="Cannot update read-only data source")
        body = self.checked()
        version = body.get("version", 0)
        if version and version < self.grafana.sources[uid]["version"]:
            said = "Datasource has already been updated by someone else. Please reload and try again"
            raise Refused(409, message=said)
        self.grafana.sources[uid] |= body | {"version": version + 1}
        return {"datasource": self.grafana.sources[uid], "id": 1, "message": "Datasource updated", "name": body["name"]}

    # data_source/#delete-an-existing-data-source-by-uid
    @endpoint("/datasources/uid/<uid>", "DELETE", "datasources:delete")
    def delete(self, uid: str) -> Json:
        self.found(uid)
        del self.grafana.sources[uid]
        return {"message": "Data source deleted", "id": 1}

    # data_source/#check-data-source-health; a type without a backend has none
    @endpoint("/datasources/uid/<uid>/health", "GET", "datasources:query")
    def health(self, uid: str) -> Json:
        source = self.found(uid)
        if source["type"] == "alertmanager":
            raise Refused(404, message="Plugin not found")
        if source["type"] == "prometheus":
            try:
                requests.get(f"{source['url']}/-/ready", timeout=5).raise_for_status()
            except requests.RequestException:
                raise Refused(
                    400, message="There was an error returned querying the Prometheus API.", status="ERROR"
                ) from None
        return {"message": "Successfully queried the API.", "status": "OK"}

    # data_source/#fetch-data-source-resources
    @endpoint("/datasources/uid/<uid>/resources/api/v1/label/<label>/values", "GET", "datasources:query")
    def resource(self, uid: str, label: str) -> Json:
        url = f"{self.found(uid)['url']}/api/v1/label/{label}/values"
        return requests.get(url, params=request.args.to_dict(flat=False), timeout=5).json()

    @endpoint("/datasources/uid/<uid>/resources/api/v1/query", "GET", "datasources:query")
    def instant(self, uid: str) -> Json:
        url = f"{self.found(uid)['url']}/api/v1/query"
        return requests.get(url, params=request.args.to_dict(flat=False), timeout=5).json()

    # data_source/#data-source-proxy-calls
    @endpoint("/datasources/proxy/uid/<uid>/api/search", "GET", "datasources:query")
    def proxy(self, uid: str) -> Json:
        if self.found(uid)["type"] != "tempo":
            raise Refused(404, message="Not found")
        return {"traces": self.grafana.tempo.get(request.args["q"], [])}

    # data_source/#query-a-data-source
    @endpoint("/ds/query", "POST", "datasources:query")
    def query(self) -> Json:
        body = typed(request.get_json(), {"queries": (list,), "from": STR, "to": STR}, ("queries", "from", "to"))
        results = {each.get("refId", "A"): _answered(self, each, body) for each in body["queries"]}
        if any("error" in each for each in results.values()):
            raise Refused(400, results=results)
        return {"results": results}


def _answered(sources: Sources, query: Json, body: Json) -> Json:
    """Run one query as Grafana's backend does: Prometheus's really, Loki's and Tempo's as a test has laid them down."""
    if not isinstance(query.get("datasource"), dict) or not isinstance(query["datasource"].get("uid"), str):
        raise Refused(400, message="bad request data", error="missing data source")
    for name in ("maxDataPoints", "intervalMs"):
        if not isinstance(query.get(name, 0), int):
            raise Refused(400, message="bad request data", error=name)
    source = sources.found(query["datasource"]["uid"])
    if source["type"] == "tempo":
        return {"error": "backend TraceQL search queries are not supported", "errorSource": "plugin", "status": 500}
    if source["type"] == "loki":
        lines = sources.grafana.loki.get(query["expr"], [])
        return {"status": 200, "frames": [_frame("string", "Line", [1] * len(lines), lines)] if lines else []}
    return _from_prometheus(source["url"], query, body)


_MACROS = {
    "$__rate_interval": "1m",
    "$__rate_interval_ms": "60000",
    "$__interval": "15s",
    "$__range": "30m",
    "$__range_s": "1800",
}


def _from_prometheus(url: str, query: Json, body: Json) -> Json:
    expression = re.sub(r"\$__\w+", lambda found: _MACROS[found[0]], query["expr"])
    start, end = int(body["from"]) / 1000, int(body["to"]) / 1000
    if query.get("instant"):
        answer = requests.get(f"{url}/api/v1/query", {"query": expression, "time": end}, timeout=10).json()
    else:
        params = {"query": expression, "start": start, "end": end, "step": max(query["intervalMs"] / 1000, 1)}
        answer = requests.get(f"{url}/api/v1/query_range", params, timeout=10).json()
    if answer["status"] != "success":
        return {"error": f"{answer['errorType']}: {answer['error']}", "errorSource": "downstream", "status": 400}
    frames = []
    for series in answer["data"]["result"]:
        samples = series.get("values") or [series["value"]]
        values = [None if value == "NaN" else float(value) for _, value in samples]
        frames.append(_frame("number", "Value", [int(time * 1000) for time, _ in samples], values))
    return {"status": 200, "frames": frames}


def _frame(kind: str, name: str, times: list[int], values: list[Any]) -> Json:
    fields = [{"name": "Time", "type": "time"}, {"name": name, "type": kind}]
    return {"schema": {"fields": fields}, "data": {"values": [times, values]}}
