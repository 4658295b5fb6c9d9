"""What the benchmarks leave: one JSON file each, the rows that they end with, and the README's table."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import peers, targets

RESULTS = peers.ROOT / "bench/results"
KEYS = (
    "benchmark",
    "when",
    "quick",
    "seconds",
    "machine",
    "versions",
    "settings",
    "rounds",
    "medians",
    "ratios",
    "rows",
)
_PACKAGES = (
    *("flask", "werkzeug", "gunicorn", "gevent", "greenlet", "orjson", "opentelemetry-sdk"),
    *("prometheus-client", "structlog"),
)
_PEERS = {
    "prometheus-flask-exporter": "flask_exporter",
    "structlog": "structlog",
    "opentelemetry-instrumentation-flask": "opentelemetry",
    "gunicorn-prometheus-exporter": "gunicorn_exporter",
}


def say(text: str) -> None:
    """Show progress, apart from what the benchmark prints as its result."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Say what the numbers were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def versions() -> dict[str, str]:
    """Say what was measured."""
    found = {"python": platform.python_version(), "commit": _commit()}
    found |= {package: importlib.metadata.version(package) for package in _PACKAGES}
    found |= {f"peer {package}": peers.version(name, package) for package, name in _PEERS.items()}
    return found | {"peer gunicorn of gunicorn-prometheus-exporter": peers.version("gunicorn_exporter", "gunicorn")}


def _commit() -> str:
    """Return the commit, with a + where the code differs from it."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, cwd=peers.ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def result(
    benchmark: str,
    *,
    quick: bool,
    seconds: float,
    settings: Mapping[str, Any],
    rounds: Any,
    medians: Mapping[str, Any],
    ratios: Mapping[str, Any],
    values: Mapping[str, float],
) -> dict[str, Any]:
    """Make what a benchmark's file holds.

    Args:
        seconds: how long it took.
        settings: what it was asked to do.
        rounds: the raw numbers.
        medians: of the rounds.
        ratios: of numbers of the same round.
        values: the number of each row.
    """
    return {
        "benchmark": benchmark,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": versions(),
        "settings": dict(settings),
        "rounds": rounds,
        "medians": dict(medians),
        "ratios": dict(ratios),
        "rows": [row(target, values[target.name]) for target in targets.of(benchmark) if target.name in values],
    }


def row(target: targets.Target, value: float) -> dict[str, Any]:
    """Make one row: a number beside its target."""
    return {
        "name": target.name,
        "value": round(value, 4),
        "sign": target.sign,
        "target": target.bound,
        "unit": target.unit,
        "met": target.met(value),
    }


def write(found: Mapping[str, Any], directory: Path = RESULTS) -> Path:
    """Write a benchmark's file; a quick one goes beside the real one, which it says nothing about."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{found['benchmark']}{'.quick' if found['quick'] else ''}.json"
    path.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return path


def read(benchmark: str, directory: Path = RESULTS) -> dict[str, Any] | None:
    """Return a benchmark's committed result; None where there is none."""
    path = directory / f"{benchmark}.json"
    return json.loads(path.read_text()) if path.exists() else None


def last_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return what a benchmark ends with: `name value target`, one row a line."""
    return "\n".join(f"{each['name']} {each['value']:.3f} {each['sign']}{each['target']:g}" for each in rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def summary(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of all targets, with what was measured of each."""
    rows = {each["name"]: each for found in results for each in found["rows"]}
    lines = []
    for target in targets.TARGETS:
        found = rows.get(target.name)
        wanted = f"{'≤' if target.sign == '<=' else '≥'} {target.bound:g} {target.unit}".strip()
        value = "not measured" if found is None else f"{found['value']:.3g} {target.unit}".strip()
        verdict = "" if found is None else ("met" if found["met"] else "**missed**")
        lines.append((target.what, value, wanted, verdict))
    return markdown(("What", "Measured", "Target", ""), lines)


def inserted(page: str, name: str, text: str) -> str:
    """Return a page with what stands between its two marks of a name replaced.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, found, rest = page.partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"no {begin} ... {end}")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"
