"""A real Alertmanager for a test."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import yaml

from scripts import packages
from tests.prometheus import program
from tests.server import end, free_port, wait_until


class Alertmanager:
    """Alertmanager with a configuration, alone: it seeks no others.

    Args:
        directory: for its configuration, data and log.
        config: what `alertmanager.yml` says.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = directory / "alertmanager.yml"
        self.config.write_text(yaml.safe_dump(dict(config)))

    def __enter__(self) -> "Alertmanager":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; after a stop, it goes on where it was."""
        found = packages.ALERTMANAGER.path() or program("prometheus-alertmanager")
        with (self.directory / "alertmanager.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    found,
                    f"--config.file={self.config}",
                    f"--storage.path={self.directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: requests.get(f"{self.url}/-/ready", timeout=2).ok, 30, "Alertmanager")

    def stop(self) -> None:
        """End it, by its pid."""
        end(self.process)
