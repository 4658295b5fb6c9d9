"""The parts that every dashboard is made of: queries and panels, each whole or not at all.

What each query says of its answer (`by`, `most`, `needs`) is no use to Grafana, and is not in the JSON. It is there for
the tests, which ask every query of a live Prometheus (`dashboards.build.queries`):

by     exactly the labels that each of the resulting series carries, but for its name; none for a single number.
most   how many series there are at most, with the few servers and workers of a test.
needs  under which condition there is data, a name of dashboards/needs.py; "" is always, under ordinary load that
       comes through the proxy. Without it a query answers nothing, or zero.

In an expression, `@` stands for the selector of job and instance; `@ end()` is PromQL's own. A variable whose choice is
All and that has no `allValue` stands for its options, so that each choice narrows the next: environment, job, instance.

A counter that nobody shows as 0 from the start begins with its first event, and has no rate of it: `gained` counts that
one too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    loki,
    prometheus,
    statushistory,
    tempo,
)
from grafana_foundation_sdk.builders import (
    heatmap as heatmaps,
)
from grafana_foundation_sdk.builders import (
    logs as log_panels,
)
from grafana_foundation_sdk.builders import (
    stat as stats,
)
from grafana_foundation_sdk.builders import (
    table as tables,
)
from grafana_foundation_sdk.builders import (
    timeseries as graphs,
)
from grafana_foundation_sdk.models import common as sdk
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat_models
from grafana_foundation_sdk.models import prometheus as prom

from dashboards import fields, palette, scrapes
from dashboards.fields import Colours
from dashboards.needs import NEEDS
from dashboards.states import NOTHING, States, mapped, nothing, steps
from dashboards.thresholds import Limits

SELECTOR: Final = 'job=~"$job",instance=~"$instance"'
ALWAYS: Final = "or vector(0)"
PROMETHEUS: Final = sdk.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOKI: Final = sdk.DataSourceRef(type_val="loki", uid="${loki}")
TEMPO: Final = sdk.DataSourceRef(type_val="tempo", uid="${tempo}")
SOURCES: Final = {"promql": PROMETHEUS, "logql": LOKI, "traceql": TEMPO}

Language = Literal["promql", "label_values", "query_result", "logql", "traceql"]
Shape = Literal["range", "instant", "heatmap", "table"]
Links = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Query:
    """One query of a panel, a variable or an annotation; the module's text says what its fields mean."""

    language: Language
    expression: str
    legend: str = ""
    by: tuple[str, ...] = ()
    most: int = 20
    needs: str = ""
    shape: Shape = "range"
    exemplars: bool = False
    every: str = ""  # how often that is scraped, where it is not what Grafana is told

    def __post_init__(self) -> None:
        """Refuse a condition that dashboards/needs.py does not name."""
        if self.needs and self.needs not in NEEDS:
            raise ValueError(f"{self.needs} is not in dashboards/needs.py")


@dataclass(frozen=True)
class Panel:
    """A panel, before it has its place: what the SDK makes of it, and what it asks."""

    builder: Any
    title: str
    queries: tuple[Query, ...]
    height: int = 8
    width: int = 0  # 0 for an equal part of the line


def query(
    expression: str,
    legend: str,
    *,
    by: Sequence[str] = (),
    most: int = 20,
    needs: str = "",
    shape: Shape = "range",
    exemplars: bool = False,
) -> Query:
    """Make a query of Prometheus; `@` in the expression stands for the selector of job and instance."""
    asked = re.sub(r"@(?! end\(\))", lambda _: SELECTOR, expression)
    return Query("promql", asked, legend, tuple(by), most, needs, shape, exemplars, scrapes.every(asked))


def gained(series: str) -> str:
    """Return what a counter gained in a rate's window, the event that it began with included.

    A series has begun in the window if it was not there before, and its target was seen: all that it says is gained.
    Of any other, which may have counted for long, it is the increase.
    """
    begun = f"({series} unless {series} offset $__rate_interval)"
    known = "on (job, instance) (up{@} offset $__rate_interval == 1)"
    return f"({begun} and {known} or increase({series}[$__rate_interval]))"


def gained_per_second(series: str) -> str:
    """Return the same for each second."""
    return f"{gained(series)} * 1000 / $__rate_interval_ms"


def log_query(
    expression: str, legend: str = "", *, by: Sequence[str] = (), most: int = 1000, needs: str = "logs"
) -> Query:
    """Make a query of Loki: lines, or numbers made of lines."""
    return Query("logql", expression, legend, tuple(by), most, needs)


def trace_query(expression: str, *, most: int = 20, needs: str = "traces") -> Query:
    """Make a search of Tempo."""
    return Query("traceql", expression, most=most, needs=needs)


def graph(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    stacked: bool = False,
    low: float | None = 0,
    high: float | None = None,
    limits: Limits | None = None,
    colours: Colours | None = None,
    legend: bool | Literal["right"] = True,
    logarithmic: bool = False,
    **more: Any,
) -> Panel:
    """Make a graph over time.

    Args:
        title: what it shows.
        description: how to read it, and what to do when it is bad.
        unit: Grafana's name of the unit.
        queries: made by `query`.
        stacked: whether the series add up to something.
        low: the axis's lower end; None leaves it to the data.
        high: the axis's upper end; None leaves it to the data.
        limits: lines at which alerts fire.
        colours: of series, by name, or by regular expression between slashes; else by what tells them apart.
        legend: whether names stand below, or to the right where there are many; the pointer shows them anyway.
        logarithmic: whether each step of the axis is ten times the one before.
        more: see `_whole`.
    """
    tooltip = common.VizTooltipOptions().mode(sdk.TooltipDisplayMode.MULTI).sort(sdk.SortOrder.DESCENDING)
    panel: Any = graphs.Panel().legend(fields.legend(legend)).tooltip(tooltip)
    panel.line_width(1).show_points(sdk.VisibilityMode.NEVER)
    panel.fill_opacity(fields.filled(stacked, logarithmic, queries))
    mode = sdk.StackingMode.NORMAL if stacked else sdk.StackingMode.NONE
    panel.stacking(common.StackingConfig().mode(mode).group("A"))
    if limits:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(sdk.GraphThresholdsStyleMode.DASHED))
    if logarithmic:
        panel.scale_distribution(common.ScaleDistributionConfig().type(sdk.ScaleDistribution.LOG).log(10))
    elif high is None and unit in fields.LEAST_HIGH:
        panel.axis_soft_max(fields.LEAST_HIGH[unit])
    fields.ends(panel, None if logarithmic else low, high)
    fields.series_colours(panel, queries, colours)
    return _whole(panel, title, description, unit, queries, limits=limits, **more)


def stat(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    limits: Limits | None = None,
    **more: Any,
) -> Panel:
    """Make a number, that of now, coloured by its limits.

    Where nothing may be there, `empty` says when; what is always there ends with `or vector(0)`.
    """
    asked = [_until_now(each) for each in queries]
    panel: Any = stats.Panel().reduce_options(fields.last()).color_mode(sdk.BigValueColorMode.VALUE)
    panel.text_mode(sdk.BigValueTextMode.AUTO)
    panel.graph_mode(sdk.BigValueGraphMode.AREA).orientation(sdk.VizOrientation.AUTO)
    panel.color_scheme(fields.colour("thresholds"))
    return _whole(panel, title, description, unit, asked, limits=limits, **{"height": 4, **more})


def _until_now(asked: Query) -> Query:
    """Have a number end with NaN where its series has ended: else the last one of the range would be shown as now's."""
    ended = "" if asked.expression.endswith(ALWAYS) else " or vector(NaN)"
    return replace(asked, expression=asked.expression + ended)


def bars(
    title: str, description: str, unit: str, queries: Sequence[Query], *, high: float | None = None, **more: Any
) -> Panel:
    """Make a bar for each series that is there now; `high` fills it, else the largest one that there is."""
    panel: Any = bargauge.Panel().reduce_options(fields.last()).orientation(sdk.VizOrientation.HORIZONTAL)
    panel.display_mode(sdk.BarGaugeDisplayMode.BASIC).value_mode(sdk.BarGaugeValueMode.TEXT)
    panel.color_scheme(fields.colour("thresholds")).text(common.VizTextDisplayOptions().title_size(14).value_size(18))
    fields.ends(panel, 0, high)
    asked = [replace(each, shape="instant") for each in queries]
    return _whole(panel, title, description, unit, asked, **more)


def slots(title: str, description: str, unit: str, queries: Sequence[Query], *, high: float, **more: Any) -> Panel:
    """Make a row of cells for each series, from blue over yellow to red: a heat map whose rows have names."""
    panel: Any = statushistory.Panel().show_value(sdk.VisibilityMode.NEVER).row_height(0.95).col_width(1)
    panel.legend(fields.legend(False)).max_data_points(120).per_page(40)
    panel.color_scheme(fields.colour("continuous-BlYlRd"))
    fields.ends(panel, 0, high)
    return _whole(panel, title, description, unit, queries, **more)


def heatmap(title: str, description: str, unit: str, queries: Sequence[Query], **more: Any) -> Panel:
    """Make a heat map of a histogram's buckets: time across, value up, and how many by colour."""
    colours = heatmaps.HeatmapColorOptions().mode(heat_models.HeatmapColorMode.SCHEME).scheme("Cividis").steps(64)
    axis = heatmaps.YAxisConfig().unit(unit).axis_placement(sdk.AxisPlacement.LEFT)
    panel: Any = heatmaps.Panel().calculate(False).color(colours.exponent(0.5)).y_axis(axis)
    panel.cell_values(heatmaps.CellValues().unit("short")).exemplars_color(palette.VERMILION)
    panel.tooltip(heatmaps.HeatmapTooltip().mode(sdk.TooltipDisplayMode.SINGLE).show_color_scale(True))
    panel.max_data_points(120)
    shaped = [replace(each, shape="heatmap") for each in queries]
    return _whole(panel, title, description, unit, shaped, **more)


def table(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    columns: dict[str, str],
    *,
    limits: Limits | None = None,
    **more: Any,
) -> Panel:
    """Make a table of the present values: a row for each set of labels, the columns in this order with these names."""
    panel: Any = tables.Panel().show_header(True).color_scheme(fields.colour("thresholds"))
    if len(queries) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    order = {name: index for index, name in enumerate(columns)}
    kept = {"include": {"names": list(columns)}}
    panel.with_transformation(models.DataTransformerConfig(id_val="filterFieldsByName", options=kept))
    organized = {"indexByName": order, "renameByName": columns, "excludeByName": {}, "includeByName": {}}
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organized))
    shaped = [replace(each, shape="table") for each in queries]
    return _whole(panel, title, description, unit, shaped, limits=limits, **more)


def log_lines(title: str, description: str, queries: Sequence[Query], **more: Any) -> Panel:
    """Make a list of log lines, the newest first; a line opens to show its fields."""
    panel: Any = log_panels.Panel().show_time(True).wrap_log_message(False).enable_log_details(True)
    panel.sort_order(sdk.LogsSortOrder.DESCENDING).dedup_strategy(sdk.LogsDedupStrategy.NONE)
    return _whole(panel, title, description, "", queries, **more)


def traces(title: str, description: str, queries: Sequence[Query], **more: Any) -> Panel:
    """Make a table of traces that a search finds; a click on an id opens the trace.

    Its columns are as Grafana calls them. Theirs is room for all in a third of a page, and what is left has the name.
    """
    panel: Any = tables.Panel().show_header(True).color_scheme(fields.colour("thresholds"))
    hidden = {"excludeByName": {"traceService": True}, "indexByName": {}, "renameByName": {}, "includeByName": {}}
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=hidden))
    for column, width in {"traceID": 100, "startTime": 180, "traceDuration": 85}.items():
        panel.override_by_name(column, [fields.setting("custom.width", width)])
    panel.override_by_name("traceName", [fields.setting("custom.minWidth", 100)])
    return _whole(panel, title, description, "", queries, **more)


def _whole(
    panel: Any,
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    limits: Limits | None = None,
    alerts: Sequence[str] = (),
    empty: str = "",
    links: Links = (),
    links_of: Mapping[str, Links] | None = None,
    states: States | None = None,
    decimals: int | None = None,
    height: int = 8,
    width: int = 0,
) -> Panel:
    """Add what every panel has.

    Args:
        panel: the SDK's builder.
        title: unique in its dashboard.
        description: how to read it, and what to do when it is bad.
        unit: Grafana's name of the unit; empty where there are no numbers.
        queries: what it asks.
        limits: thresholds, those of the alerts.
        alerts: alerts that look at the same, whose runbooks the description names.
        empty: when it rightly shows nothing; ends the sentence "Empty while".
        links: titles and addresses that a click on a value offers.
        links_of: the same, of series whose names fit a regular expression, instead of those.
        states: texts and colours that stand for values.
        decimals: digits after the point; None leaves it to Grafana.
        height: in Grafana's units; a graph has 8.
        width: of 24; 0 for an equal part of the line.
    """
    panel.title(title).description(_described(description, alerts, empty)).datasource(SOURCES[queries[0].language])
    if unit:
        panel.unit(unit)
        panel.thresholds(steps(limits))
    if empty:
        panel.no_value(NOTHING)
    _link(panel, links, links_of or {})
    panel.mappings([*([mapped(states)] if states else []), *([nothing()] if empty and unit else [])])
    if decimals is not None:
        panel.decimals(decimals)
    for index, each in enumerate(queries):
        panel.with_target(_target(each).ref_id(chr(ord("A") + index)))
    return Panel(panel, title, tuple(queries), height, width)


def _link(panel: Any, links: Links, links_of: Mapping[str, Links]) -> None:
    if links:
        panel.data_links([dashboard.DashboardLink(text).url(url) for text, url in links])
    for name, others in links_of.items():
        panel.override_by_regexp(name, [fields.setting("links", [{"title": text, "url": url} for text, url in others])])


def _described(description: str, alerts: Sequence[str], empty: str) -> str:
    sentences = [description]
    if empty:
        sentences.append(f"Empty while {empty}.")
    if alerts:
        sentences.append("Alerts: " + ", ".join(f"{name} (runbooks/{name}.md)" for name in alerts) + ".")
    return " ".join(sentences)


def _target(asked: Query) -> Any:
    if asked.language == "logql":
        lines = loki.Dataquery().expr(asked.expression).legend_format(asked.legend).query_type("range")
        return lines.datasource(LOKI).max_lines(asked.most)
    if asked.language == "traceql":
        found = tempo.Dataquery().query(asked.expression).query_type("traceql").limit(asked.most)
        return found.datasource(TEMPO)
    target = prometheus.Dataquery().expr(asked.expression).legend_format(asked.legend).datasource(PROMETHEUS)
    target.editor_mode(prom.QueryEditorMode.CODE)
    if asked.every:
        target.interval(asked.every)
    if asked.exemplars:
        target.exemplar(True)
    if asked.shape == "heatmap":
        target.format(prom.PromQueryFormat.HEATMAP)
    if asked.shape == "table":
        target.format(prom.PromQueryFormat.TABLE)
    return target.instant() if asked.shape in ("instant", "table") else target.range()
