"""Fixtures of the tests of `python -m observability grafana`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import venv
from tests.grafana.command import Command
from tests.grafana.server import Grafana


@pytest.fixture(scope="session", autouse=True)
def _environment() -> None:
    """Have the environment that the command runs in, pinned with hashes."""
    venv.ensure(environment=venv.GRAFANA)


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with Grafana() as running:
        yield running


def board(uid: str, title: str, *panels: dict, **more: object) -> dict:
    """Make a small dashboard."""
    variable = {"type": "datasource", "name": "datasource", "query": "prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["sightline"],
        "schemaVersion": 39,
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
        **more,
    }


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """Give a directory of two dashboards."""
    directory = tmp_path / "boards"
    directory.mkdir()
    logs = {"type": "logs", "title": "Lines", "datasource": {"type": "loki", "uid": "loki"}, "targets": []}
    write(directory, board("one", "One", {"type": "stat", "title": "Up"}))
    write(directory, board("two", "Two", logs))
    return directory


def write(directory: Path, model: dict) -> Path:
    path = directory / f"{model['uid']}.json"
    path.write_text(json.dumps(model, indent=2) + "\n")
    return path


@pytest.fixture
def run(grafana: Grafana, boards: Path) -> Command:
    return Command(grafana.url, GRAFANA_DASHBOARDS=boards)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Give a copy of the committed dashboards."""
    from tests.server import ROOT

    return Path(shutil.copytree(ROOT / "dashboards", tmp_path / "dashboards"))
