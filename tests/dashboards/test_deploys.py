"""When the dashboards mark a deploy, as promtool evaluates their query over series that are laid down here."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from dashboards.events import DEPLOYS
from tests.dashboards.grafana import ALL, Span, Variable, substitute
from tests.prometheus import program

SPAN = Span(1800)  # a rate is over a minute, which is two of the samples below


def info(instance: str, environment: str, version: str) -> str:
    return (
        f'target_info{{job="app", instance="{instance}", deployment_environment_name="{environment}", '
        f'service_version="{version}"}}'
    )


SERIES = {
    info("c:1", "canary", "1.2"): "1x120",
    info("a:1", "production", "1.1"): "1x40 stale",  # gone at 20 min 30 s
    info("b:1", "production", "1.2"): "_x20 1x100",  # promoted at 10 min, while the old one still runs
    info("d:1", "production", "1.2"): "_x30 1x90",  # rolled out further at 15 min
    info("e:1", "production", "1.1"): "_x60 1x60",  # a replica of the old version at 30 min, which nobody has any more
    info("f:1", "production", "1.3"): "_x80 1x40",
    'target_info{job="other", instance="o:1", service_version="9"}': "_x20 1x100",  # it names no environment
}


def deploy(environment: str, version: str, job: str = "app") -> str:
    return f'{{job="{job}", deployment_environment_name="{environment}", service_version="{version}"}}'


def query(environment: str, instance: str, job: str) -> str:
    every = {"options": ["unknown"], "multi": True, "include_all": True}
    variables = {
        "environment": Variable([environment], all_value=".*", **every),
        "job": Variable([job], **every),
        "instance": Variable([instance], **every),
    }
    return substitute(DEPLOYS.query.expression, variables, SPAN)


def evaluated(directory: Path, asked: str, marks: Mapping[str, list[str]]) -> str:
    """Return what promtool says when it expects these marks at these times."""
    cases = [
        {"expr": asked, "eval_time": at, "exp_samples": [{"labels": each, "value": 1} for each in marked]}
        for at, marked in marks.items()
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    file = {"tests": [{"interval": "30s", "input_series": series, "promql_expr_test": cases}]}
    path = directory / "cases.yml"
    path.write_text(yaml.safe_dump(file))
    done = subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


NONE_BEFORE: dict[str, list[str]] = {"9m30s": []}
PROMOTED = {"10m": [deploy("production", "1.2")], "10m30s": [deploy("production", "1.2")], "11m": []}
LATER = {
    "15m": [],  # d:1 is one more of what b:1 has begun
    "30m": [],  # e:1 has a name of its own, and the version of a:1
    "40m": [deploy("production", "1.3")],
    "41m": [],
}


@pytest.mark.parametrize("environment", [ALL, "production"])
@pytest.mark.parametrize("instance", [ALL, "d:1", "e:1"])
def test_a_version_is_deployed_to_an_environment_once_whichever_servers_are_chosen(tmp_path, environment, instance):
    """A promotion is one; a replica, a rollout that goes on, and a server that is no choice any more make none."""
    assert evaluated(tmp_path, query(environment, instance, "app"), NONE_BEFORE | PROMOTED | LATER) == ""


def test_a_choice_of_environment_leaves_out_the_deploys_to_others(tmp_path):
    nothing: dict[str, list[str]] = {at: [] for at in ("9m30s", *PROMOTED, *LATER)}
    first = {"0s": [deploy("canary", "1.2")], "1m": []}
    assert evaluated(tmp_path, query("canary", ALL, "app"), first | nothing) == ""


def test_a_job_that_names_no_environment_has_deploys_too(tmp_path):
    """Of a label that is not there, Grafana would write the name."""
    marks = {"9m30s": [], "10m": [deploy("no environment", "9", "other")], "11m": []}
    assert evaluated(tmp_path, query(ALL, ALL, "other"), marks) == ""


def test_a_mark_names_all_that_tells_it_from_others():
    assert all(f"{{{{{label}}}}}" in DEPLOYS.text for label in DEPLOYS.query.by)
    assert "deployment_environment_name" in DEPLOYS.query.by
