"""Container mode: `docker compose`, with the ports and the wording of native mode."""

import os
import shutil
import subprocess
from pathlib import Path

from scripts import ports, secret_files
from scripts.interrupts import uninterrupted
from scripts.options import ROOT, Options
from scripts.problem import Problem

ANSWER_SECONDS = 15
LOCAL = "compose.local.yml"
FILES = f"docker-compose.yml{os.pathsep}{LOCAL}"
UNIX = "unix://"


def lacking() -> str:
    """Say what containers lack here; "" if nothing."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    if not _succeeds("docker", "info"):
        return "no Docker daemon answers"
    if not _succeeds("docker", "compose", "version"):
        return "the Docker CLI has no compose plugin"
    return ""


def publishes_all() -> bool:
    """Say whether the agent, Prometheus and Alertmanager are published too: unless other files were chosen."""
    return LOCAL in (os.environ.get("COMPOSE_FILE") or _in_env_file("COMPOSE_FILE") or FILES).split(os.pathsep)


def up(options: Options) -> None:
    """Build and start the containers, and wait until they are healthy; on failure, stop them again."""
    if not _running():
        ports.demand(options.ports())
    secret_files.ensure()
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
    return bool(_said("docker", "compose", "ps", "--quiet"))


def _compose(options: Options, *arguments: str) -> int:
    environ = _environ() | {variable: str(port) for variable, port in options.ports().items()}
    return subprocess.run(["docker", "compose", *arguments], cwd=ROOT, env=environ, check=False).returncode


def _environ() -> dict[str, str]:
    """Return what the compose files read; what is set, here or in .env, stays as it is."""
    found = {"COMPOSE_FILE": FILES, "SERVICE_VERSION": _said("git", "describe", "--tags", "--always", "--dirty")}
    if socket := _socket():
        found |= {"DOCKER_SOCKET": str(socket), "DOCKER_GID": str(socket.stat().st_gid)}
    return {name: value for name, value in found.items() if value and not _in_env_file(name)} | os.environ


def _in_env_file(variable: str) -> str:
    """Return what .env says, which Docker Compose reads by itself; "" if nothing."""
    try:
        lines = (ROOT / ".env").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2].strip() for line in lines if line.startswith(f"{variable}=")), "")


def _socket() -> Path | None:
    """Find the daemon's socket on this host, whose group may read the containers' logs."""
    host = os.environ.get("DOCKER_HOST") or _said(
        "docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
    )
    path = Path(host.removeprefix(UNIX))
    return path if host.startswith(UNIX) and path.is_socket() else None


def _said(*command: str) -> str:
    """Return what a command prints; "" if it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
