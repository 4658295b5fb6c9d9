"""The dashboards' JSON compiles as Grafana's published types."""

import json
import re
from copy import deepcopy

import pytest

from dashboards.build import build
from tests.dashboards import node

BUILT = build()
HEAD = 'import type { Dashboard, Panels, Queries } from "./shapes";\n'


def source(name, dashboard):
    """Write a dashboard as constants: whole, then each panel and each query by the type of its own kind."""
    parts = [f"export const dashboard: Dashboard = {json.dumps(dashboard, indent=2)};"]
    for panel in panels(dashboard):
        label = re.sub(r"\W+", "_", f"{panel['title']}_{panel['id']}")
        parts.append(f'export const panel_{label}: Panels["{panel["type"]}"] = {json.dumps(panel, indent=2)};')
        for target in panel.get("targets", []):
            kind = target["datasource"]["type"]
            constant = f"query_{label}_{target['refId']}"
            parts.append(f'export const {constant}: Queries["{kind}"] = {json.dumps(target, indent=2)};')
    return HEAD + "\n".join(parts) + "\n"


def panels(dashboard):
    """Return all panels, those in collapsed rows too."""
    return [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", []))]


def compiled(directory, dashboards):
    """Compile dashboards, and return what the compiler says."""
    node.workplace(directory)
    for name, dashboard in dashboards.items():
        (directory / f"{name.removesuffix('.json')}.ts").write_text(source(name, dashboard))
    done = node.run(["node", "node_modules/typescript/bin/tsc", "-p", "."], directory)
    assert not done.stderr
    return done.stdout


def test_the_dashboards_compile(tmp_path):
    assert compiled(tmp_path, BUILT) == ""


def first(dashboard, kind):
    """Return the first panel of a kind."""
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


def _mistyped(dashboard):
    dashboard["panels"][0]["gridPos"]["w"] = "24"


def _unknown_name(dashboard):
    dashboard["graphToolTip"] = 1


def _unknown_cursor(dashboard):
    dashboard["graphTooltip"] = 7


def _unknown_colour_mode(dashboard):
    first(dashboard, "stat")["fieldConfig"]["defaults"]["color"] = {"mode": "rainbow"}


def _unknown_option(dashboard):
    first(dashboard, "timeseries")["options"]["legends"] = {}


def _unknown_option_value(dashboard):
    first(dashboard, "stat")["options"]["colorMode"] = "blinking"


def _unknown_field_setting(dashboard):
    first(dashboard, "timeseries")["fieldConfig"]["defaults"]["custom"]["lineWidth"] = "thick"


def _unknown_panel(dashboard):
    first(dashboard, "timeseries")["type"] = "graph"


def _unknown_query_field(dashboard):
    first(dashboard, "timeseries")["targets"][0]["expression"] = "up"


def _no_expression(dashboard):
    del first(dashboard, "stat")["targets"][0]["expr"]


def _unknown_variable(dashboard):
    dashboard["templating"]["list"][0]["type"] = "data source"


BREAKS = [
    (_mistyped, "Type 'string' is not assignable to type 'number'"),
    (_unknown_name, "'\"graphToolTip\"' does not exist in type"),
    (_unknown_cursor, "Type '7' is not assignable to type"),
    (_unknown_colour_mode, "Type '\"rainbow\"' is not assignable to type"),
    (_unknown_option, "'\"legends\"' does not exist in type"),
    (_unknown_option_value, "Type '\"blinking\"' is not assignable to type"),
    (_unknown_field_setting, "Type 'string' is not assignable to type 'number'"),
    (_unknown_panel, "Property 'graph' does not exist on type 'Panels'"),
    (_unknown_query_field, "'\"expression\"' does not exist in type"),
    (_no_expression, "Property 'expr' is missing in type"),
    (_unknown_variable, "Type '\"data source\"' is not assignable to type"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Compile one dashboard a break, all at once; return what the compiler says of each."""
    dashboards = {}
    for change, _ in BREAKS:
        dashboard = deepcopy(BUILT["service.json"])
        change(dashboard)
        dashboards[change.__name__] = dashboard
    said = re.split(r"\n(?! )", compiled(tmp_path_factory.mktemp("broken"), dashboards))
    return {name: [error for error in said if error.startswith(f"{name}.ts")] for name in dashboards}


@pytest.mark.parametrize(("change", "error"), BREAKS, ids=[change.__name__.strip("_") for change, _ in BREAKS])
def test_a_broken_dashboard_does_not_compile(broken, change, error):
    assert any(error in line for line in broken[change.__name__]), broken[change.__name__]


def test_the_lock_pins_each_package_and_names_no_registry():
    lock = json.loads(node.LOCK.read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert all(package["integrity"] and "resolved" not in package for package in packages.values())
    assert "://" not in node.LOCK.read_text()
    wanted = json.loads((node.TYPES / "package.json").read_text())["devDependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def test_the_types_are_those_of_the_grafana_that_compose_runs():
    (image,) = re.findall(r"image: grafana/grafana:(\S+)", (node.TYPES.parents[2] / "docker-compose.yml").read_text())
    assert json.loads((node.TYPES / "package.json").read_text())["devDependencies"]["@grafana/schema"] == image
