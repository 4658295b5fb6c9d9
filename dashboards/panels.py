"""The parts that every dashboard is made of: panels, rows, variables, each whole or not at all."""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
SELECTOR = 'job=~"$job",instance=~"$instance"'
WIDTH = 24
HEIGHT = 8


def query(expression: str, legend: str, *, exemplars: bool = False, instant: bool = False) -> Json:
    """Make one query; `@` in the expression stands for the selector of job and instance."""
    return {
        "datasource": DATASOURCE,
        "expr": expression.replace("@", SELECTOR),
        "legendFormat": legend,
        "exemplar": exemplars,
        "instant": instant,
        "range": not instant,
        "editorMode": "code",
    }


def timeseries(
    title: str, description: str, unit: str, queries: Sequence[Json], *, stacked: bool = False, low: float | None = 0
) -> Json:
    """Make a graph over time.

    Args:
        title: what it shows.
        description: what it means, and what to think of a high value.
        unit: Grafana's name of the unit.
        queries: made by `query`.
        stacked: whether the series add up to something.
        low: the axis's lower end; None leaves it to the data.
    """
    custom = {
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 10,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults: Json = {"unit": unit, "custom": custom} | ({} if low is None else {"min": low})
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, description, queries, defaults, options)


def stat(title: str, description: str, unit: str, queries: Sequence[Json]) -> Json:
    """Make a number: the last value."""
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options = {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    return _panel("stat", title, description, queries, {"unit": unit}, options)


def _panel(kind: str, title: str, description: str, queries: Sequence[Json], defaults: Json, options: Json) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [each | {"refId": chr(ord("A") + index)} for index, each in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def dashboard(uid: str, title: str, description: str, job_of: str, rows: Sequence[tuple[str, Sequence[Json]]]) -> Json:
    """Make a dashboard: rows of panels, each row's panels side by side and equally wide.

    Args:
        uid: its stable name in addresses.
        title: its title.
        description: the one question that it answers.
        job_of: a metric that every job to be chosen from has.
        rows: title and panels of each row.
    """
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["sightline"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables(job_of)},
        "annotations": {"list": []},
        "links": [],
        "panels": _layout(rows),
    }


def _variables(job_of: str) -> list[Json]:
    datasource = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return [
        datasource,
        _label_variable("job", "Job", f"label_values({job_of}, job)"),
        _label_variable("instance", "Instance", f'label_values({job_of}{{job=~"$job"}}, instance)'),
    ]


def _label_variable(name: str, label: str, values: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": values, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _layout(rows: Sequence[tuple[str, Sequence[Json]]]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for title, panels in rows:
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _at(0, y, WIDTH, 1)})
        width = WIDTH // len(panels)
        placed += [each | {"gridPos": _at(index * width, y + 1, width, HEIGHT)} for index, each in enumerate(panels)]
        y += 1 + HEIGHT
    return [{"id": number, **each} for number, each in enumerate(placed, start=1)]


def _at(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}
