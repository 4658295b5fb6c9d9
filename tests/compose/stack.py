"""The compose file, brought up under a project name and on ports of the test's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.compose.daemon import run
from tests.platform.make import free_ports
from tests.server import ROOT, wait_until

COMPOSE = Path(sys.executable).with_name("docker-compose")
OVERRIDE = Path(__file__).with_name("compose.test.yml")
PORTS = ("APP_PORT", "AGENT_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "TUNER_PORT", "GRAFANA_PORT", "TLS_PORT")
SECONDS = 120


class Stack:
    """The project.

    Args:
        host: the daemon; "" for the one that `docker` finds by itself.
        overrides: further compose files of the repository.
    """

    def __init__(self, host: str, *overrides: str, **environ: str) -> None:
        self.project = f"sightline-test-{os.getpid()}"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        files = [ROOT / "docker-compose.yml", *(ROOT / name for name in overrides), OVERRIDE]
        self._files = [part for path in files for part in ("-f", str(path))]
        socket = Path(host.removeprefix("unix://")) if host else Path("/var/run/docker.sock")
        ours = {"DOCKER_SOCKET": str(socket), "DOCKER_GID": str(socket.stat().st_gid), "SERVICE_VERSION": "9.8.7"}
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "DOCKER_HOST") if key in os.environ}
        # The builder that every daemon has; BuildKit's needs a plugin.
        named = {"DOCKER_HOST": host} if host else {}
        ports = {name: str(port) for name, port in self.ports.items()}
        self.environ = inherited | named | {"DOCKER_BUILDKIT": "0"} | ours | ports | environ

    def compose(self, *arguments: str, check: bool = True) -> str:
        return run(COMPOSE, "-p", self.project, *self._files, *arguments, env=self.environ, cwd=ROOT, check=check)

    def docker(self, *arguments: str) -> str:
        return run("docker", *arguments, env=self.environ)

    def images(self) -> set[str]:
        """Return what is needed from elsewhere: the services' images, and what the app's is built from."""
        services = json.loads(self.compose("config", "--format", "json"))["services"].values()
        base = (ROOT / "Dockerfile").read_text().partition("\nARG PYTHON_IMAGE=")[2].split()[0]
        made = {service["image"] for service in services if "build" in service}
        return {service["image"] for service in services} - made | {base}

    def up(self, *arguments: str) -> None:
        """Start what is not there yet, and wait until it is healthy."""
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", str(SECONDS), *arguments)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail=12', '--no-color', check=False)}") from None

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans")

    def left(self) -> list[str]:
        """Name what the daemon still has of the project."""
        mark = f"label=com.docker.compose.project={self.project}"
        kinds = (("container", "ls", "--all"), ("network", "ls"), ("volume", "ls"))
        return [line for kind in kinds for line in self.docker(*kind, "--quiet", "--filter", mark).splitlines()]

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Return what the daemon knows of the running containers, of one service or of all."""
        ids = self.compose("ps", "--quiet", *([service] if service else [])).split()
        return json.loads(self.docker("container", "inspect", *ids)) if ids else []

    def url(self, port: str, path: str = "/") -> str:
        scheme = "https" if port == "TLS_PORT" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[port]}{path}"

    def logs(self, service: str) -> list[dict[str, Any]]:
        """Return the JSON lines that a service has written."""
        lines = self.compose("logs", "--no-color", "--no-log-prefix", service).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def query(self, promql: str) -> dict[str, float]:
        """Ask Prometheus; the values are by `instance`, or whatever one label the result has."""
        answer = requests.get(self.url("PROMETHEUS_PORT", "/api/v1/query"), {"query": promql}, timeout=10)
        answer.raise_for_status()
        found = answer.json()["data"]["result"]
        return {",".join(each["metric"].values()): float(each["value"][1]) for each in found}

    def number(self, promql: str) -> float:
        return sum(self.query(promql).values())

    def wait_healthy(self, container: str) -> None:
        def healthy() -> bool:
            (state,) = json.loads(self.docker("container", "inspect", container))
            return bool(state["State"].get("Health", {}).get("Status") == "healthy")

        wait_until(healthy, SECONDS, f"{container} to be healthy")

    def exec(self, service: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside a service's container, which may fail."""
        inside = ["docker", "exec", self.containers(service)[0]["Id"], *command]
        return subprocess.run(inside, env=self.environ, capture_output=True, text=True, errors="replace", check=False)
