"""`make up` and `make down` with containers: what they print is true, and nothing is left."""

import os
import re
from pathlib import Path

import pytest
import requests

from tests.compose.stack import COMPOSE, Stack
from tests.platform.make import Make

FILES = "docker-compose.yml:compose.local.yml:tests/compose/compose.test.yml"


PATIENCE = 600  # seconds: the app's image is built


@pytest.fixture
def make(host: str, images: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Give the Makefile, with a Docker CLI that has the compose plugin."""
    monkeypatch.setattr("tests.platform.make.PATIENCE", PATIENCE)
    plugins = tmp_path / "docker/cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(COMPOSE)
    settings = {"DOCKER_CONFIG": plugins.parent, "DOCKER_BUILDKIT": 0, "COMPOSE_FILE": FILES}
    named = {"DOCKER_HOST": host} if host else {}
    project = f"sightline-test-make-{os.getpid()}"
    return Make(tmp_path / "run", MODE="containers", COMPOSE_PROJECT_NAME=project, **named, **settings)


def test_up_says_where_everything_is_and_down_ends_it(make, host):
    up = make("up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        addresses = dict(re.findall(r"^  ([A-Z]\w+) +(http://[\d.:]+\S*)", up.stdout, re.MULTILINE))
        monitors = {"Prometheus", "Alertmanager", "Tuner", "Grafana"}
        assert addresses.keys() == {"App", "Metrics", "Health", "State"} | monitors
        for name, address in addresses.items():
            if name != "Grafana":  # compose.test.yml
                assert requests.get(address, timeout=10).status_code == 200, name
        assert "(admin, .secrets/grafana_admin_password)" in up.stdout
        assert "sightline-app" in make("status").stdout
        lines = make("logs").stdout
        assert '"event.name":"http.server.request"' in lines, "the first requests"
    finally:
        down = make("down")
    assert down.returncode == 0, down.stderr
    stack = Stack(host)
    stack.project = make.environ["COMPOSE_PROJECT_NAME"]
    stack.compose("down", "--volumes")
    assert stack.left() == []
    assert "Nothing is running" in make("status").stdout
