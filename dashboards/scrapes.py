"""How often Prometheus scrapes what a query asks for, read out of its configuration: a rate needs two samples at least.

Grafana is told the agents' interval, which is the shortest. A query of what is scraped less often names its own.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

CONFIG: Final = Path(__file__).parents[1] / "monitoring/prometheus/prometheus.yml"
AGENTS: Final = "sightline"
_JOB = re.compile(r'job="([\w-]+)"')


def every(expression: str) -> str:
    """Return the interval that a query has to name; "" where it is that of the agents, or does not matter."""
    if "$__rate_interval" not in expression:
        return ""
    named = set(_JOB.findall(expression)) | ({"tuner"} if re.search(r"\btuner_", expression) else set())
    others = {_interval(job) for job in named}
    return others.pop() if others else ""


def patience() -> float:
    """Return the seconds after which Prometheus gives up a scrape of an agent."""
    return float(_said(AGENTS, "scrape_timeout").removesuffix("s"))


def _interval(job: str) -> str:
    return _said(job, "scrape_interval")


@cache
def _said(job: str, setting: str) -> str:
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    (found,) = [each for each in config["scrape_configs"] if each["job_name"] == job]
    return str(found.get(setting) or config["global"][setting])
