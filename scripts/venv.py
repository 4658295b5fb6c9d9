"""The virtual environment: made once, made again when the requirements changed or a set-up was cut short.

Run as a program, it is `make setup`.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts import packages
from scripts.options import ROOT
from scripts.problem import Problem, report

UNFINISHED = "unfinished"


def ensure(root: Path = ROOT) -> None:
    """Make `.venv` hold exactly the pinned requirements, unless it already does."""
    venv, stamp = root / ".venv", root / ".venv" / ".setup"
    wanted = _fingerprint(root / "requirements-dev.txt")
    found = stamp.read_text() if stamp.exists() else ""
    if found == wanted:
        return
    print("Setting up .venv from requirements-dev.txt; this takes about a minute.", flush=True)
    _create(venv, clear=found == UNFINISHED or not _same_python(venv))
    stamp.write_text(UNFINISHED)
    _run([str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off",
          "--require-hashes", "-r", str(root / "requirements-dev.txt")])  # fmt: skip
    stamp.write_text(wanted)


def _fingerprint(requirements: Path) -> str:
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    return f"{digest} python{sys.version_info[0]}.{sys.version_info[1]}"


def _same_python(venv: Path) -> bool:
    minor = sys.version_info[1]
    return not venv.exists() or (venv / f"lib/python3.{minor}").is_dir()


def _create(venv: Path, *, clear: bool) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        packages.install([f"python3.{sys.version_info[1]}-venv"], why="Python's venv module")
    if clear:
        shutil.rmtree(venv, ignore_errors=True)
    elif (venv / "bin/pip").exists():
        return
    base = getattr(sys, "_base_executable", sys.executable)  # .venv's own Python has just been removed
    _run([base, "-m", "venv", str(venv)])


def _run(command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            if line.startswith("Collecting "):  # pip says several lines a package, and one for each that is there
                print(f"  {line.split()[1]}", flush=True)
    if running.returncode:
        raise Problem(f"Setting up .venv failed, as said above; `make setup` starts afresh. It ran: {command[0]} ...")


if __name__ == "__main__":
    sys.exit(report(ensure))
