"""Container mode: `docker compose`, with the ports and the wording of native mode."""

import os
import shutil
import subprocess

from scripts import ports
from scripts.interrupts import uninterrupted
from scripts.options import ROOT, Options
from scripts.problem import Problem

ANSWER_SECONDS = 15


def lacking() -> str:
    """Say what containers lack here; "" if nothing."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    if not _succeeds("docker", "info"):
        return "no Docker daemon answers"
    if not _succeeds("docker", "compose", "version"):
        return "the Docker CLI has no compose plugin"
    return ""


def up(options: Options) -> None:
    """Build and start the containers, and wait until they are healthy; on failure, stop them again."""
    if not _running():
        ports.demand(options.ports())
    print("Building and starting containers; the first time this takes some minutes.", flush=True)
    try:
        failed = _compose(options, "up", "--detach", "--build", "--wait", "--remove-orphans")
    except KeyboardInterrupt:
        with uninterrupted():
            _compose(options, "down")
        raise
    if failed:
        _compose(options, "ps", "--all")
        _compose(options, "logs", "--tail=15")
        _compose(options, "down")
        raise Problem("The containers did not start, as said above; they have been stopped again")


def down(options: Options) -> None:
    """Stop and remove the containers; their volumes stay."""
    if _compose(options, "down"):
        raise Problem("`docker compose down` failed, as said above")


def status(options: Options) -> None:
    """Print the containers and what they do."""
    _compose(options, "ps", "--all")


def logs(options: Options, *, follow: bool) -> None:
    """Print the end of the logs, and go on with what comes."""
    _compose(options, "logs", "--tail=50", *(["--follow"] if follow else []))


def remove_volumes(options: Options) -> None:
    """Remove the containers with all their data."""
    _compose(options, "down", "--volumes", "--rmi=local")


def _running() -> bool:
    found = subprocess.run(
        ["docker", "compose", "ps", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return bool(found.stdout.strip())


def _compose(options: Options, *arguments: str) -> int:
    environ = os.environ | {variable: str(port) for variable, port in options.ports().items()}
    return subprocess.run(["docker", "compose", *arguments], cwd=ROOT, env=environ, check=False).returncode


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
