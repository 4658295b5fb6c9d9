"""A Grafana by its HTTP API: grafana-client's calls, each answered with data or with one line of error.

https://grafana.com/docs/grafana/latest/developers/http_api/
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import niquests
from grafana_client import GrafanaApi
from grafana_client.client import GrafanaException
from urllib3.exceptions import HTTPError

from observability.grafana import errors
from observability.grafana.errors import GrafanaError
from observability.grafana.settings import Settings
from observability.settings import masked

T = TypeVar("T")
Json = dict[str, Any]

LEAST_VERSION = (11, 0)
_TOKEN = re.compile(r"[\x21-\x7e]+")
_VERSION = re.compile(r"(\d+)\.(\d+)")
_MOST_VERSIONS = 100
_FOLDERS = 1000  # of a page
_MOST_PAGES = 20


class Grafana:
    """One Grafana, and a token for it.

    Args:
        settings: where it is, and the token.

    Raises:
        GrafanaError: there is no token, or one that no header can carry.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = masked(settings.url)
        self.version = "unknown"
        self._token = _token(settings)
        self._timeout = settings.timeout
        # grafana-client appends `api` to the path as it stands
        address = settings.url.rstrip("/") + "/"
        self._api = self._guarded("be asked", GrafanaApi.from_url, address, self._token or None, settings.timeout)
        self._api.client.s.max_redirects = 0  # a redirect would turn what is to be saved into a question

    def connect(self) -> None:
        """Make sure that a Grafana answers, and that it is not too old.

        Raises:
            GrafanaError: it does not, or it is.
        """
        found = self._ask(dict, "say how it is", self._api.client.GET, "/health")
        if "database" not in found:
            raise GrafanaError(f"What answers at {self.url} is not Grafana; is GRAFANA_URL right?")
        self.version = str(found.get("version") or "unknown")  # an administrator can hide it
        number = _VERSION.match(self.version)
        if number and (int(number[1]), int(number[2])) < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise GrafanaError(f"Grafana at {self.url} is {self.version}, and {least} is the least supported version")

    # Folders and dashboards

    def folders(self) -> list[Json]:
        """Return the folders at the top, page by page.

        Raises:
            GrafanaError: there is no end of them.
        """
        found: list[Json] = []
        for page in range(1, _MOST_PAGES + 1):
            params = {"limit": _FOLDERS, "page": page}
            more = self._ask(list, "read the folders", self._api.client.GET, "/folders", params=params)
            found += self._objects(more, "uid")
            if len(more) < _FOLDERS:
                return found
        raise GrafanaError(f"Grafana at {self.url} has more than {_FOLDERS * _MOST_PAGES} folders at the top")

    def create_folder(self, title: str, uid: str) -> None:
        """Make a folder."""
        self._ask(dict, f"make the folder {title}", self._api.folder.create_folder, title, uid)

    def dashboards_in(self, folder: str) -> list[Json]:
        """Return what a search tells of a folder's dashboards."""
        search = self._api.search.search_dashboards
        found = self._ask(list, "search dashboards", search, type_="dash-db", folder_uids=[folder], limit=5000)
        return self._objects(found, "uid")

    def dashboard(self, uid: str) -> Json | None:
        """Return a dashboard with its `meta`, or nothing."""
        what, read = f"read the dashboard {uid}", self._api.dashboard.get_dashboard
        found: Json | None = self._or_none(dict, what, read, quote(uid, safe=""))
        if found is not None:
            self._objects([found.get("dashboard")], "id", "version")
        return found

    def versions(self, uid: str) -> list[Json]:
        """Return who has saved a dashboard with which message, the newest first."""
        path, params = f"/dashboards/uid/{quote(uid, safe='')}/versions", {"limit": _MOST_VERSIONS}
        found: Any = self._ask(object, f"read the versions of {uid}", self._api.client.GET, path, params=params)
        versions = found.get("versions", []) if isinstance(found, dict) else found  # the documented one is a bare list
        return sorted(self._objects(versions, "version"), key=lambda each: int(each["version"]), reverse=True)

    def save(self, dashboard: Json, folder: str, message: str) -> None:
        """Save a dashboard as the version after the one that it names.

        Raises:
            GrafanaError: with status 412, somebody else has saved it meanwhile.
        """
        body = {"dashboard": dashboard, "folderUid": folder, "message": message, "overwrite": False}
        what = f"save the dashboard {dashboard['uid']}"
        self._ask(dict, what, self._api.dashboard.update_dashboard, body)

    def remove_dashboard(self, uid: str) -> None:
        """Remove a dashboard."""
        self._ask(dict, f"remove the dashboard {uid}", self._api.dashboard.delete_dashboard, quote(uid, safe=""))

    # Data sources

    def sources(self) -> list[Json]:
        """Return the data sources."""
        return self._objects(self._ask(list, "read the data sources", self._api.datasource.list_datasources), "uid")

    def source(self, uid: str) -> Json | None:
        """Return a data source with its version, which the list of them lacks; or nothing."""
        read = self._api.datasource.get_datasource_by_uid
        found: Json | None = self._or_none(dict, f"read the data source {uid}", read, quote(uid, safe=""))
        if found is not None:
            self._objects([found], "uid", "version")
        return found

    def create_source(self, source: Json) -> None:
        """Make a data source."""
        self._ask(dict, f"make the data source {source['name']}", self._api.datasource.create_datasource, source)

    def update_source(self, source: Json) -> None:
        """Save a data source as the version after the one that it names.

        Raises:
            GrafanaError: with status 409, somebody else has saved it meanwhile.
        """
        what = f"change the data source {source['name']}"
        self._ask(dict, what, self._api.datasource.update_datasource_by_uid, quote(source["uid"], safe=""), source)

    def remove_source(self, uid: str) -> None:
        """Remove a data source."""
        remove = self._api.datasource.delete_datasource_by_uid
        self._ask(dict, f"remove the data source {uid}", remove, quote(uid, safe=""))

    def health(self, uid: str) -> Json | None:
        """Return what a data source says of itself; nothing where its type cannot say."""
        what = f"ask the data source {uid} how it is"
        return self._or_none(dict, what, self._api.datasource.health, quote(uid, safe=""))

    def query(self, queries: list[Json], start: int, end: int) -> Json:
        """Run queries; an answer that reports failures is an answer too.

        Args:
            queries: as a panel has them, each with its data source.
            start: Unix time in milliseconds.
            end: likewise.
        """
        body = {"queries": queries, "from": str(start), "to": str(end)}
        try:
            found = self._ask(dict, "run a query", self._api.client.POST, "/ds/query", json=body)
        except GrafanaError as error:
            if not isinstance(error.body.get("results"), dict):
                raise
            found = error.body
        return dict(found.get("results", {}))

    def resource(self, uid: str, path: str, params: Json) -> Json:
        """Ask a data source's own backend in Grafana, as variables do."""
        where = f"/datasources/uid/{quote(uid, safe='')}/resources/{path}"
        return self._ask(dict, "read the values of a variable", self._api.client.GET, where, params=params)

    def proxied(self, uid: str, path: str, params: Json) -> Json:
        """Ask what is behind a data source, through Grafana."""
        where = f"/datasources/proxy/uid/{quote(uid, safe='')}/{path}"
        return self._ask(dict, "run a query", self._api.client.GET, where, params=params)

    # Annotations

    def annotations(self, tags: list[str], start: int, end: int) -> list[Json]:
        """Return the annotations that carry all of the tags, between two times in milliseconds."""
        # not by `find_annotations`, which puts tags into the address as they are
        params = {"from": start, "to": end, "tags": tags, "type": "annotation", "limit": 100}
        found = self._ask(list, "read annotations", self._api.client.GET, "/annotations", params=params)
        return self._objects(found, "id", "time")

    def annotate(self, start: int, end: int, tags: list[str], text: str) -> int:
        """Make an annotation for the whole organization, and return its id."""
        add = self._api.annotations.add_annotation
        made = self._ask(dict, "annotate", add, time_from=start, time_to=end, tags=tags, text=text)
        return int(self._objects([made], "id")[0]["id"])

    def forget(self, annotation: int) -> None:
        """Remove an annotation."""
        self._ask(dict, "remove an annotation", self._api.annotations.delete_annotations_by_id, annotation)

    def _or_none(self, kind: type[T], what: str, function: Callable[..., Any], *arguments: Any) -> T | None:
        try:
            return self._ask(kind, what, function, *arguments)
        except GrafanaError as error:
            if error.status == 404:
                return None
            raise

    def _ask(self, kind: type[T], what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> T:
        found = self._guarded(what, function, *arguments, **named)
        if not isinstance(found, kind):
            page = " but a web page" if isinstance(found, str) else ""
            raise GrafanaError(f"What answers at {self.url} is not Grafana{page}; is GRAFANA_URL right?")
        return found

    def _objects(self, found: Any, *keys: str) -> list[Json]:
        """Refuse what is no list of objects that have these keys, on which whoever reads them relies."""
        if not isinstance(found, list) or not all(isinstance(each, dict) and {*keys} <= each.keys() for each in found):
            raise GrafanaError(f"What answers at {self.url} is not Grafana, by its answer; is GRAFANA_URL right?")
        return found

    def _guarded(self, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (GrafanaException, niquests.RequestException, HTTPError, OSError, ValueError) as error:
            raise errors.without(self._token, self._said(error, what)) from None

    def _said(self, error: Exception, what: str) -> GrafanaError:
        if isinstance(error, GrafanaException) and error.status_code:
            return errors.of_status(error.status_code, error.response, self.url, what)
        if isinstance(error, niquests.JSONDecodeError):
            return GrafanaError(f"What answers at {self.url} is not Grafana; is GRAFANA_URL right?")
        return errors.of_connection(error, self.url, self._timeout)


def _token(settings: Settings) -> str:
    token = settings.token
    if settings.token_file is not None:
        if token:
            raise GrafanaError("GRAFANA_TOKEN and GRAFANA_TOKEN_FILE are both set: choose one")
        token = settings.token_file.read_text().strip()
        if not token:
            raise GrafanaError(f"GRAFANA_TOKEN_FILE: {settings.token_file} is empty")
    if token and not _TOKEN.fullmatch(token):
        raise GrafanaError("The token holds spaces or letters that no token of Grafana has")
    if not token and not urlsplit(settings.url).password:
        raise GrafanaError("GRAFANA_TOKEN or GRAFANA_TOKEN_FILE is needed: docs/grafana.md says how to make a token")
    return token
