"""What Prometheus, Alertmanager and Grafana read is valid, complete, and the same in both modes."""

import re
import subprocess
from dataclasses import replace

import pytest
import yaml

from scripts import configs
from scripts.options import ROOT, Options
from scripts.problem import Problem

MONITORING = ROOT / "monitoring"
RULES = sorted((MONITORING / "prometheus/rules").glob("*.yml"))
ALERTS = [
    rule
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "What the tuner does", "How to confirm recovery"]


def run(*command: object) -> str:
    """Run a tool, which has to succeed."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration():
    run("promtool", "check", "config", MONITORING / "prometheus/prometheus.yml")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_its_runbook(rule):
    text = (ROOT / "runbooks" / f"{rule['alert']}.md").read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_a_runbook_belongs_to_an_alert():
    assert {path.stem for path in (ROOT / "runbooks").glob("*.md")} == {rule["alert"] for rule in ALERTS}


def test_native_mode_reads_the_same_files_with_its_own_addresses(tmp_path):
    ports = {"agent_port": 19101, "prometheus_port": 19090, "alertmanager_port": 19093, "tuner_port": 19102}
    options = replace(Options(), run_dir=str(tmp_path), **ports)
    configs.render(options)
    rendered = tmp_path / "prometheus/prometheus.yml"
    assert "rule files found" in run("promtool", "check", "config", rendered)
    config = yaml.safe_load(rendered.read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert jobs == {
        "sightline": ["127.0.0.1:19101"],
        "prometheus": ["127.0.0.1:19090"],
        "alertmanager": ["127.0.0.1:19093"],
        "tuner": ["127.0.0.1:19102"],
    }
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:19093"]
    run("amtool", "check-config", tmp_path / "alertmanager/alertmanager.yml")
    receivers = yaml.safe_load((tmp_path / "alertmanager/alertmanager.yml").read_text())["receivers"]
    (webhook,) = next(each for each in receivers if each["name"] == "tuner")["webhook_configs"]
    assert webhook["url"].startswith("http://127.0.0.1:19102/")


def test_native_mode_refuses_a_file_whose_addresses_it_does_not_know(tmp_path, monkeypatch):
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus/prometheus.yml").write_text("scrape_configs: []\n")
    monkeypatch.setattr(configs, "MONITORING", tmp_path)
    with pytest.raises(Problem, match=r"no longer has what native mode replaces: dns_sd_configs"):
        configs.render(replace(Options(), run_dir=str(tmp_path / "run")))
