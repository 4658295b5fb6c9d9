"""The annotator's service and image: bounded and without rights like every other, and only there where asked for."""

import re
from dataclasses import fields

import yaml

from observability.grafana.settings import Settings
from observability.settings import Settings as Telemetry
from scripts import venv
from scripts.options import ROOT
from tests.platform import test_containers as containers

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICE = containers.config(profiles=("annotations",))["services"]["annotator"]


def test_it_runs_only_where_it_is_asked_for():
    assert "annotator" not in containers.config(profiles=())["services"]
    assert "grafana_token" not in containers.config(profiles=())["secrets"], "a missing token stops nothing"


def test_it_has_no_needless_rights_and_is_bounded(monkeypatch):
    monkeypatch.setitem(containers.SERVICES, "annotator", SERVICE)
    containers.test_a_service_has_no_needless_rights("annotator")
    containers.test_a_service_is_bounded_watched_and_started_again("annotator")


def test_the_token_is_a_file_and_grafana_elsewhere_can_be_reached():
    environment = SERVICE["environment"]
    assert environment["GRAFANA_TOKEN_FILE"] == "/run/secrets/grafana_token"
    assert "GRAFANA_TOKEN" not in environment
    assert [each["source"] for each in SERVICE["secrets"]] == ["grafana_token"]
    assert SERVICE["networks"].keys() == {"edge", "backend"}
    assert environment["GRAFANA_URL"] == "http://grafana:3000"
    elsewhere = containers.config(profiles=("annotations",), ANNOTATED_GRAFANA_URL="https://grafana.example")
    assert elsewhere["services"]["annotator"]["environment"]["GRAFANA_URL"] == "https://grafana.example"


def test_it_gets_every_setting_that_it_reads():
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["annotator"]["environment"]
    known = {each.metadata["variable"] for cls in (Settings, Telemetry) for each in fields(cls)}
    assert raw.keys() <= known
    assert {name for name in known if re.match(r"GRAFANA_(ANNOTATION|SPOOL|TIMEOUT)", name)} <= raw.keys()


def test_its_image_is_a_stage_with_its_own_requirements_and_the_apps_is_the_last():
    stages = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]
    (stage,) = [each for each in stages if each.startswith("FROM ${PYTHON_IMAGE} AS grafana\n")]
    assert SERVICE["build"]["target"] == "grafana"
    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
    assert 'ENTRYPOINT ["python", "-m", "observability", "grafana"]\nCMD ["annotate"]\n' in stage
    (building,) = [each for each in stages if each.startswith("FROM ${PYTHON_IMAGE} AS build-grafana\n")]
    assert f"--require-hashes -r /{venv.GRAFANA.requirements}" in building
    assert "gunicorn" in stages[-1].splitlines()[-1]


def test_its_spool_is_a_volume_that_its_user_owns():
    (volume,) = SERVICE["volumes"]
    assert (volume["type"], volume["target"]) == ("volume", SERVICE["environment"]["GRAFANA_SPOOL"])
    assert f"install -d -o sightline -g sightline {volume['target']}\n" in DOCKERFILE
    assert f"{volume['target']}/annotator.json" in SERVICE["healthcheck"]["test"][-1]
