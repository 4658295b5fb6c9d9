"""What a value says about the state of things: colours from limits on, and texts."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from dashboards import palette
from dashboards.thresholds import JUST_ABOVE_ZERO, Limits

NOTHING: Final = "none"
States = dict[int, tuple[str, str]]


def steps(limits: Limits | None) -> dashboard.ThresholdsConfig:
    """Make thresholds, the lowest first; a value takes the colour of the last one that it meets."""
    bounds = limits or Limits()
    given = {palette.WARNING: bounds.warning, palette.BAD: bounds.critical}
    known = [(value or JUST_ABOVE_ZERO, colour) for colour, value in given.items() if value is not None]
    if bounds.below:  # what is below the lowest bound is worst
        ordered = sorted(known)
        colours = [colour for _, colour in ordered] + [palette.GOOD]
        steps = [(None, colours[0]), *((value, colours[i + 1]) for i, (value, _) in enumerate(ordered))]
    else:
        steps = [(None, palette.GOOD), *sorted(known)]
    config = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    return config.steps([models.Threshold(value, colour) for value, colour in steps])


def mapped(states: States) -> models.ValueMap:
    """Show a text in a colour of its own in the place of each value."""
    results = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(states.items())
    }
    return models.ValueMap(options=results)


def nothing() -> models.SpecialValueMap:
    """Show what is not there in a colour that says nothing; the lowest threshold's may say that it is bad."""
    result = models.ValueMappingResult(text=NOTHING, color=palette.GREY)
    options = models.DashboardSpecialValueMapOptions(match=models.SpecialValueMatch.NULL_AND_NAN, result=result)
    return models.SpecialValueMap(options=options)
