"""The virtual environments: made once, made again when the requirements changed or a set-up was cut short.

Run as a program, it is `make setup`; with the argument `grafana`, it sets up what `make grafana` runs in.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts import packages
from scripts.options import ROOT
from scripts.problem import Problem, report

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Environment:
    """One of them: its directory, its pinned requirements, and the target that sets it up."""

    directory: str
    requirements: str
    target: str


DEVELOPMENT = Environment(".venv", "requirements-dev.txt", "make setup")
# apart from the rest, since grafana-client's HTTP library replaces urllib3
GRAFANA = Environment(".venv-grafana", "requirements-grafana.txt", "make grafana")


def ensure(root: Path = ROOT, environment: Environment = DEVELOPMENT) -> None:
    """Make an environment hold exactly its pinned requirements, unless it already does."""
    with _locked(root):  # two commands may be given at the same time
        _ensure(root, environment)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _ensure(root: Path, environment: Environment) -> None:
    venv = root / environment.directory
    stamp, requirements = venv / ".setup", root / environment.requirements
    wanted = _fingerprint(requirements)
    found = stamp.read_text() if stamp.exists() else ""
    if found == wanted:
        return
    print(f"Setting up {venv.name} from {requirements.name}; this takes about a minute.", flush=True)
    _create(venv, environment, clear=found == UNFINISHED or not _same_python(venv))
    stamp.write_text(UNFINISHED)
    _run([str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off",
          "--require-hashes", "-r", str(requirements)], environment)  # fmt: skip
    stamp.write_text(wanted)


def _fingerprint(requirements: Path) -> str:
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    return f"{digest} python{sys.version_info[0]}.{sys.version_info[1]}"


def _same_python(venv: Path) -> bool:
    minor = sys.version_info[1]
    return not venv.exists() or (venv / f"lib/python3.{minor}").is_dir()


def _create(venv: Path, environment: Environment, *, clear: bool) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        packages.install([f"python3.{sys.version_info[1]}-venv"], why="Python's venv module")
    if clear:
        shutil.rmtree(venv, ignore_errors=True)
    elif (venv / "bin/pip").exists():
        return
    base = getattr(sys, "_base_executable", sys.executable)  # .venv's own Python has just been removed
    _run([base, "-m", "venv", str(venv)], environment)


def _run(command: list[str], environment: Environment) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            if line.startswith("Collecting "):  # pip says several lines a package, and one for each that is there
                print(f"  {line.split()[1]}", flush=True)
    if running.returncode:
        said = f"Setting up {environment.directory} failed, as said above; `{environment.target}` starts afresh."
        raise Problem(f"{said} It ran: {command[0]} ...")


if __name__ == "__main__":
    chosen = GRAFANA if sys.argv[1:] == ["grafana"] else DEVELOPMENT
    sys.exit(report(lambda: ensure(environment=chosen)))
