"""Annotations of the stand-in; the pages cited are those of server.py."""

from typing import Any

from flask import request

from tests.grafana.strict import INT, NULL, STR, Fields, Json, Refused, endpoint, parameters, typed


class Annotations:
    """Annotations of the organization."""

    def __init__(self, grafana: Any) -> None:
        self.grafana = grafana

    # annotations/#create-annotation
    @endpoint("/annotations", "POST", "annotations:create")
    def create(self) -> Json:
        fields: Fields = {
            **dict.fromkeys(("dashboardUID", "text"), STR),
            **dict.fromkeys(("dashboardId", "panelId"), (int, NULL)),
            **dict.fromkeys(("time", "timeEnd"), INT),
            "tags": (list,),
        }
        body = typed(request.get_json(), fields)
        if not body.get("text"):
            raise Refused(400, message="Failed to save annotation", error="text field should not be empty")
        if any(not isinstance(each, str) for each in body.get("tags", [])):
            raise Refused(400, message="bad request data", error="tags")
        made = {
            "id": self.grafana.id(),
            "text": body["text"],
            "time": body["time"],
            "timeEnd": body.get("timeEnd", body["time"]),
        }
        self.grafana.annotations.append(
            made | {"tags": kept_tags(body.get("tags", [])), "dashboardUID": "", "login": "sa-1"}
        )
        return {"message": "Annotation added", "id": made["id"]}

    # annotations/#find-annotations
    @endpoint("/annotations", "GET", "annotations:read")
    def find(self) -> list[Json]:
        parameters(
            *("from", "to", "limit", "alertId", "dashboardId", "dashboardUID", "panelId", "userId", "type", "tags")
        )
        start, end = int(request.args.get("from", 0)), int(request.args.get("to", 0))
        wanted = set(kept_tags(request.args.getlist("tags")))
        found = [
            each
            for each in self.grafana.annotations
            if wanted <= set(each["tags"])
            and (not (start and end) or (each["time"] <= end and each["timeEnd"] >= start))
        ]
        return sorted(found, key=lambda each: -each["time"])[: int(request.args.get("limit", 100))]

    # annotations/#delete-annotation-by-id
    @endpoint("/annotations/<int:number>", "DELETE", "annotations:delete")
    def delete(self, number: int) -> Json:
        if not any(each["id"] == number for each in self.grafana.annotations):
            raise Refused(404, message="Annotation not found")
        self.grafana.annotations = [each for each in self.grafana.annotations if each["id"] != number]
        return {"message": "Annotation deleted"}


def kept_tags(given: list[str]) -> list[str]:
    """Tags as Grafana keeps them: pairs of key and value, without blanks around, each once, 100 characters at most."""
    kept: dict[str, None] = {}
    for each in given:
        key, colon, value = each.partition(":")
        key, value = key.strip(), value.strip()
        if len(key) > 100 or len(value) > 100:
            raise Refused(500, message="Failed to save annotation")
        if key:
            kept[f"{key}:{value}" if colon and value else key] = None
    return list(kept)
