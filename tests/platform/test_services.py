"""What native mode sets for the service agrees with what the service itself would choose."""

from dataclasses import replace

from observability.settings import Server, Settings, load
from observability.tuning.settings import load_tuner
from scripts import configs, secret_files, services
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


def test_the_tuner_finds_the_others_and_has_their_secrets(monkeypatch, tmp_path):
    options = replace(Options(), run_dir=str(tmp_path), agent_port=19101, prometheus_port=19090, tuner_port=19102)
    secret_files.make(services.secrets(options), (services.WEBHOOK_TOKEN, services.CONTROL_TOKEN), 0o600)
    started = services.service("tuner", options)
    loaded = load_tuner(started.environ)
    assert (loaded.host, loaded.port, loaded.mode) == ("127.0.0.1", 19102, "recommend")
    assert loaded.prometheus_url == "http://127.0.0.1:19090"
    assert loaded.agent_url == services.service("app", options).environ["AGENT_URL"]
    told = services.service("app", options).environ["OBSERVABILITY_CONTROL_TOKEN_FILE"]
    assert str(loaded.control_token_file) == told
    assert started.ready == "http://127.0.0.1:19102/livez"
    configs.render(options)
    text = (tmp_path / "alertmanager/alertmanager.yml").read_text()
    assert "url: http://127.0.0.1:19102/alerts" in text
    assert f"credentials_file: {loaded.webhook_token_file}" in text
    assert "127.0.0.1:19102" in (tmp_path / "prometheus/prometheus.yml").read_text()
    monkeypatch.setattr(services.packages.Tool, "path", lambda _: None)
    assert load_tuner(services.service("tuner", options).environ).prometheus_url == "", "it watches the agent itself"
