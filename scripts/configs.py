"""The containers' configuration, rendered for processes that run side by side on one host."""

from collections.abc import Mapping
from pathlib import Path

from scripts.options import ROOT, Options
from scripts.ports import LOOPBACK
from scripts.problem import Problem

MONITORING = ROOT / "monitoring"


def render(options: Options) -> None:
    """Write what Prometheus and Alertmanager read natively, from the files that their containers read."""
    _render(
        MONITORING / "prometheus/prometheus.yml",
        options.run / "prometheus/prometheus.yml",
        {
            "app:9101": f"{LOOPBACK}:{options.agent_port}",
            "prometheus:9090": f"{LOOPBACK}:{options.prometheus_port}",
            "alertmanager:9093": f"{LOOPBACK}:{options.alertmanager_port}",
            "rules/*.yml": f"{MONITORING}/prometheus/rules/*.yml",
        },
    )
    _render(MONITORING / "alertmanager/alertmanager.yml", options.run / "alertmanager/alertmanager.yml", {})


def _render(source: Path, target: Path, replacements: Mapping[str, str]) -> None:
    text = source.read_text()
    for old, new in replacements.items():
        if old not in text:
            raise Problem(f"{source} no longer names {old}, which native mode replaces by {new}")
        text = text.replace(old, new)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
