"""The reference pages are what the code says, on any machine, and the check sees it when they are not."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest

from app.settings import Settings as AppSettings
from observability import catalogue, settings
from observability.tuning.settings import Settings as TunerSettings
from tests.server import ROOT

SETTINGS = (ROOT / "docs/settings.md").read_text()
METRICS = (ROOT / "docs/metrics.md").read_text()


def run(*arguments, cwd=ROOT, **env):
    """Run the script as the Makefile does: in a process of its own, whose metrics are the app's alone."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.docs", *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path):
    """Give a copy of what the script reads and writes."""
    for name in ("app", "observability", "scripts", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def test_what_is_committed_is_current():
    checked = run("--check")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "docs: current\n", "")


def test_pages_say_nothing_of_this_machine_or_its_environment(tmp_path):
    """Computed defaults are described, and no variable that is set here shows through."""
    checked = run("--check", OBSERVABILITY_DIR=str(tmp_path), WEB_CONCURRENCY="7", DATA_DIR=str(tmp_path), APP_PORT="1")
    assert checked.returncode == 0, checked.stdout
    assert list(tmp_path.iterdir()) == [], "no slot is claimed"


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "decisions.md"])
def test_a_page_that_is_changed_or_gone_is_named_and_written_anew(copy, name):
    page = copy / "docs" / name
    before = page.read_text()
    page.write_text(before + "\nby hand\n")
    for _ in ("changed", "gone"):
        checked = run("--check", cwd=copy)
        assert checked.returncode == 1
        assert checked.stdout == f"Not current: docs/{name}; `make docs` writes them anew\n"
        page.unlink(missing_ok=True)
    assert run(cwd=copy).returncode == 0
    assert page.read_text() == before


def test_a_new_metric_makes_the_page_stale(copy):
    source = copy / "observability/catalogue/worker.py"
    source.write_text(source.read_text() + '\ndeclare("gunicorn_new_total", "counter", "New.", per_worker=True)\n')
    assert "docs/metrics.md" in run("--check", cwd=copy).stdout
    run(cwd=copy)
    assert "| `gunicorn_new_total` | counter | `worker` | New. |" in (copy / "docs/metrics.md").read_text()


def test_an_app_of_ones_own_needs_no_settings_and_no_metrics(copy):
    shutil.rmtree(copy / "app")
    (copy / "app.py").write_text("def create_app(): ...\n")
    assert run(cwd=copy).returncode == 0
    assert "## The service" not in (copy / "docs/settings.md").read_text()


@pytest.mark.parametrize("cls", [settings.Settings, settings.Server, TunerSettings, AppSettings])
def test_every_setting_is_there_with_what_it_takes_and_its_default(cls):
    for each in fields(cls):
        cells = [line.split(" | ") for line in SETTINGS.splitlines() if f"`{each.metadata['variable']}` |" in line]
        default = settings.default_of(each) or "unset"
        assert [each.metadata["kind"].takes, default] in [[cell.strip("`") for cell in row[1:3]] for row in cells]


def test_every_metric_is_there_with_its_labels():
    for metric in catalogue.METRICS.values():
        labels = ["worker"] * metric.per_worker + list(metric.labels)
        shown = ", ".join(f"`{label}`" for label in labels)
        assert f"| `{metric.name}` | {metric.kind} | {shown} |" in METRICS
        assert (f"- `{metric.name}`: " in METRICS) == bool(metric.buckets)
