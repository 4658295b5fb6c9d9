"""What stands around the panels: variables, links, annotations, and the place of each panel."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from dashboards import palette, thresholds
from dashboards.panels import PROMETHEUS, Panel, Query

Json = dict[str, Any]
Line = Sequence[Panel]

TAG: Final = "sightline"
WIDTH: Final = 24
ALL: Final = models.VariableOption(selected=True, text=["All"], value=["$__all"])
OF_ENVIRONMENT: Final = 'deployment_environment_name=~"$environment"'
OF_INSTANCE: Final = 'job=~"$job",instance=~"$instance"'


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard; `query` is none for a choice of data sources."""

    name: str
    label: str
    source: str = ""
    query: Query | None = None
    all_value: str = ""
    hidden: bool = False

    @property
    def pattern(self) -> str:
        """What is taken from each line of a `query_result`; "" where values come by themselves."""
        query = self.query
        return f'/{query.by[0]}="([^"]+)"/' if query is not None and query.language == "query_result" else ""


@dataclass(frozen=True)
class Annotation:
    """Moments that are marked in every graph."""

    name: str
    query: Query
    colour: str
    text: str


@dataclass(frozen=True)
class Dashboard:
    """A whole dashboard; `rows` are titles, each with its lines of panels."""

    uid: str
    title: str
    question: str
    variables: Sequence[Variable]
    rows: Sequence[tuple[str, Sequence[Line]]]
    annotations: Sequence[Annotation] = ()
    period: str = "now-30m"

    def panels(self) -> Iterator[Panel]:
        """Yield the panels in their order."""
        for _, lines in self.rows:
            for line in lines:
                yield from line


def _choice(name: str, label: str, values: str, most: int, all_value: str = "", needs: str = "") -> Variable:
    of = values.rpartition(",")[2].strip(" )")
    return Variable(name, label, "", Query("label_values", values, by=(of,), most=most, needs=needs), all_value)


def _lately(name: str, label: str, of: str, *matching: str, most: int, **more: Any) -> Variable:
    """Offer the values of a label of servers that there were in the last day.

    So what is chosen goes on standing for them while none of them is seen, however short a time is shown.
    """
    selector = f"{{{','.join(matching)}}}" if matching else ""
    asked = f"query_result(group by ({of}) (last_over_time(target_info{selector}[1d])))"
    return Variable(name, label, "", Query("query_result", asked, by=(of,), most=most), **more)


DATASOURCE: Final = Variable("datasource", "Metrics", "prometheus")
LOKI: Final = Variable("loki", "Logs", "loki")
TEMPO: Final = Variable("tempo", "Traces", "tempo")
ENVIRONMENT: Final = _lately("environment", "Environment", "deployment_environment_name", most=5, all_value=".*")
JOB: Final = _lately("job", "Job", "job", OF_ENVIRONMENT, most=5)
INSTANCE: Final = _lately("instance", "Instance", "instance", OF_ENVIRONMENT, 'job=~"$job"', most=10)
# What lines and spans call the chosen servers: they know no job and no instance.
NAME: Final = _lately("name", "Name", "service_name", OF_ENVIRONMENT, OF_INSTANCE, most=5, hidden=True)
# What load balancers and probes ask is nobody's request: it would hide what users feel.
OF_USERS: Final = f'http_route!~"{"|".join(thresholds.PROBES)}"'
# Requests that no route matched have an empty route, which is among all, and not among the choices.
ROUTE: Final = _choice(
    "route",
    "Route",
    f"label_values(http_server_request_duration_seconds_count{{{OF_INSTANCE},{OF_USERS}}}, http_route)",
    most=40,
    all_value=".*",
)
WORKER: Final = _choice(
    "worker", "Worker", f"label_values(gunicorn_worker_info{{{OF_INSTANCE}}}, worker)", most=64, all_value=".*"
)
SERVICE: Final = (DATASOURCE, ENVIRONMENT, JOB, INSTANCE)


def build(dashboard: Dashboard) -> Json:
    """Return the JSON that Grafana imports."""
    made = sdk.Dashboard(dashboard.title).uid(dashboard.uid).description(dashboard.question).tags([TAG]).readonly()
    made.tooltip(models.DashboardCursorSync.CROSSHAIR).refresh("10s").time(dashboard.period, "now").timezone("browser")
    made.link(_links()).variables([_variable(each) for each in dashboard.variables])
    made.annotations([_by_tag(), *(_annotation(each) for each in dashboard.annotations)])
    for kind, part in _placed(dashboard.rows):
        (made.with_row if kind == "row" else made.with_panel)(part)
    built: Json = json.loads(JSONEncoder().encode(made.build()))
    whole: Json = _without_leaks(built)
    return whole


def _links() -> sdk.DashboardLink:
    link = sdk.DashboardLink("Sightline").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True).as_dropdown(False).icon("external link")


def _variable(variable: Variable) -> Any:
    if variable.query is None:
        return sdk.DatasourceVariable(variable.name).label(variable.label).type(variable.source)
    made = sdk.QueryVariable(variable.name).label(variable.label).datasource(PROMETHEUS)
    made.query({"query": variable.query.expression, "refId": variable.name})
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.NATURAL_ASC)
    made.multi(True).include_all(True).current(ALL)
    if variable.pattern:
        made.regex(variable.pattern)
    if variable.hidden:
        made.hide(models.VariableHide.HIDE_VARIABLE)
    return made.all_value(variable.all_value) if variable.all_value else made


def _by_tag() -> sdk.AnnotationQuery:
    """Show what `python -m observability grafana` writes into Grafana itself, and people with the same tag."""
    source = common.DataSourceRef(type_val="grafana", uid="-- Grafana --")
    target: Any = sdk.AnnotationTarget().type("tags").tags([TAG]).limit(200).match_any(False)
    return sdk.AnnotationQuery().name("Events").datasource(source).enable(True).icon_color(palette.GREY).target(target)


class _Target:
    """The query of an annotation, which the SDK knows for Grafana's own data source only."""

    def __init__(self, query: Query) -> None:
        self._json = {"refId": "Anno", "expr": query.expression, "interval": query.every or "5s"}

    def build(self) -> "_Target":
        """Be one's own builder."""
        return self

    def to_json(self) -> Json:
        """Return what Grafana reads."""
        return self._json


def _annotation(annotation: Annotation) -> sdk.AnnotationQuery:
    made = sdk.AnnotationQuery().name(annotation.name).datasource(PROMETHEUS).enable(True)
    target: Any = _Target(annotation.query)
    made.icon_color(annotation.colour).target(target)
    return made.title_format(annotation.name).text_format(annotation.text)


def _placed(rows: Sequence[tuple[str, Sequence[Line]]]) -> Iterator[tuple[str, Any]]:
    """Yield rows and panels with ids and places: the panels of a line stand side by side, and fill it."""
    y, number = 0, 0
    for title, lines in rows:
        number += 1
        yield "row", sdk.Row(title).id(number).grid_pos(models.GridPos(h=1, w=WIDTH, x=0, y=y))
        y += 1
        for line in lines:
            height, x = max(panel.height for panel in line), 0
            for panel, width in zip(line, _widths(line), strict=True):
                number += 1
                yield "panel", panel.builder.id(number).grid_pos(models.GridPos(h=height, w=width, x=x, y=y))
                x += width
            y += height


def _widths(line: Line) -> list[int]:
    """Divide what is left by those that name no width; the last one takes the rest."""
    free = [panel for panel in line if not panel.width]
    left = WIDTH - sum(panel.width for panel in line)
    widths = [panel.width or left // len(free) for panel in line]
    return [*widths[:-1], WIDTH - sum(widths[:-1])]


# What the SDK says although nobody asked: its zero values, which Grafana would take at their word, or has by itself.
_LEAKS: Final[dict[str, Any]] = {
    "repeatDirection": "h",
    "transparent": False,
    "auto": False,
    "auto_min": "10s",
    "auto_count": 30,
    "skipUrlSync": False,
    "allowCustomValue": True,
    "builtIn": 0,
    "hide": False,
    "placement": "inControlsMenu",
    "fiscalYearStartMonth": 0,
    "footer": {"show": False, "reducer": [], "countRows": False},
}


def _without_leaks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_leaks(each) for key, each in value.items() if key not in _LEAKS or _LEAKS[key] != each}
    return [_without_leaks(each) for each in value] if isinstance(value, list) else value
