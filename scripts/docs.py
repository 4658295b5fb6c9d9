"""Write the reference pages from the code, or check that what is committed is what would be written.

python -m scripts.docs [--check]
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from observability import metrics, settings, store, values
from observability.catalogue import METRICS, Metric
from observability.grafana.settings import Settings as Grafana
from observability.tuning import bounds, table
from observability.tuning import settings as tuning
from scripts import decisions
from scripts.options import ROOT

DOCS = ROOT / "docs"
WRITTEN = "<!-- Written by `make docs` from the code: change that, not this page. -->"
OPTION = re.compile(r"^## ([A-Z_]+)=(\S*) +(.+)$", re.MULTILINE)

GROUPS: dict[str, Callable[[Metric], bool]] = {
    "HTTP, all workers merged": lambda metric: metric.name.startswith("http_"),
    "Each worker apart": lambda metric: metric.per_worker,
    "Databases and caches": lambda metric: metric.name.startswith(("db_client_", "cache_")),
    "The server": lambda metric: not metric.name.startswith(("observability_", "tuner_")),
    "The tuner": lambda metric: metric.name.startswith("tuner_"),
    "About Sightline itself": lambda _: True,  # the rest
}

SETTINGS_HEAD = """
Every setting is an environment variable, read once at the start; empty counts as unset.
A value that makes no sense stops the start with one line, which names the variable, what it got, and what it takes.
What the server really runs with is in its log, in the line whose `body` is `settings`.
A secret is masked there; of a URL, its password.
"""

METRICS_HEAD = """
The agent serves them at `/metrics`, and the tuner serves its own: as Prometheus text, or as OpenMetrics with
exemplars, if the client asks.
Counters and histograms go on where a worker's predecessor stopped; only a new server begins at zero.
Gauges are those of live workers.
The label `worker` is the number of the worker's [slot](slots.md), not its pid.
Label sets beyond `OBSERVABILITY_MAX_LABEL_SETS` in a worker are counted together, with `_overflow` for every label.
`http_route` is the route's template, and empty where none matched; `error_type` is empty unless the request failed.
"""


def build() -> dict[str, str]:
    """Return every reference page by its file's name."""
    own = _import_app()
    return {
        "settings.md": _settings_page(own),
        "metrics.md": _metrics_page(list(declared_by_app())),
        "decisions.md": _decisions_page(),
    }


def _import_app() -> type | None:
    """Import all modules of the app, and return its settings class, if it has one."""
    store.STORE.claims_lazily = False  # the metrics that are made here are not a worker's of a server that runs
    app = importlib.import_module("app")
    for module in pkgutil.walk_packages(getattr(app, "__path__", []), "app."):
        importlib.import_module(module.name)
    return getattr(sys.modules.get("app.settings"), "Settings", None)


def declared_by_app() -> Iterator[Metric]:
    """Yield the metrics that the app's modules have made by now, as the catalogue would declare them."""
    for name, made in sorted(metrics._made.items()):
        yield Metric(
            name,
            made._type,
            made._documentation,
            tuple(made._labelnames),
            tuple(made._upper_bounds[:-1]) if made._type == "histogram" else (),
            name in values.SlotValue.per_worker,
        )


def options() -> Iterator[tuple[str, str, str]]:
    """Yield what the Makefile takes: variable, default, help."""
    yield from OPTION.findall((ROOT / "Makefile").read_text())


def _settings_page(own: type | None) -> str:
    parts = [f"# Settings\n\n{WRITTEN}\n{SETTINGS_HEAD}"]
    parts += _settings_table("The server", "What `gunicorn.conf.py` reads.", settings.Server)
    parts += _settings_table("Telemetry", "What the server, each worker and the agent read.", settings.Settings)
    about = "What `python -m observability grafana` reads; see [Grafana](grafana.md)."
    parts += _settings_table("Grafana", about, Grafana)
    parts += _settings_table("The tuner", "What `python -m observability tuner serve` reads.", tuning.Settings)
    if own is not None:
        parts += _settings_table("The service", "What the app in `app/` reads; yours has its own.", own)
    parts.append("## The commands\n\nWhat `make` takes, as in `make up APP_PORT=8001` or from the environment.\n")
    rows = ((f"`{name}`", _code(default), help) for name, default, help in options())
    parts.append(_table(("Variable", "Default", "What it does"), rows))
    return "\n".join(parts)


def _settings_table(title: str, about: str, cls: type) -> list[str]:
    rows = (
        (
            f"`{each.metadata['variable']}`",
            _plain(each.metadata["kind"].takes),
            _code(settings.default_of(each)),
            _plain(each.metadata["help"]) + (" Masked in the log." if each.metadata["secret"] else ""),
        )
        for each in fields(cls)
    )
    return [f"## {title}\n\n{about}\n", _table(("Variable", "Takes", "Default", "What it does"), rows)]


def _metrics_page(own: list[Metric]) -> str:
    parts = [f"# Metrics\n\n{WRITTEN}\n{METRICS_HEAD}"]
    left = list(METRICS.values())
    for title, belongs in GROUPS.items():
        parts += _metrics_section(title, [metric for metric in left if belongs(metric)])
        left = [metric for metric in left if not belongs(metric)]
    parts += _metrics_section("The service's own", own)
    return "\n".join(parts)


def _metrics_section(title: str, some: list[Metric]) -> list[str]:
    if not some:
        return []
    rows = ((f"`{each.name}`", each.kind, _labels(each), _plain(each.help)) for each in some)
    parts = [f"## {title}\n", _table(("Metric", "Type", "Labels", "What it says"), rows)]
    bounds = [f"- `{each.name}`: {', '.join(map(_number, each.buckets))}\n" for each in some if each.buckets]
    if bounds:
        parts.append("Upper bounds of the buckets, beside `+Inf`:\n\n" + "".join(bounds))
    return parts


def _number(bound: float) -> str:
    return f"{bound:.10g}"


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in ("worker",) * metric.per_worker + metric.labels)


def _decisions_page() -> str:
    rows = (
        (f"`{row.name}`", _plain(row.when), _plain(row.meaning), _plain(row.does), "yes" * bool(row.vetoes))
        for row in table.TABLE
    )
    vetoes = ((f"`{name}`", _plain(why)) for name, why in bounds.VETOES.items())
    tables = (
        _table(("Row", "Holds when", "Means", "Does, and advises", "Vetoes growth"), rows),
        _table(("Veto", "Holds when"), vetoes),
    )
    return f"# Decisions\n\n{WRITTEN}\n\n{decisions.around(*tables)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup."""
    return re.sub(r"([|*<])", r"\\\1", text)


def _code(default: str) -> str:
    if not default:
        return "unset"
    return default if " " in default else f"`{default}`"


def write(directory: Path = DOCS) -> None:
    """Write the pages."""
    for name, text in build().items():
        (directory / name).write_text(text)


def outdated(directory: Path = DOCS) -> list[str]:
    """Name the pages that are not what would be written."""
    return [
        name
        for name, text in build().items()
        if not (directory / name).exists() or (directory / name).read_text() != text
    ]


def main() -> int:
    """Write the pages, or with --check say which are not current."""
    if "--check" not in sys.argv[1:]:
        write()
        return 0
    stale = outdated()
    listed = ", ".join(f"docs/{name}" for name in stale)
    print(f"Not current: {listed}; `make docs` writes them anew" if stale else "docs: current")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
