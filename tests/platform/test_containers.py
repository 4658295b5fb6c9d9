"""The compose file and the image: valid, complete, and with the ports and settings that the Makefile has."""

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
from scripts.options import ROOT, Options

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NATIVE_ONLY = {"OBSERVABILITY_AGENT", "OBSERVABILITY_AGENT_PORT", "GUNICORN_PIDFILE"}


def test_docker_compose_takes_the_file():
    compose = Path(sys.executable).with_name("docker-compose")  # of the development requirements: no daemon needed
    environ = os.environ | {"APP_PORT": "18000", "FAULTS_ENABLED": "1"}
    environ.pop("WEB_CONCURRENCY", None)
    done = subprocess.run(
        [compose, "-f", ROOT / "docker-compose.yml", "config"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    app = yaml.safe_load(done.stdout)["services"]["app"]
    assert {port["published"] for port in app["ports"]} == {"18000", "9101"}
    assert app["environment"]["FAULTS_ENABLED"] == "1"
    assert app["environment"].get("WEB_CONCURRENCY") is None


def test_what_is_published_is_on_loopback_and_by_the_makefiles_settings():
    published = [port for service in SERVICES.values() for port in service["ports"]]
    found = {}
    for port in published:
        variable, default = re.fullmatch(r"127\.0\.0\.1:\$\{([A-Z_]+):-(\d+)\}:\d+", port).groups()
        found[variable] = int(default)
    assert found == Options().ports()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_restarts_is_watched_and_has_no_needless_rights(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    image = service["image"]
    assert "build" in service or re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image), "an image is pinned"


def test_the_app_gets_every_setting():
    known = {each.metadata["variable"] for cls in (Settings, Server, AppSettings) for each in fields(cls)}
    assert SERVICES["app"]["environment"].keys() == known - NATIVE_ONLY


def test_the_app_has_time_to_end_and_its_state_in_memory():
    app = SERVICES["app"]
    graceful = next(each for each in fields(Server) if each.name == "graceful_timeout")
    assert int(app["stop_grace_period"].removesuffix("s")) > graceful.default
    uid = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    (state,) = app["tmpfs"]
    path, _, options = state.partition(":")
    assert path == app["environment"]["OBSERVABILITY_DIR"]
    assert {"mode=0700", f"uid={uid[1]}", f"gid={uid[2]}"} <= set(options.split(","))
    assert uid[1] != "0"


def test_every_named_volume_and_mounted_directory_is_there():
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (ROOT / source).is_dir() if source.startswith("./") else source in COMPOSE["volumes"]


def test_prometheus_keeps_what_objectives_need():
    command = SERVICES["prometheus"]["command"]
    assert "--storage.tsdb.retention.time=35d" in command
    assert "--enable-feature=exemplar-storage" in command


def test_the_image_is_built_from_what_the_context_holds():
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore
    assert "CMD [" in DOCKERFILE, "exec form, so that gunicorn gets the signals"
    assert len(set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))) == 1
