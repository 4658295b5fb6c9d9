"""A real Prometheus for a test, scraping what it is told to."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.server import ROOT, end, free_port, wait_until


def program(name: str) -> str:
    """Find a program of the Prometheus packages; a machine without it fails the test in one line."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: apt-get install prometheus", pytrace=False)
    return found


def _of_one(target: str) -> dict[str, Any]:
    """Return the repository's configuration with one agent, scraped each second."""
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "sightline"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    job["scrape_interval"] = job["scrape_timeout"] = "1s"
    return {"global": config.get("global", {}), "scrape_configs": [job]}


class Prometheus:
    """Prometheus with the repository's configuration, pointed at one agent.

    Args:
        directory: for its configuration, data and log.
        target: HOST:PORT of the agent.
        config: another configuration, instead of all that.
        port: where it listens, if that is to be known before.
    """

    def __init__(
        self, directory: Path, target: str = "", *, config: dict[str, Any] | None = None, port: int = 0
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = directory / "prometheus.yml"
        self.config.write_text(yaml.safe_dump(_of_one(target) if config is None else config))

    def __enter__(self) -> "Prometheus":
        subprocess.run([program("promtool"), "check", "config", self.config], check=True, capture_output=True)
        with (self.directory / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={self.config}",
                    f"--storage.tsdb.path={self.directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--enable-feature=exemplar-storage",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: requests.get(f"{self.url}/-/ready", timeout=2).ok, 30, "Prometheus")
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)

    def api(self, path: str, **parameters: object) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        answer.raise_for_status()
        return answer.json()["data"]

    def query(self, promql: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return an instant query's vector, by its labels."""
        found = self.api("query", query=promql)["result"]
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def number(self, promql: str) -> float:
        """Return an instant query's one number; 0 where there is none."""
        return sum(self.query(promql).values())
