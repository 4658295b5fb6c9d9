"""Write every dashboard's JSON, or check that what is committed is what would be written.

python -m dashboards.build [--check]
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dashboards import dependencies, frame, logs_traces, saturation, service, watching, workers
from dashboards.frame import Dashboard, Json
from dashboards.panels import Language, Query, Shape

HERE: Final = Path(__file__).parent
MODULES: Final = (service, workers, saturation, logs_traces, dependencies, watching)


@dataclass(frozen=True)
class Asked:
    """A query, and where it stands; `by`, `most` and `needs` are explained in dashboards/panels.py.

    Args:
        dashboard: the dashboard's uid.
        panel: the panel's title, or "variable NAME", or "annotation NAME".
        ref: the query's letter in its panel; the name of a variable or an annotation.
        language: promql, label_values or query_result (of Grafana's Prometheus data source), logql or traceql.
        expression: with Grafana's variables in it.
        by: exactly the labels of each resulting series; of a variable the label that is listed.
        most: the most series, values, lines or traces.
        needs: a name of dashboards/needs.py; "" if it always has data.
        shape: how the panel asks: over a range, or (instant, table) once; a heatmap asks over a range.
        every: how often that is scraped, where it is not what Grafana is told.
    """

    dashboard: str
    panel: str
    ref: str
    language: Language
    expression: str
    by: tuple[str, ...]
    most: int
    needs: str
    shape: Shape = "range"
    every: str = ""


def dashboards() -> dict[str, Dashboard]:
    """Return every dashboard, before it is JSON, by its file's name."""
    return {f"{module.__name__.rpartition('.')[2]}.json": module.dashboard() for module in MODULES}


def build() -> dict[str, Json]:
    """Return every dashboard's JSON by its file's name."""
    return {name: frame.build(dashboard) for name, dashboard in dashboards().items()}


def queries() -> Iterator[Asked]:
    """Yield every query of every panel, variable and annotation."""
    for dashboard in dashboards().values():
        for panel in dashboard.panels():
            for index, query in enumerate(panel.queries):
                yield _asked(dashboard, panel.title, chr(ord("A") + index), query)
        for variable in dashboard.variables:
            if variable.query:
                yield _asked(dashboard, f"variable {variable.name}", variable.name, variable.query)
        for annotation in dashboard.annotations:
            yield _asked(dashboard, f"annotation {annotation.name}", annotation.name, annotation.query)


def _asked(of: Dashboard, panel: str, ref: str, query: Query) -> Asked:
    return Asked(
        of.uid,
        panel,
        ref,
        query.language,
        query.expression,
        query.by,
        query.most,
        query.needs,
        query.shape,
        query.every,
    )


def write(directory: Path = HERE) -> None:
    """Write the dashboards."""
    for name, dashboard in build().items():
        (directory / name).write_text(_rendered(dashboard))


def outdated(directory: Path = HERE) -> list[str]:
    """Name the files that are not what would be written, and those that nothing writes."""
    built = {name: _rendered(dashboard) for name, dashboard in build().items()}
    found = {path.name: path.read_text() for path in directory.glob("*.json")}
    return sorted(name for name in built.keys() | found.keys() if built.get(name) != found.get(name))


def _rendered(dashboard: Json) -> str:
    return json.dumps(dashboard, indent=2) + "\n"


def main() -> int:
    """Write the files, or with --check say which are not current."""
    if "--check" not in sys.argv[1:]:
        write()
        return 0
    stale = outdated()
    print(f"Not current: {', '.join(stale)}; `make dashboards` writes them" if stale else "dashboards: current")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
