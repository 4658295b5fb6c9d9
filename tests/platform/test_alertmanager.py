"""Who is told of which alert, and which alerts keep quiet beside others: asked of Alertmanager itself."""

import subprocess
from collections.abc import Iterator

import pytest
import requests
import yaml

from scripts.options import ROOT
from tests.alertmanager import Alertmanager
from tests.server import wait_until

CONFIG = ROOT / "monitoring/alertmanager/alertmanager.yml"
ALERTS = {
    rule["alert"]: rule["labels"]
    for path in sorted((ROOT / "monitoring/prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def amtool(*arguments: object) -> str:
    """Run amtool, which has to succeed."""
    done = subprocess.run(["amtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alertmanager_takes_its_configuration():
    amtool("check-config", CONFIG)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "Watchdog", "severity": "info"}, "watchdog"),
        ({"alertname": "WorkersSaturated", "severity": "warning", "tuner": "true"}, "tuner,people"),
        ({"alertname": "RequestsQueueing", "severity": "critical", "tuner": "true"}, "tuner,people-now"),
        ({"alertname": "ServiceAbsent", "severity": "critical"}, "people-now"),
        ({"alertname": "CacheDown", "severity": "warning"}, "people"),
        ({"alertname": "CacheUseless", "severity": "info"}, "none"),
        ({"alertname": "WorkersOverProvisioned", "severity": "info", "tuner": "true"}, "tuner,none"),
        ({"alertname": "SomebodysOwn"}, "people"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["alertname"],
)
def test_an_alert_goes_to_who_should_know(labels, receivers):
    told = amtool("config", "routes", "test", f"--config.file={CONFIG}", *(f"{k}={v}" for k, v in labels.items()))
    assert told.strip() == receivers


def states(running: Alertmanager, *alerts: dict[str, str]) -> dict[str, str]:
    """Post alerts, and return each one's state once Alertmanager has looked at all of them."""
    url = f"{running.url}/api/v2/alerts"
    requests.post(url, json=[{"labels": each} for each in alerts], timeout=5).raise_for_status()

    def seen() -> dict[str, str]:
        found = requests.get(url, timeout=5).json()
        states = {name(each["labels"]): each["status"]["state"] for each in found}
        return states if len(states) == len(alerts) and "unprocessed" not in states.values() else {}

    return wait_until(seen, 20, "Alertmanager to look at the alerts")


def name(labels: dict[str, str]) -> str:
    """Name an alert as this page's expectations do."""
    where = labels.get("instance", "")
    return f"{labels['alertname']} {labels['severity']} {where}".strip()


def alert(title: str, instance: str = "a", severity: str = "", **labels: str) -> dict[str, str]:
    """Return an alert as its rule has it."""
    ruled = {key: value for key, value in ALERTS[title].items() if key in ("severity", "subject", "tuner")}
    severe = {"severity": severity} if severity else {}
    return {"alertname": title, "job": "sightline", "instance": instance} | ruled | severe | labels


@pytest.fixture
def alertmanager(tmp_path) -> Iterator[Alertmanager]:
    with Alertmanager(tmp_path, yaml.safe_load(CONFIG.read_text())) as running:
        yield running


def test_a_warning_keeps_quiet_under_its_critical_twin_of_the_same_server(alertmanager):
    seen = states(
        alertmanager,
        alert("RequestsQueueing", severity="critical"),
        alert("RequestsQueueing", severity="warning"),
        alert("RequestsQueueing", "b", severity="warning"),
    )
    assert seen == {
        "RequestsQueueing critical a": "active",
        "RequestsQueueing warning a": "suppressed",
        "RequestsQueueing warning b": "active",
    }


def test_everything_about_a_service_that_is_not_there_keeps_quiet(alertmanager):
    absent = alert("ServiceAbsent")
    del absent["instance"]
    seen = states(
        alertmanager,
        absent,
        alert("WorkersSaturated"),
        alert("WorkerCrashLoop"),
        alert("SloAvailabilityBurning"),
        alert("Watchdog"),
        alert("AlertsNotSent") | {"job": "alertmanager"},
    )
    assert {who.split()[0]: state for who, state in seen.items()} == {
        "ServiceAbsent": "active",
        "WorkersSaturated": "suppressed",
        "WorkerCrashLoop": "suppressed",
        "SloAvailabilityBurning": "suppressed",
        "Watchdog": "active",
        "AlertsNotSent": "active",
    }


def test_what_follows_from_another_alert_keeps_quiet_on_that_server_alone(alertmanager):
    seen = states(
        alertmanager,
        alert("WorkerStuck", worker="1"),
        alert("LoadUneven"),
        alert("LoadUneven", "b"),
        alert("AgentAbsent", "c"),
        alert("WorkersSaturated", "c"),
        alert("WorkerCrashLoop", "d"),
        alert("WorkersBelowTarget", "d"),
        alert("CpuStarved", "e"),
        alert("WorkersOverProvisioned", "e"),
    )
    assert {who for who, state in seen.items() if state == "suppressed"} == {
        "LoadUneven warning a",
        "WorkersSaturated warning c",
        "WorkersBelowTarget warning d",
        "WorkersOverProvisioned info e",
    }
