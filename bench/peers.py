"""The peers: what people use today, each at its documented best, in a virtual environment of its own.

An environment is made on demand under `bench/.venvs/` from the peer's pinned requirements in `bench/peers/NAME.txt`,
and made again when they change. `python -m bench pins` compiles them anew, along ours, so that Flask, gunicorn and
gevent are the same everywhere, and only the instrumentation differs.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "bench/peers"
VENVS = ROOT / "bench/.venvs"


def names() -> list[str]:
    """Return the peers' environments."""
    return sorted(path.stem for path in PINS.glob("*.txt"))


def python(name: str) -> Path:
    """Return the Python of a peer's environment, which is made first where it is missing or stale.

    Raises:
        subprocess.CalledProcessError: it cannot be made; uv has said why.
    """
    pins, venv = PINS / f"{name}.txt", VENVS / name
    wanted = f"{hashlib.sha256(pins.read_bytes()).hexdigest()} {sys.version}"
    stamp = venv / ".made"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making bench/.venvs/{name} from bench/peers/{pins.name}", file=sys.stderr, flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        VENVS.mkdir(exist_ok=True)
        (VENVS / ".gitignore").write_text("*\n")
        _uv("venv", "--quiet", "--python", sys.executable, str(venv))
        _uv("pip", "install", "--quiet", "--require-hashes", "--python", str(venv / "bin/python"), "-r", str(pins))
        stamp.write_text(wanted)
    return venv / "bin/python"


def version(name: str, package: str) -> str:
    """Return the version of a package in a peer's environment, by its pin; empty where it is not there."""
    for line in (PINS / f"{name}.txt").read_text().splitlines():
        found, _, rest = line.partition("==")
        if found == package:
            return rest.split()[0]
    return ""


def compile_pins() -> None:
    """Pin what each `bench/peers/NAME.in` asks for, with hashes.

    All take our own versions of the packages that we have too, but for a peer that says that it cannot.
    """
    for wanted in sorted(PINS.glob("*.in")):
        print(f"Pinning {wanted.name}", file=sys.stderr, flush=True)
        options = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-header")
        constraint = () if "<" in wanted.read_text() else ("-c", str(ROOT / "requirements.txt"))
        pins = wanted.with_suffix(".txt")
        _uv("pip", "compile", "--quiet", *options, *constraint, str(wanted.relative_to(ROOT)), "-o", str(pins))


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
