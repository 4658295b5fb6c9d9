"""Folders, search and dashboards of the stand-in; the pages cited are those of server.py."""

from typing import Any

from flask import request

from tests.grafana.strict import BOOL, INT, NULL, STR, Json, Refused, check_uid, endpoint, parameters, typed


class Folders:
    """Folders, and the search."""

    def __init__(self, grafana: Any) -> None:
        self.grafana = grafana

    # folder/#get-all-folders
    @endpoint("/folders", "GET", "folders:read")
    def folders(self) -> list[Json]:
        parameters("limit", "page", "parentUid")
        limit, page = (int(request.args.get(name, usual)) for name, usual in (("limit", 1000), ("page", 1)))
        every = [{"id": 1, "uid": uid, "title": title} for uid, title in self.grafana.folders.items()]
        return every[(page - 1) * limit : page * limit]

    # folder/#create-folder: 409 where it exists
    @endpoint("/folders", "POST", "folders:create")
    def create_folder(self) -> Json:
        body = typed(request.get_json(), {"uid": STR, "title": STR, "parentUid": STR}, ("title",))
        check_uid(body["uid"], "folder")
        if body["uid"] in self.grafana.folders:
            raise Refused(409, message="a folder with that uid already exists")
        self.grafana.folders[body["uid"]] = body["title"]
        return {"id": self.grafana.id(), "uid": body["uid"], "title": body["title"], "version": 1}

    # folder_dashboard_search/
    @endpoint("/search", "GET")
    def search(self) -> list[Json]:
        parameters(*("query", "tag", "type", "dashboardIds", "dashboardUIDs", "folderUIDs", "starred", "limit", "page"))
        if int(request.args.get("limit", 1000)) > 5000:
            raise Refused(422, message="limit is above 5000")
        wanted = request.args.getlist("folderUIDs")
        return [
            {
                "id": each.model["id"],
                "uid": uid,
                "title": each.model["title"],
                "type": "dash-db",
                "folderUid": each.folder,
            }
            for uid, each in self.grafana.dashboards.items()
            if not wanted or each.folder in wanted
        ]


class Dashboards:
    """Dashboards, and their versions."""

    def __init__(self, grafana: Any) -> None:
        self.grafana = grafana

    def found(self, uid: str) -> Any:
        if uid not in self.grafana.dashboards:
            raise Refused(404, message="Dashboard not found")
        return self.grafana.dashboards[uid]

    # dashboard/#get-dashboard-by-uid
    @endpoint("/dashboards/uid/<uid>", "GET", "dashboards:read")
    def get(self, uid: str) -> Json:
        saved = self.found(uid)
        model = saved.model | {"schemaVersion": max(self.grafana.schema, saved.model.get("schemaVersion", 0))}
        meta = {"folderUid": saved.folder, "url": f"/d/{uid}/x", "provisioned": saved.provisioned}
        return {"dashboard": model, "meta": meta | {"version": saved.model["version"]}}

    # dashboard/#delete-dashboard-by-uid
    @endpoint("/dashboards/uid/<uid>", "DELETE", "dashboards:delete")
    def delete(self, uid: str) -> Json:
        title = self.found(uid).model["title"]
        del self.grafana.dashboards[uid]
        return {"title": title, "message": f"Dashboard {title} deleted", "id": 2}

    # dashboard_versions/#get-all-dashboard-versions-by-dashboard-uid; since Grafana 11 within an object
    @endpoint("/dashboards/uid/<uid>/versions", "GET", "dashboards:write")
    def versions(self, uid: str) -> Any:
        parameters("limit", "start")
        newest = self.found(uid).versions[::-1][: int(request.args.get("limit", 1000))]
        return {"continueToken": "", "versions": newest} if self.grafana.wraps_versions else newest

    # dashboard/#create--update-dashboard
    @endpoint("/dashboards/db", "POST")
    def save(self) -> Json:
        fields = {"dashboard": (dict,), "folderUid": STR, "folderId": INT, "message": STR, "overwrite": BOOL}
        body = typed(request.get_json(), fields, ("dashboard",))
        model, folder = body["dashboard"], body.get("folderUid", "")
        if not isinstance(model.get("title"), str) or not model["title"]:
            raise Refused(400, message="Dashboard title cannot be empty", status="empty-name")
        check_uid(model.get("uid"), "dashboard")
        if not isinstance(model.get("id"), int | NULL) or not isinstance(model.get("version", 0), int):
            raise Refused(400, message="bad request data", error="id and version are numbers")
        if folder and folder not in self.grafana.folders:
            raise Refused(400, message="folder not found")
        saved = self.grafana.dashboards.get(model["uid"])
        self.grafana.allow("dashboards:write" if saved else "dashboards:create")
        _precondition(saved, model, body.get("overwrite", False))
        kept = self.grafana.save(model, folder, body.get("message", ""), "sa-1-sightline")
        keys = {"id": kept["id"], "uid": kept["uid"], "version": kept["version"], "folderUid": folder}
        return keys | {"status": "success", "slug": "x", "url": f"/d/{kept['uid']}/x"}


def _precondition(saved: Any, model: Json, overwrite: bool) -> None:
    """Status 412 of dashboard/#create--update-dashboard."""
    if saved is None:
        if model.get("id"):
            raise Refused(404, message="Dashboard not found", status="not-found")
        return
    if saved.provisioned:
        raise Refused(400, message="Cannot save provisioned dashboard")
    if overwrite:
        return
    if not model.get("id"):
        raise Refused(412, message="A dashboard with the same uid already exists", status="name-exists")
    if model.get("version") != saved.model["version"]:
        raise Refused(412, message="The dashboard has been changed by someone else", status="version-mismatch")
