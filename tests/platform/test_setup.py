"""`.venv`: made once, made again when it has to be."""

import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts import venv
from scripts.options import ROOT
from scripts.problem import Problem


def require(root: Path, version: str, environment: venv.Environment = venv.DEVELOPMENT) -> None:
    """Write a pinned requirement: a wheel of the test's own."""
    wheel = root / f"pinned-{version}-py3-none-any.whl"
    info = f"pinned-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pinned.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: pinned\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (root / environment.requirements).write_text(f"pinned @ {wheel.as_uri()} --hash=sha256:{digest}\n")


def installed(root: Path, environment: venv.Environment = venv.DEVELOPMENT) -> str:
    """Return the version that the environment has."""
    code = "import pinned; print(pinned.version)"
    return subprocess.run(
        [root / environment.directory / "bin/python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Give a directory whose `.venv` is set up."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    require(tmp_path, "1.0")
    venv.ensure(tmp_path)
    return tmp_path


def test_it_is_made_once_and_again_only_for_other_requirements(root, capfd):
    assert installed(root) == "1.0"
    capfd.readouterr()
    venv.ensure(root)
    assert capfd.readouterr().out == ""
    require(root, "2.0")
    venv.ensure(root)
    assert installed(root) == "2.0"


def test_one_that_was_cut_short_is_made_afresh(root):
    (root / ".venv/.setup").write_text(venv.UNFINISHED)
    (root / ".venv/half-written").touch()
    venv.ensure(root)
    assert installed(root) == "1.0"
    assert not (root / ".venv/half-written").exists()


def test_a_wrong_hash_is_refused_and_counts_as_cut_short(root):
    require(root, "2.0")
    requirements = root / "requirements-dev.txt"
    requirements.write_text(requirements.read_text()[:-65] + "0" * 64 + "\n")
    with pytest.raises(Problem, match="make setup"):
        venv.ensure(root)
    assert (root / ".venv/.setup").read_text() == venv.UNFINISHED


def test_grafanas_is_apart_and_named_where_it_fails(root):
    require(root, "3.0", venv.GRAFANA)
    venv.ensure(root, venv.GRAFANA)
    assert (installed(root), installed(root, venv.GRAFANA)) == ("1.0", "3.0")
    (root / venv.GRAFANA.requirements).write_text("nowhere-to-be-had==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(Problem, match=r"Setting up \.venv-grafana failed.*`make grafana` starts afresh"):
        venv.ensure(root, venv.GRAFANA)


def test_a_python_that_is_not_supported_is_one_line():
    environ = os.environ | {"PYTHON": "/bin/false"}
    refused = subprocess.run(
        ["./scripts/python.sh", "-c", "pass"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("Python 3.11, 3.12 or 3.13 is needed, and /bin/false is none of them")
    assert len(refused.stderr.splitlines()) == 1
