"""What the commands of `python -m observability grafana` take from the environment."""

import os
from dataclasses import dataclass
from pathlib import Path

from observability import settings as kinds
from observability.settings import Kind, setting

NONE = "none"
_HTTP = kinds.url("http", "https")


def _url_or_none(raw: str) -> str:
    return NONE if raw.lower() == NONE else str(_HTTP.parse(raw))


_source = Kind(f"{_HTTP.takes}, or {NONE}", _url_or_none)


def _dashboards() -> Path:
    return Path(__file__).resolve().parents[2] / "dashboards"


def _spool() -> Path:
    """Keep it where it lasts: what waits for Grafana, and how far one has looked."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local/state") / "sightline-annotator"


@dataclass(frozen=True)
class Settings:
    """How Grafana is reached, and what it is given."""

    url: str = setting(
        "GRAFANA_URL", _HTTP, "http://127.0.0.1:3000", "Grafana's address, as in a browser.", secret=True
    )
    token: str = setting("GRAFANA_TOKEN", kinds.text, "", "Token of a service account of Grafana.", secret=True)
    token_file: Path | None = setting(
        "GRAFANA_TOKEN_FILE", kinds.readable_file, None, "A file that holds the token, instead of GRAFANA_TOKEN."
    )
    timeout: float = setting("GRAFANA_TIMEOUT", kinds.number(0.1, 300), 10.0, "Seconds that one answer may take.")
    folder: str = setting("GRAFANA_FOLDER", kinds.text, "Sightline", "Title of the folder for the dashboards.")
    dashboards: Path = setting(
        "GRAFANA_DASHBOARDS",
        kinds.directory,
        _dashboards,
        "Directory of the dashboards' JSON.",
        shown="dashboards/ beside observability/",
    )
    prometheus_source: str = setting(
        "GRAFANA_PROMETHEUS_URL",
        _source,
        "http://prometheus:9090",
        f"Prometheus, as Grafana reaches it; {NONE} for no such data source.",
        secret=True,
    )
    loki_source: str = setting("GRAFANA_LOKI_URL", _source, "http://loki:3100", "Loki, likewise.", secret=True)
    tempo_source: str = setting("GRAFANA_TEMPO_URL", _source, "http://tempo:3200", "Tempo, likewise.", secret=True)
    alertmanager_source: str = setting(
        "GRAFANA_ALERTMANAGER_URL", _source, "http://alertmanager:9093", "Alertmanager, likewise.", secret=True
    )
    prometheus_url: str = setting(
        "PROMETHEUS_URL", _HTTP, "http://127.0.0.1:9090", "Where the annotator learns what happened.", secret=True
    )
    window: int = setting(
        "GRAFANA_ANNOTATION_WINDOW",
        kinds.integer(1, 3600),
        60,
        "Seconds whose events of a kind become one annotation; the same for all annotators.",
    )
    interval: float = setting(
        "GRAFANA_ANNOTATION_INTERVAL", kinds.number(0.1, 3600), 15.0, "Seconds between two looks at Prometheus."
    )
    delay: float = setting(
        "GRAFANA_ANNOTATION_DELAY",
        kinds.number(0, 3600),
        30.0,
        "Seconds that a window is over before it is looked at, so that every server was scraped.",
    )
    spool: Path = setting(
        "GRAFANA_SPOOL",
        kinds.directory,
        _spool,
        "Directory of what waits for Grafana, and of how far one has looked.",
        shown="~/.local/state/sightline-annotator",
    )
    spool_most: int = setting(
        "GRAFANA_SPOOL_MOST",
        kinds.integer(1, 100_000),
        1000,
        "Annotations that may wait for Grafana; beyond that, the oldest are dropped and counted.",
    )
