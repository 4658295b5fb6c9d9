"""The settings of the Makefile's commands: ports, mode, and where native state lives.

The service's own settings are in `observability/settings.py`, which needs the virtual environment. These are read
before there is one.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scripts.problem import Problem

ROOT = Path(__file__).resolve().parent.parent
MODES = ("auto", "containers", "native")


@dataclass(frozen=True)
class Options:
    """What `make up` takes; each field is the environment variable of the same name in capitals."""

    app_port: int = 8000
    agent_port: int = 9101
    prometheus_port: int = 9090
    alertmanager_port: int = 9093
    tuner_port: int = 9102
    grafana_port: int = 3000
    mode: str = "auto"
    run_dir: str = ".run"
    traffic_seconds: int = 60

    @property
    def run(self) -> Path:
        """The directory of native state; a relative one is below the repository."""
        return ROOT / self.run_dir

    def ports(self) -> dict[str, int]:
        """Return the ports by variable."""
        return {name.upper(): value for name, value in asdict(self).items() if name.endswith("_port")}


def load(environ: Mapping[str, str] = os.environ) -> Options:
    """Read the options from the environment.

    Raises:
        Problem: a value that makes no sense.
    """
    given = {each.name: environ.get(each.name.upper(), "").strip() for each in fields(Options)}
    defaults = asdict(Options())
    values: dict[str, Any] = {name: _parse(name, raw, defaults[name]) for name, raw in given.items() if raw}
    options = Options(**values)
    _refuse_shared_ports(options)
    return options


def _parse(name: str, raw: str, default: object) -> object:
    if name == "mode":
        if raw not in MODES:
            raise Problem(f"MODE is {raw!r}, but takes one of {', '.join(MODES)}")
        return raw
    if isinstance(default, str):
        return raw
    low, high = (1, 65535) if name.endswith("_port") else (0, 3600)
    if not raw.isascii() or not raw.isdigit() or not low <= int(raw) <= high:
        raise Problem(f"{name.upper()} is {raw!r}, but takes a whole number from {low} to {high}")
    return int(raw)


def _refuse_shared_ports(options: Options) -> None:
    seen: dict[int, str] = {}
    for variable, port in options.ports().items():
        if port in seen:
            raise Problem(f"{variable} and {seen[port]} are both {port}: give one of them another port")
        seen[port] = variable
