"""A stand-in for Grafana, which cannot be had here: its documented HTTP API, strictly, as far as it is used.

Whatever the documentation does not have is refused: unknown fields and parameters, wrong types, missing rights. It is
no Grafana: docs/grafana.md says what that leaves unproven. Pages cited are below
https://grafana.com/docs/grafana/latest/developers/http_api/
"""

import itertools
import json
import re
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.grafana.api_annotations import Annotations
from tests.grafana.api_dashboards import Dashboards, Folders
from tests.grafana.api_sources import Sources
from tests.grafana.strict import RIGHTS, Json, Refused
from tests.server import free_port

TOKEN = "glsa_0123456789abcdefghijABCDEFGHIJ_0a1b2c3d"


@dataclass
class Saved:
    """A dashboard, with all of its versions, the newest last."""

    model: Json
    folder: str
    provisioned: bool = False
    versions: list[Json] = field(default_factory=list)


class Grafana:
    """The server; it runs while its block does, and `stop` and `start` make an outage.

    What it holds is open to tests: `dashboards`, `folders`, `sources`, `annotations`.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.version: str | None = "12.4.11"
        self.rights = set(RIGHTS)
        self.dashboards: dict[str, Saved] = {}
        self.folders: dict[str, str] = {}
        self.sources: dict[str, Json] = {}
        self.annotations: list[Json] = []
        self.requests: list[tuple[str, str]] = []
        self.wraps_versions = True
        self.schema = 42  # what dashboards are migrated to when they are read
        self.faults: list[Callable[[str, str], Response | None]] = []
        self.loki: dict[str, list[str]] = {}
        self.tempo: dict[str, list[Json]] = {}
        self.lock = threading.RLock()
        self._ids = itertools.count(1)
        self._app = _app(self)
        self._server: Any = None

    def __enter__(self) -> "Grafana":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server = make_server("127.0.0.1", self.port, self._app, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def id(self) -> int:
        return next(self._ids)

    # What people and circumstances do

    def edit(self, uid: str, by: str = "alice", **changes: Any) -> None:
        """Change a dashboard as somebody does on its page."""
        saved = self.dashboards[uid]
        self.save(saved.model | changes, saved.folder, "", by)

    def create(self, model: Json, folder: str = "", by: str = "alice") -> None:
        self.save(model, folder, "", by)

    def add_source(self, **source: Any) -> None:
        """Have a data source already."""
        made = {"access": "proxy", "jsonData": {}, "isDefault": False, "readOnly": False, "version": 1} | source
        self.sources[made["uid"]] = made | {"id": self.id()}

    def edit_source(self, uid: str, **changes: Any) -> None:
        """Change a data source as somebody does on its page."""
        self.sources[uid] |= changes | {"version": self.sources[uid]["version"] + 1}

    def answer(self, status: int, body: Any, path: str = "/api/", method: str = "", times: int = 1_000_000) -> None:
        """Answer so to requests of a path, instead of what is right."""
        left = itertools.repeat(True, times)

        def fault(asked_method: str, asked: str) -> Response | None:
            if not re.search(path, asked) or (method and method != asked_method) or not next(left, False):
                return None
            if isinstance(body, str):
                return Response(body, status, content_type="text/html; charset=utf-8")
            return Response(json.dumps(body), status, content_type="application/json")

        self.faults.append(fault)

    def before(self, path: str, method: str, do: Callable[[], None]) -> None:
        """Have something happen just before the first such request is looked at."""
        left = iter([True])

        def fault(asked_method: str, asked: str) -> None:
            if re.search(path, asked) and method == asked_method and next(left, False):
                do()

        self.faults.append(fault)

    def saves(self) -> list[tuple[str, str]]:
        """Return the requests that change something."""
        return [each for each in self.requests if each[0] != "GET" and each[1] != "/api/ds/query"]

    def save(self, model: Json, folder: str, message: str, by: str) -> Json:
        """Store the next version of a dashboard."""
        uid = model.get("uid") or f"made-{self.id()}"
        saved = self.dashboards.get(uid)
        number = saved.versions[-1]["version"] + 1 if saved else 1
        kept = deepcopy(model) | {"uid": uid, "version": number}
        kept["id"] = saved.model["id"] if saved else self.id()
        saved = self.dashboards.setdefault(uid, Saved(kept, folder))
        saved.model, saved.folder = kept, folder
        saved.versions.append(
            {
                "id": self.id(),
                "dashboardId": kept["id"],
                "dashboardUID": uid,
                "uid": uid,
                "parentVersion": number - 1,
                "restoredFrom": 0,
                "version": number,
                "created": "2026-01-01T00:00:00Z",
                "createdBy": by,
                "message": message,
            }
        )
        return kept

    def allow(self, *needed: str) -> None:
        """Refuse who lacks a right: each page's "Required permissions"."""
        for right in needed:
            if right not in self.rights:
                said = f"You'll need additional permissions to perform this action. Permissions needed: {right}"
                raise Refused(403, accessErrorId="ACE0123456789", message=said, title="Access denied")


class _Silent(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        pass


def _app(grafana: Grafana) -> Flask:
    app = Flask("grafana")
    app.before_request(lambda: _noted(grafana))

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        return jsonify(error.body), error.status

    @app.errorhandler(HTTPException)
    def unknown(error: HTTPException) -> tuple[Response, int]:
        return jsonify(message="Not found" if error.code == 404 else error.name), error.code or 500

    # other/#health-api: no authentication; the version can be hidden
    @app.get("/api/health")
    def health() -> Response:
        return jsonify({"commit": "0", "database": "ok"} | ({"version": grafana.version} if grafana.version else {}))

    for part in (Folders(grafana), Dashboards(grafana), Sources(grafana), Annotations(grafana)):
        for name in dir(part):
            if path := getattr(getattr(part, name), "endpoint", None):
                _serve(app, grafana, getattr(part, name), *path)
    return app


def _noted(grafana: Grafana) -> Response | None:
    asked = request.full_path.rstrip("?")
    grafana.requests.append((request.method, asked))
    for fault in list(grafana.faults):
        if (answer := fault(request.method, asked)) is not None:
            return answer
    return None


def _serve(
    app: Flask, grafana: Grafana, function: Callable[..., Any], path: str, method: str, rights: tuple[str, ...]
) -> None:
    """Serve an endpoint to whoever has the token and the rights: `authentication/`."""

    def run(**arguments: str) -> Any:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            body = {"extra": None, "message": "Invalid API key", "messageId": "api-key.invalid"}
            raise Refused(401, **body, statusCode=401, traceID="")
        grafana.allow(*rights)
        with grafana.lock:
            return jsonify(function(**arguments))

    app.add_url_rule(f"/api{path}", f"{method} {path}", run, methods=[method])
