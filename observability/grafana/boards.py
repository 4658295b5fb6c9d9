"""The dashboards' JSON: read from files, made to fit a Grafana's data sources, and compared with what that has."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from observability.grafana.errors import GrafanaError

Json = dict[str, Any]
VOLATILE = ("id", "version", "iteration")  # Grafana's own: they say which copy it is, not what is in it
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Board:
    """A committed dashboard."""

    path: Path
    model: Json

    @property
    def uid(self) -> str:
        """Its stable name."""
        return str(self.model["uid"])

    @property
    def title(self) -> str:
        """Its title."""
        return str(self.model["title"])


def load(directory: Path) -> list[Board]:
    """Read all dashboards of a directory.

    Raises:
        GrafanaError: there is none, or one that Grafana would not take.
    """
    try:
        found = [_read(path) for path in sorted(directory.glob("*.json"))]
    except OSError as error:
        raise GrafanaError(f"{error.filename} cannot be read: {error.strerror}") from None
    if not found:
        raise GrafanaError(f"No dashboard in {directory}: set GRAFANA_DASHBOARDS to the directory of their JSON")
    by_uid: dict[str, Board] = {}
    for board in found:
        if by_uid.setdefault(board.uid, board) is not board:
            raise GrafanaError(f"{board.path} has the uid of {by_uid[board.uid].path}: {board.uid}")
    return found


def _read(path: Path) -> Board:
    try:
        model = json.loads(path.read_text())
    except ValueError as error:
        raise GrafanaError(f"{path} is no JSON: {error}") from None
    if not isinstance(model, dict) or not _UID.fullmatch(str(model.get("uid", ""))):
        raise GrafanaError(f"{path} has no uid of at most 40 letters, digits, - and _")
    if not isinstance(model.get("title"), str) or not model["title"]:
        raise GrafanaError(f"{path} has no title")
    return Board(path, model)


def adapted(value: Any, uids: dict[str, str]) -> Any:
    """Return a copy in which a data source of ours is the one that stands for it.

    Args:
        value: a dashboard, or a part of one, or a data source's `jsonData`.
        uids: the uid to put in the place of each; a data source of ours has its type as its uid.
    """
    if isinstance(value, list):
        return [adapted(each, uids) for each in value]
    if not isinstance(value, dict):
        return value
    made = {key: adapted(each, uids) for key, each in value.items()}
    if isinstance(other := made.get("datasourceUid"), str):
        made["datasourceUid"] = uids.get(other, other)
    # a reference: our uid is the type, before or after
    if isinstance(uid := made.get("uid"), str) and uid in uids and made.get("type") in (uid, uids[uid]):
        made["uid"] = uids[uid]
    return made


def chosen(model: Json, names: dict[str, tuple[str, str]]) -> Json:
    """Return a dashboard whose choices of data sources begin with ours, where they begin with none.

    Args:
        model: the dashboard.
        names: name and uid of the data source by type.
    """
    made = {**model, "templating": {**model.get("templating", {})}}
    variables = []
    for each in model.get("templating", {}).get("list", []):
        if each.get("type") == "datasource" and not each.get("current") and each.get("query") in names:
            name, uid = names[each["query"]]
            each = {**each, "current": {"text": name, "value": uid}}
        variables.append(each)
    made["templating"]["list"] = variables
    return made


def plain(model: Json) -> Json:
    """Return a dashboard without what is Grafana's own."""
    return {key: value for key, value in model.items() if key not in VOLATILE}


def digest(value: Any) -> str:
    """Return what names a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def ordered_like(value: Any, model: Any) -> Any:
    """Return the value with its keys in the order that the model has, so that a comparison shows real changes only."""
    if isinstance(value, dict) and isinstance(model, dict):
        keys = [key for key in model if key in value] + sorted(key for key in value if key not in model)
        return {key: ordered_like(value[key], model.get(key)) for key in keys}
    if isinstance(value, list) and isinstance(model, list):
        return [ordered_like(each, _partner(each, index, model)) for index, each in enumerate(value)]
    return value


def _partner(value: Any, index: int, models: list[Any]) -> Any:
    for key in ("id", "refId", "name"):
        if isinstance(value, dict) and key in value:
            return next((each for each in models if isinstance(each, dict) and each.get(key) == value[key]), None)
    return models[index] if index < len(models) else None


def rendered(model: Json) -> str:
    """Write a dashboard as its file has it."""
    return json.dumps(model, indent=2) + "\n"
