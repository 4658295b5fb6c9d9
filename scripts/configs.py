"""The containers' configuration, rendered for processes that run side by side on one host."""

from collections.abc import Mapping
from pathlib import Path

from scripts import services
from scripts.options import ROOT, Options
from scripts.ports import LOOPBACK
from scripts.problem import Problem

MONITORING = ROOT / "monitoring"
# Text, not YAML: native mode starts before there is anything but the standard library.
CONTAINERS_ONLY = "  # In containers only: native mode reads no further.\n"
REPLICAS = """\
    dns_sd_configs:
      - names: [app]
        type: A
        port: 9101
        refresh_interval: 5s
"""


def render(options: Options) -> None:
    """Write what Prometheus and Alertmanager read natively, from the files that their containers read."""
    _render(
        MONITORING / "prometheus/prometheus.yml",
        options.run / "prometheus/prometheus.yml",
        {
            REPLICAS: f"    static_configs:\n      - targets: [{LOOPBACK}:{options.agent_port}]\n",
            "prometheus:9090": f"{LOOPBACK}:{options.prometheus_port}",
            "alertmanager:9093": f"{LOOPBACK}:{options.alertmanager_port}",
            "tuner:9102": f"{LOOPBACK}:{options.tuner_port}",
            "rules/*.yml": f"{MONITORING}/prometheus/rules/*.yml",
        },
        end=CONTAINERS_ONLY,
    )
    _render(
        MONITORING / "alertmanager/alertmanager.yml",
        options.run / "alertmanager/alertmanager.yml",
        {
            "tuner:9102": f"{LOOPBACK}:{options.tuner_port}",
            "/run/secrets/webhook_token": str(services.secrets(options) / services.WEBHOOK_TOKEN),
        },
    )


def _render(source: Path, target: Path, replacements: Mapping[str, str], end: str = "") -> None:
    text = source.read_text()
    for known in (*replacements, end):
        if known not in text:
            raise Problem(f"{source} no longer has what native mode replaces: {known.strip()}")
    if end:
        text = text.partition(end)[0]
    for old, new in replacements.items():
        text = text.replace(old, new)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
