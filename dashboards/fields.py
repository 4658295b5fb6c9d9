"""What a panel says of the numbers that it draws: which one it takes, the ends of its axis, legend and colours."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from grafana_foundation_sdk.builders import common, dashboard
from grafana_foundation_sdk.models import common as sdk
from grafana_foundation_sdk.models import dashboard as models

from dashboards import palette

Colours = dict[str, str]
# Where an axis ends at least, by its unit: of nothing but zeros, Grafana would make one of tiny parts, or up to 100.
LEAST_HIGH: Final = {"short": 4.0, "reqps": 1.0, "cps": 1.0, "ops": 1.0, "none": 1.0, "s": 0.01, "percentunit": 0.1}


class Drawn(Protocol):
    """What is known here of a query: the labels of its series, and how they are called."""

    @property
    def by(self) -> Sequence[str]:
        """Labels."""

    @property
    def legend(self) -> str:
        """Names."""


def last() -> common.ReduceDataOptions:
    """Take the last value, and say that there is none where it is NaN; Grafana's usual goes back to the last number."""
    return common.ReduceDataOptions().calcs(["last"]).fields("").values(False)


def ends(panel: Any, low: float | None, high: float | None) -> None:
    """Bound the axis."""
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)


def colour(mode: str, fixed: str = "") -> dashboard.FieldColor:
    """Choose the colour of what has no other one."""
    made = dashboard.FieldColor().mode(models.FieldColorModeId(mode))
    return made.fixed_color(fixed) if fixed else made


def legend(shown: bool | str) -> common.VizLegendOptions:
    """Show names below, or to the right, or not."""
    mode = sdk.LegendDisplayMode.LIST if shown else sdk.LegendDisplayMode.HIDDEN
    place = sdk.LegendPlacement.RIGHT if shown == "right" else sdk.LegendPlacement.BOTTOM
    return common.VizLegendOptions().display_mode(mode).placement(place).show_legend(bool(shown))


def filled(stacked: bool, logarithmic: bool, queries: Sequence[Drawn]) -> int:
    """Choose how opaque the areas below lines are, in per cent: where several series have several, they hide lines."""
    if stacked:
        return 40
    return 0 if logarithmic or sum(bool(each.by) for each in queries) > 1 else 8


def series_colours(panel: Any, queries: Sequence[Drawn], colours: Colours | None) -> None:
    """Give each query a colour of its own, then its series theirs; of the same series, later queries are dashed."""
    panel.color_scheme(colour("fixed", palette.QUERIES[0]))
    named = _by_name(queries) if colours is None else colours
    for index, each in enumerate(queries[1:], start=1):
        own = palette.QUERIES[index % len(palette.QUERIES)]
        properties = [setting("color", {"mode": "fixed", "fixedColor": own})]
        if each.by and named:
            properties.append(setting("custom.lineStyle", {"fill": "dash", "dash": [10 / index, 6]}))
        panel.override_by_query(chr(ord("A") + index), properties)
    for name, own in named.items():
        override = panel.override_by_regexp if name.startswith("/") else panel.override_by_name
        override(name, [setting("color", {"mode": "fixed", "fixedColor": own})])


def _by_name(queries: Sequence[Drawn]) -> Colours:
    """Choose what tells series apart: the server that they begin with, or else all of the name."""
    if not any(each.by for each in queries):
        return {}
    begins = all(each.legend.startswith(("{{instance}}", "{{server}}")) for each in queries)
    return palette.SERVERS if begins else palette.NAMES


def setting(name: str, value: Any) -> models.DynamicConfigValue:
    """Set one thing of a field, as an override does."""
    return models.DynamicConfigValue(id_val=name, value=value)
