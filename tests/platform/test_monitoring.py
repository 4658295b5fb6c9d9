"""What Prometheus, Alertmanager and Grafana read is valid, complete, and the same in both modes."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from observability import catalogue
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


def test_the_rules_hold_and_every_alert_has_its_cases():
    run("promtool", "check", "rules", *RULES)
    cases = Path(__file__).with_name("rules.test.yml")
    run("promtool", "test", "rules", cases)
    tested = {
        (case["alertname"], bool(case.get("exp_alerts")))
        for group in yaml.safe_load(cases.read_text())["tests"]
        for case in group["alert_rule_test"]
    }
    for rule in ALERTS:
        assert (rule["alert"], True) in tested, f"{rule['alert']} is never seen to fire"
        if rule["alert"] != "Watchdog":  # it is never silent
            assert (rule["alert"], False) in tested, f"{rule['alert']} is never seen to be silent"


def test_alertmanager_takes_its_configuration():
    run("amtool", "check-config", MONITORING / "alertmanager/alertmanager.yml")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_go_on(rule):
    assert re.fullmatch(r"([A-Z][a-z0-9]+)+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert "$value" not in str(rule["labels"])
    annotations = rule["annotations"]
    assert annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"].endswith(f"runbooks/{rule['alert']}.md")
    uid = annotations["dashboard_url"].rpartition("/")[2]
    assert any(f'"uid": "{uid}"' in path.read_text() for path in (ROOT / "dashboards").glob("*.json"))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_its_runbook(rule):
    text = (ROOT / "runbooks" / f"{rule['alert']}.md").read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_a_runbook_belongs_to_an_alert():
    assert {path.stem for path in (ROOT / "runbooks").glob("*.md")} == {rule["alert"] for rule in ALERTS}


def test_rules_name_only_metrics_of_the_catalogue():
    for rule in ALERTS:
        named = set(re.findall(r"\b(?:http|gunicorn|observability|log)_[a-z_]+", rule["expr"]))
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= catalogue.METRICS.keys()


def test_native_mode_reads_the_same_files_with_its_own_addresses(tmp_path):
    options = replace(
        Options(), run_dir=str(tmp_path), agent_port=19101, prometheus_port=19090, alertmanager_port=19093
    )
    configs.render(options)
    rendered = tmp_path / "prometheus/prometheus.yml"
    assert "1 rule files found" in run("promtool", "check", "config", rendered)
    config = yaml.safe_load(rendered.read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert jobs == {
        "sightline": ["127.0.0.1:19101"],
        "prometheus": ["127.0.0.1:19090"],
        "alertmanager": ["127.0.0.1:19093"],
    }
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:19093"]
    run("amtool", "check-config", tmp_path / "alertmanager/alertmanager.yml")


def test_native_mode_refuses_a_file_whose_addresses_it_does_not_know(tmp_path, monkeypatch):
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus/prometheus.yml").write_text("scrape_configs: []\n")
    monkeypatch.setattr(configs, "MONITORING", tmp_path)
    with pytest.raises(Problem, match=r"no longer names app:9101"):
        configs.render(replace(Options(), run_dir=str(tmp_path / "run")))


def test_grafana_finds_the_data_and_the_dashboards_where_compose_puts_them():
    provisioning = MONITORING / "grafana/provisioning"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts["./monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/sightline.yml").read_text())["providers"]
    assert provider["options"]["path"] == mounts["./dashboards"]
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert {source["uid"]: source["url"] for source in sources} == {
        "prometheus": "http://prometheus:9090",
        "alertmanager": "http://alertmanager:9093",
    }
    assert {source["url"].split("//")[1].split(":")[0] for source in sources} <= compose["services"].keys()
