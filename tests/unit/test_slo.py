"""The objectives' data is checked to the last value, and the rules are what it says."""

import shutil
import subprocess
import sys
from decimal import Decimal

import pytest
import yaml

from observability import catalogue
from scripts import objectives, slo
from scripts.objectives import Latency
from scripts.options import ROOT
from scripts.problem import Problem

TEXT = (ROOT / slo.DATA).read_text()
BOUNDS = ", ".join(f"{bound:g}" for bound in catalogue.DURATION_BUCKETS)


def load(tmp_path, text):
    path = tmp_path / "slo.yml"
    path.write_text(text)
    return objectives.load(path)


def changed(path, value):
    """Return the data with one value put in, taken out, or changed."""
    data = yaml.safe_load(TEXT)
    *way, last = path
    place = data
    for each in way:
        place = place[each]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(data)


def test_what_is_committed_is_current():
    assert slo.outdated() == []


def test_a_changed_file_is_named_and_written_anew(tmp_path):
    for name in ("monitoring", "scripts", "observability"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def run(*arguments):
        command = [sys.executable, "-m", "scripts.slo", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    data = tmp_path / slo.DATA
    data.write_text(TEXT.replace("objective: 99.9 ", "objective: 99.5 "))
    both = "monitoring/prometheus/rules/slo.yml, monitoring/prometheus/demo/slo.yml"
    assert run("--check").stdout == f"Not current: {both}; `make slo` writes them\n"
    assert run("--check").returncode == 1
    assert run().returncode == 0
    assert run("--check").stdout == "slo: current\n"
    rules = tmp_path / slo.FILES["production"]
    assert "objective of 99.5 %" in rules.read_text()
    rules.unlink()
    assert run("--check").stdout == "Not current: monitoring/prometheus/rules/slo.yml; `make slo` writes them\n"
    data.write_text("job: [\n")
    broken = run("--check")
    assert (broken.returncode, broken.stdout, broken.stderr.count("\n")) == (1, "", 1)
    assert broken.stderr.startswith("slo.yml is no YAML: ")


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (["job"], 3, "job is 3, but takes the job's name in Prometheus"),
        (["job"], "", "job is empty, but takes the job's name in Prometheus"),
        (["jobs"], "x", "jobs is not known here; the file takes job, objectives, production and demo"),
        (["demo"], None, "demo is missing; it takes period, interval and windows"),
        (["objectives"], [], "objectives is empty, but takes a list, of each: name, kind, objective, leave_out, and"),
        (["objectives", 0, "name"], "Å", "objectives[0].name is 'Å', but takes small letters, digits and dashes"),
        (["objectives", 1, "name"], "availability", "objectives[1].name is 'availability', but takes small letters"),
        (["objectives", 0, "kind"], "uptime", "objectives[0].kind is 'uptime', but takes availability or latency"),
        (["objectives", 0, "kind"], None, "objectives[0].kind is missing; it takes availability or latency"),
        (["objectives", 0, "objective"], 100, "objectives[0].objective is 100, but takes a percentage above 0"),
        (["objectives", 0, "objective"], True, "objectives[0].objective is True, but takes a percentage above 0"),
        (["objectives", 0, "objective"], float("nan"), "objectives[0].objective is nan, but takes a percentage"),
        (["objectives", 0, "objective"], "99.9 %", "objectives[0].objective is '99.9 %', but takes a percentage"),
        (["objectives", 0, "objective"], 90, "production.windows[0].factor is 14.4, but takes a number above 0"),
        (["objectives", 0, "threshold"], 1, "objectives[0].threshold is not known here; objectives[0] takes a list"),
        (["objectives", 0, "leave_out"], ["/", 1], "objectives[0].leave_out[1] is 1, but takes a list of routes"),
        (
            ["objectives", 1, "threshold"],
            0.3,
            "objectives[1].threshold is 0.3, but takes seconds, one of the buckets' bounds 0.005",
        ),
        (["objectives", 1, "threshold"], None, "objectives[1].threshold is missing; it takes seconds, one of the"),
        (["production", "period"], "2d", "production.period is '2d', but takes a duration such as 30d, at least the"),
        (["production", "interval"], "4m", "production.interval is '4m', but takes a duration such as 15s, at most"),
        (["demo", "interval"], "20s", "demo.interval is '20s', but takes a duration such as 15s, at most 2m and half"),
        (["demo", "windows"], {}, "demo.windows is empty, but takes a list, of each: severity, long, short, factor"),
        (["demo", "windows", 0], "x", "demo.windows[0] is 'x', but takes a list, of each: severity, long, short"),
        (["demo", "windows", 1, "long"], "1m", "demo.windows[1].long is '1m', but takes a duration such as 1h, longer"),
        (["demo", "windows", 1, "long"], "120s", "demo.windows[1].long is '120s', but takes a duration such as 1h, lo"),
        (["demo", "windows", 1, "short"], "1.5m", "demo.windows[1].short is '1.5m', but takes a duration such as 5m"),
        (["demo", "windows", 1, "for"], "0m", "demo.windows[1].for is '0m', but takes a duration such as 2m"),
        (["demo", "windows", 1, "for"], None, "demo.windows[1].for is missing; it takes a duration such as 2m"),
        (["demo", "windows", 1, "factor"], 0, "demo.windows[1].factor is 0, but takes a number above 0"),
        (["demo", "windows", 1, "factor"], 100, "demo.windows[1].factor is 100, but takes a number above 0, such as"),
        (["demo", "windows", 1, "factor"], float("nan"), "demo.windows[1].factor is nan, but takes a number above 0"),
        (["demo", "windows", 1, "severity"], "page", "demo.windows[1].severity is 'page', but takes critical or"),
        (["demo", "windows", 1, "requests"], -1, "demo.windows[1].requests is -1, but takes a whole number from 0"),
        (["demo", "windows", 1, "requests"], 1.5, "demo.windows[1].requests is 1.5, but takes a whole number from 0"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_line(tmp_path, path, value, line):
    with pytest.raises(Problem) as problem:
        load(tmp_path, changed(path, value))
    assert str(problem.value).startswith(f"slo.yml: {line}")
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("text", ["", "[]", "words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(Problem, match=r"^slo.yml: the file is .*, but takes job, objectives, production and demo$"):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Problem, match=r"^slo.yml cannot be read: No such file or directory$"):
        objectives.load(tmp_path / "slo.yml")


def test_a_threshold_takes_just_the_bounds_and_says_them(tmp_path):
    for bound in catalogue.DURATION_BUCKETS:
        assert load(tmp_path, changed(["objectives", 1, "threshold"], bound))
    with pytest.raises(Problem, match=BOUNDS):
        load(tmp_path, changed(["objectives", 1, "threshold"], 11))


def test_a_budget_is_exact(tmp_path):
    for percent, budget in ((99.9, "0.001"), (99, "0.01"), (99.95, "0.0005"), (98.8, "0.012")):
        data = load(tmp_path, changed(["objectives", 0, "objective"], percent))
        assert data.objectives[0].budget == Decimal(budget)
        assert f'{{slo="availability"}} / {budget}\n' in slo.build(data)[slo.FILES["production"]]


def test_a_bucket_is_named_as_the_agent_writes_it(tmp_path):
    data = load(tmp_path, changed(["objectives", 1, "threshold"], 1))
    assert isinstance(data.objectives[1], Latency)
    assert 'le="1.0"' in slo.build(data)[slo.FILES["production"]]


def test_routes_are_left_out_whatever_they_are_called(tmp_path):
    data = load(tmp_path, changed(["objectives", 0, "leave_out"], ['/a"b', "/c\\d", ""]))
    text = slo.build(data)[slo.FILES["production"]]
    assert r'job="sightline",http_route!="/a\"b",http_route!="/c\\d",http_route!="",http_response_status_code' in text


def test_both_sets_may_be_loaded_together():
    """No two rules record the same series, and no two alerts have the same labels."""
    seen = set()
    for text in slo.build(objectives.load(ROOT / slo.DATA)).values():
        groups = yaml.safe_load(text)["groups"]
        assert len({group["name"] for group in groups}) == len(groups)
        for rule in (rule for group in groups for rule in group["rules"]):
            key = (rule.get("record") or rule["alert"], *sorted(rule["labels"].items()))
            assert key not in seen
            seen.add(key)
