"""What native mode sets for the service agrees with what the service itself would choose."""

from dataclasses import replace

from observability.settings import Server, Settings, load
from scripts import services
from scripts.options import Options


def test_the_state_directory_is_the_services_own_default(monkeypatch):
    """So that `python -m observability` finds it without being told."""
    monkeypatch.delenv("OBSERVABILITY_DIR", raising=False)
    monkeypatch.setenv("OBSERVABILITY_AGENT_PORT", "19101")
    assert services.state_directory(replace(Options(), agent_port=19101)) == load(Settings, {}).directory


def test_the_ports_reach_the_service(monkeypatch):
    monkeypatch.setenv("GUNICORN_BIND", "0.0.0.0:1")
    environ = services.service("app", replace(Options(), app_port=18000, agent_port=19101)).environ
    assert load(Server, environ).bind == "127.0.0.1:18000"
    assert load(Settings, environ).agent_port == 19101
    assert load(Settings, environ).agent_host == "127.0.0.1"
    assert environ["AGENT_URL"] == "http://127.0.0.1:19101"


def test_the_service_is_given_longer_to_end_than_its_graceful_timeout(monkeypatch):
    monkeypatch.setenv("GUNICORN_GRACEFUL_TIMEOUT", "120")
    assert services.service("app", Options()).stop_seconds > 120
    monkeypatch.delenv("GUNICORN_GRACEFUL_TIMEOUT")
    assert services.service("app", Options()).stop_seconds > load(Server, {}).graceful_timeout
