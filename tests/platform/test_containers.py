"""The compose file and the image: valid, complete, hardened, and with the ports and settings that the Makefile has."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from app.settings import Settings as AppSettings
from observability.settings import Server, Settings
from observability.tuning.settings import Settings as TunerSettings
from scripts import containers, secret_files
from scripts.options import ROOT, Options

ALERTMANAGER = yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NATIVE_ONLY = {"OBSERVABILITY_AGENT", "OBSERVABILITY_AGENT_PORT", "GUNICORN_PIDFILE"}
OVERRIDES = ("compose.local.yml", "compose.tls.yml", "compose.faults.yml")
PINNED = re.compile(r"[a-z0-9_/-]+:v?\d+\.\d+(\.\d+)?(-alpine)?")
# An exporter from scratch, in which nothing could ask; and what only sends, and ends.
UNCHECKED = {"nginx-exporter", "load"}
DATABASE_CONNECTIONS = re.compile(r"max_connections=(\d+)")


def config(*overrides: str, profiles: tuple[str, ...] = ("load",), **env: str) -> dict:
    """Return the compose file as Docker Compose itself understands it, merged with overrides."""
    compose = Path(sys.executable).with_name("docker-compose")  # of the development requirements: no daemon needed
    classes = (Settings, Server, AppSettings, TunerSettings)
    ours = {field for cls in classes for field in (e.metadata["variable"] for e in fields(cls))}
    inherited = {name: value for name, value in os.environ.items() if name not in ours and "COMPOSE" not in name}
    files = [part for name in ("docker-compose.yml", *overrides) for part in ("-f", str(ROOT / name))]
    chosen = [part for name in profiles for part in ("--profile", name)]
    done = subprocess.run(
        [compose, *files, *chosen, "config"], env=inherited | env, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


COMPOSE = config()
SERVICES = COMPOSE["services"]


def published(services: dict) -> dict[str, set[str]]:
    """Return what each service publishes, as ADDRESS:PORT."""
    return {
        name: {f"{port['host_ip']}:{port['published']}" for port in service["ports"]}
        for name, service in services.items()
        if "ports" in service
    }


@pytest.mark.parametrize("overrides", [(), *[(each,) for each in OVERRIDES], OVERRIDES])
def test_docker_compose_takes_the_file_with_every_override(overrides):
    assert config(*overrides)["services"].keys() == SERVICES.keys()
    assert "load" not in config(*overrides, profiles=())["services"]


def test_settings_reach_the_app_and_nginx():
    found = config(APP_PORT="18000", GUNICORN_THREADS="3", MAX_BODY_BYTES="2048", REPLICAS="3")["services"]
    assert published(found)["nginx"] == {"127.0.0.1:18000"}
    assert found["app"]["environment"]["GUNICORN_THREADS"] == "3"
    assert found["app"]["environment"].get("WEB_CONCURRENCY") is None
    assert found["app"]["environment"]["MAX_BODY_BYTES"] == found["nginx"]["environment"]["MAX_BODY_BYTES"] == "2048"
    assert found["app"]["deploy"]["replicas"] == 3


def test_nginx_takes_as_large_a_body_as_the_app_does():
    default = next(each.default for each in fields(AppSettings) if each.name == "max_body")
    assert SERVICES["nginx"]["environment"]["MAX_BODY_BYTES"] == str(default)


def test_only_nginx_and_grafana_are_published_and_on_loopback():
    ports = Options().ports()
    assert published(SERVICES) == {
        "nginx": {f"127.0.0.1:{ports['APP_PORT']}"},
        "grafana": {f"127.0.0.1:{ports['GRAFANA_PORT']}"},
    }
    elsewhere = published(config(BIND_ADDRESS="192.0.2.1")["services"])
    assert {address.split(":")[0] for some in elsewhere.values() for address in some} == {"192.0.2.1"}


def test_make_up_publishes_the_rest_on_loopback_by_the_makefiles_settings():
    numbers = {variable: str(10_000 + port) for variable, port in Options().ports().items()}
    found = config("compose.local.yml", BIND_ADDRESS="192.0.2.1", **numbers)["services"]
    assert containers.FILES.split(os.pathsep) == ["docker-compose.yml", "compose.local.yml"]
    assert published(found) == {
        "nginx": {f"192.0.2.1:{numbers['APP_PORT']}", f"127.0.0.1:{numbers['AGENT_PORT']}"},
        "grafana": {f"192.0.2.1:{numbers['GRAFANA_PORT']}"},
        "prometheus": {f"127.0.0.1:{numbers['PROMETHEUS_PORT']}"},
        "alertmanager": {f"127.0.0.1:{numbers['ALERTMANAGER_PORT']}"},
        "tuner": {f"127.0.0.1:{numbers['TUNER_PORT']}"},
    }
    for name in published(found):
        assert "edge" in found[name]["networks"], "what is on an internal network alone cannot be published"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_needless_rights(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), "a number, which is not root's"
    assert "privileged" not in service
    assert "cap_add" not in service
    for volume in service.get("volumes", []):
        if volume["type"] == "bind" and volume["target"] != "/var/run/docker.sock":
            assert volume["read_only"] is True, volume


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_watched_and_started_again(name):
    service = SERVICES[name]
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["deploy"]["resources"]["limits"]["cpus"] <= 1, "more would not start on a host of one core"
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
    assert service["restart"] == ("no" if name == "load" else "unless-stopped")
    if name in UNCHECKED:
        assert service["healthcheck"] == {"disable": True}
        assert all(name not in other.get("depends_on", {}) for other in SERVICES.values())
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name):
    service = SERVICES[name]
    assert service["image"] == "sightline-app" or PINNED.fullmatch(service["image"]), service["image"]


def test_a_service_waits_for_what_is_healthy():
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    for service in SERVICES.values():
        assert {each["condition"] for each in service.get("depends_on", {}).values()} <= {"service_healthy"}
    assert waits["app"] == {"postgres", "redis"}, "telemetry is nothing that the service waits for"
    assert waits["nginx"] == {"app"}
    assert waits["alloy"] == {"docker-logs", "loki", "tempo"}


def test_the_backend_has_no_way_out_and_the_docker_socket_has_one_reader():
    networks = COMPOSE["networks"]
    assert {name for name, network in networks.items() if network.get("internal")} == {"backend", "logs"}
    on_edge = {name for name, service in SERVICES.items() if "edge" in service["networks"]}
    assert on_edge == {"nginx", "grafana", "alertmanager"}
    assert {name for name, service in SERVICES.items() if "logs" in service["networks"]} == {"alloy", "docker-logs"}
    with_socket = {
        name
        for name, service in SERVICES.items()
        for volume in service.get("volumes", [])
        if volume["target"] == "/var/run/docker.sock"
    }
    assert with_socket == {"docker-logs"}


def test_secrets_are_files_and_nowhere_in_the_environment():
    used = {secret["source"] for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == COMPOSE["secrets"].keys() == set(secret_files.NAMES)
    for name in secret_files.NAMES:
        assert COMPOSE["secrets"][name]["file"] == str(secret_files.DIRECTORY / name)
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|PASS_|TOKEN", variable):
                assert value.startswith("/run/secrets/"), variable


def test_a_secret_is_made_once_and_only_its_owner_gets_at_it(tmp_path, monkeypatch):
    monkeypatch.setattr(secret_files, "DIRECTORY", tmp_path / "secrets")
    secret_files.ensure()
    made = {name: (tmp_path / "secrets" / name).read_text() for name in secret_files.NAMES}
    assert all(len(value) >= 32 for value in made.values())
    assert len(set(made.values())) == len(made)
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == made.keys()
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    (tmp_path / "secrets/database_password").chmod(0o600)
    secret_files.ensure()
    assert {name: (tmp_path / "secrets" / name).read_text() for name in secret_files.NAMES} == made


def test_secrets_are_not_for_git_or_the_image():
    assert ".secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_app_gets_every_setting():
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    known = {each.metadata["variable"] for cls in (Settings, Server, AppSettings) for each in fields(cls)}
    assert raw["services"]["app"]["environment"].keys() == known - NATIVE_ONLY


def test_the_tuner_gets_every_setting_and_only_recommends():
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["tuner"]["environment"]
    known = {each.metadata["variable"] for each in fields(TunerSettings)}
    assert {name for name in raw if name.startswith("TUNER_")} == known - {"TUNER_PORT"}
    assert raw["TUNER_MODE"] is None, "as the host's environment has it, else the default"
    assert next(each.default for each in fields(TunerSettings) if each.name == "mode") == "recommend"
    assert config(TUNER_MODE="apply")["services"]["tuner"]["environment"]["TUNER_MODE"] == "apply"


def test_the_tuner_and_those_that_it_talks_to_know_the_same_secrets():
    holders = {
        name: {service for service, each in SERVICES.items() if name in [s["source"] for s in each.get("secrets", [])]}
        for name in ("webhook_token", "control_token")
    }
    assert holders == {"webhook_token": {"alertmanager", "tuner"}, "control_token": {"app", "tuner"}}
    tuner, app = SERVICES["tuner"]["environment"], SERVICES["app"]["environment"]
    assert tuner["TUNER_CONTROL_TOKEN_FILE"] == app["OBSERVABILITY_CONTROL_TOKEN_FILE"] == "/run/secrets/control_token"
    (receiver,) = [each for each in ALERTMANAGER["receivers"] if each["name"] == "tuner"]
    (webhook,) = receiver["webhook_configs"]
    assert webhook["http_config"]["authorization"]["credentials_file"] == tuner["TUNER_WEBHOOK_TOKEN_FILE"]
    assert (webhook["url"], webhook["send_resolved"]) == ("http://tuner:9102/alerts", True)


def test_the_tuner_keeps_its_memory_on_a_volume_that_is_its_own():
    tuner = SERVICES["tuner"]
    assert [(each["type"], each["source"], each["target"]) for each in tuner["volumes"]] == [
        ("volume", "tuner-data", tuner["environment"]["TUNER_DIR"])
    ]
    assert re.search(r"install -d -o sightline -g sightline [^\n]*/tuner$", DOCKERFILE, re.MULTILINE)
    assert tuner["user"] == SERVICES["app"]["user"]
    assert tuner["networks"].keys() == {"backend"}


def test_the_app_has_time_to_end_and_its_state_in_memory():
    app = SERVICES["app"]
    graceful = next(each for each in fields(Server) if each.name == "graceful_timeout")
    assert int(app["stop_grace_period"].removesuffix("s")) > graceful.default
    uid = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    state, _ = app["tmpfs"]
    path, _, options = state.partition(":")
    assert path == app["environment"]["OBSERVABILITY_DIR"]
    assert {"mode=0700", f"uid={uid[1]}", f"gid={uid[2]}"} <= set(options.split(","))
    assert app["user"] == f"{uid[1]}:{uid[2]}"


def test_the_database_has_a_connection_for_every_worker_of_three_replicas():
    pool = {each.name: each.default for each in fields(AppSettings)}
    workers = 3  # of a replica with one core: limits.default_workers
    wanted = 3 * workers * (pool["pool_size"] + pool["pool_overflow"])
    assert int(DATABASE_CONNECTIONS.search(str(SERVICES["postgres"]["command"]))[1]) > wanted


def test_every_mounted_path_is_there():
    for service in config(*OVERRIDES[:1])["services"].values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and not volume["target"].endswith(".sock"):
                assert Path(volume["source"]).exists(), volume


def test_prometheus_keeps_what_objectives_need():
    command = SERVICES["prometheus"]["command"]
    assert "--storage.tsdb.retention.time=35d" in command
    assert "--enable-feature=exemplar-storage" in command


def test_nobody_is_let_into_grafana_unknown_but_for_a_look_at_home():
    assert SERVICES["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    local = config("compose.local.yml")["services"]["grafana"]["environment"]
    assert local["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_image_is_built_from_what_the_context_holds():
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore
    assert "CMD [" in DOCKERFILE, "exec form, so that gunicorn gets the signals"
    assert "# syntax=" not in DOCKERFILE, "it would load an image from elsewhere"
    assert len(set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))) == 1
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+$", DOCKERFILE, re.MULTILINE)


def test_the_version_reaches_the_service_and_the_label():
    assert config(SERVICE_VERSION="1.2.3")["services"]["app"]["build"]["args"] == {"VERSION": "1.2.3"}
    assert 'org.opencontainers.image.version="${VERSION}"' in DOCKERFILE
    assert "SERVICE_VERSION=${VERSION}" in DOCKERFILE
