"""The data sources that the dashboards ask: one of a Grafana's own where it has it, else one that is made.

One that is made is known by its uid, FOLDER-TYPE, and keeps in its `jsonData` a hash of what was last synced: Grafana
keeps there what it does not know, and a data source has no other place for a note. Where the hash is not that of the
data source any more, somebody has changed it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from observability.grafana import boards
from observability.grafana.plan import CREATE, KEEP, REMOVE, UNCHANGED, UPDATE, USE, Step
from observability.grafana.settings import NONE, Settings

Json = dict[str, Any]
KIND = "data source"
MARK = "sightlineSynced"
# What a sync writes, and what it would undo: an update puts all of a data source anew.
_HASHED = ("name", "type", "url", "access", "user", "database", "basicAuth", "withCredentials", "isDefault")

# As monitoring/grafana/provisioning/datasources has them, uids included; a test holds the two together.
NAMES = {"prometheus": "Prometheus", "alertmanager": "Alertmanager", "loki": "Loki", "tempo": "Tempo"}
JSON_DATA: dict[str, Json] = {
    "prometheus": {
        "httpMethod": "POST",
        "timeInterval": "5s",
        "exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": "tempo", "urlDisplayLabel": "Trace"}],
    },
    "alertmanager": {"implementation": "prometheus"},
    "loki": {
        "derivedFields": [
            {
                "name": "Trace",
                "matcherType": "label",
                "matcherRegex": "trace_id",
                "url": "${__value.raw}",
                "datasourceUid": "tempo",
                "urlDisplayLabel": "Trace",
            }
        ]
    },
    "tempo": {
        "tracesToLogsV2": {
            "datasourceUid": "loki",
            "spanStartTimeShift": "-1m",
            "spanEndTimeShift": "1m",
            "customQuery": True,
            "query": '{service=~".+"} | trace_id="${__span.traceId}"',
        },
        "tracesToMetrics": {
            "datasourceUid": "prometheus",
            "spanStartTimeShift": "-5m",
            "spanEndTimeShift": "5m",
            "tags": [{"key": "http.route", "value": "http_route"}],
            "queries": [
                {
                    "name": "Requests of this route",
                    "query": "sum(rate(http_server_request_duration_seconds_count{$__tags}[1m]))",
                }
            ],
        },
        "nodeGraph": {"enabled": False},
    },
}


@dataclass
class Sources:
    """The data sources of one Grafana, and which of them stands for which of ours.

    Args:
        folder: the folder's uid, from which the uids of those that are made are formed.
        uids: by our uid, which is also the type, the one that Grafana has or will have.
        bodies: what is to be created or updated, by uid.
        steps: the plan.
    """

    folder: str
    uids: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, Json] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


def addresses(settings: Settings) -> dict[str, str]:
    """Return each wanted type with its address."""
    given = {
        "prometheus": settings.prometheus_source,
        "alertmanager": settings.alertmanager_source,
        "loki": settings.loki_source,
        "tempo": settings.tempo_source,
    }
    return {kind: url for kind, url in given.items() if url != NONE}


def plan(settings: Settings, folder: str, title: str, found: list[Json], *, force: bool = False) -> Sources:
    """Find out which data sources there are, and which are to be made, changed, or removed.

    Args:
        settings: the addresses.
        folder: the folder's uid.
        title: the folder's title, with which names begin.
        found: what Grafana has.
        force: whether changes of others are overwritten.
    """
    made = Sources(folder)
    wanted = addresses(settings)
    chosen = {kind: _existing(kind, url, folder, found) for kind, url in wanted.items()}
    made.uids = {kind: each["uid"] if each else f"{folder}-{kind}" for kind, each in chosen.items()}
    for kind, url in wanted.items():
        made.steps.append(_step(made, _body(made, kind, url, title), chosen[kind], force))
    made.steps += _removals(folder, wanted, found, force)
    return made


def judged(made: Sources, uid: str, there: Json | None, *, force: bool = False) -> Step:
    """Say what is to be done with one that is to be created or updated, by what there is under its uid now."""
    return _step(made, made.bodies[uid], there, force)


def removal(there: Json, *, force: bool = False) -> Step:
    """Say what is to be done with one that a sync has made, and that is wanted no longer."""
    uid, name = there["uid"], str(there.get("name"))
    if _untouched(there) or force:
        return Step(REMOVE, KIND, uid, name)
    return Step(KEEP, KIND, uid, name, "changed there; --force removes it")


def _existing(kind: str, url: str, folder: str, found: list[Json]) -> Json | None:
    """Return the one that we have made, else one of the same type and address."""
    same = [each for each in found if each.get("type") == kind]
    ours = [each for each in same if each["uid"] == f"{folder}-{kind}"]
    theirs = [each for each in same if str(each.get("url", "")).rstrip("/") == url.rstrip("/")]
    theirs.sort(key=lambda each: (each["uid"] != kind, not each.get("isDefault"), each["uid"]))
    return next(iter(ours + theirs), None)


def _body(made: Sources, kind: str, url: str, title: str) -> Json:
    body = {
        "uid": f"{made.folder}-{kind}",
        "name": f"{title} {NAMES[kind]}",
        "type": kind,
        "access": "proxy",
        "url": url,
        "jsonData": boards.adapted(JSON_DATA[kind], made.uids),
    }
    body["jsonData"][MARK] = _hash(body)
    return body


def _step(made: Sources, body: Json, existing: Json | None, force: bool) -> Step:
    if existing is None:
        made.bodies[body["uid"]] = body
        return Step(CREATE, KIND, body["uid"], body["name"])
    uid, name = existing["uid"], str(existing.get("name"))
    if uid != body["uid"]:
        return Step(USE, KIND, uid, name, "of the same type and address")
    if _hash(existing) == _hash(body):
        return Step(UNCHANGED, KIND, uid, name)
    if not _untouched(existing) and not force:
        return Step(KEEP, KIND, uid, name, "changed there; --force overwrites it")
    made.bodies[uid] = body
    return Step(UPDATE, KIND, uid, name, "" if _untouched(existing) else "overwrites what was changed there")


def _removals(folder: str, wanted: dict[str, str], found: list[Json], force: bool) -> Iterator[Step]:
    for each in found:
        kind = str(each.get("type"))
        if kind in NAMES and kind not in wanted and each["uid"] == f"{folder}-{kind}":
            yield removal(each, force=force)


def _untouched(source: Json) -> bool:
    return bool((source.get("jsonData") or {}).get(MARK) == _hash(source))


def _hash(source: Json) -> str:
    kept = {key: source.get(key) or None for key in _HASHED}  # Grafana fills in false and "" for what was not said
    data = {key: value for key, value in (source.get("jsonData") or {}).items() if key != MARK}
    return boards.digest(kept | {"jsonData": data})
