"""The control group's limits and what is pressed against them: version 2, Documentation/admin-guide/cgroup-v2.rst.

Under version 1, in the root group, or where nothing is mounted, the files are not there and what they tell is left out.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from observability.limits import CGROUP

RESOURCES = ("cpu", "memory", "io")
_HOST = Path("/proc/pressure")
_PRESSURE = re.compile(r"(some|full) avg10=.* total=(\d+)")  # in microseconds


@dataclass(frozen=True)
class Usage:
    """One group at one moment; None where it has no such limit, or the kernel does not tell.

    Args:
        quota: CPUs.
        pressure: seconds by scope (cgroup or host), resource, and `some` or `full` (Documentation/accounting/psi.rst).
    """

    quota: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
    memory_limit: int | None = None
    memory_used: int | None = None
    oom_kills: int | None = None
    pressure: dict[tuple[str, str, str], float] = field(default_factory=dict)


def directory_of(pid: int, root: Path = CGROUP, proc: Path = Path("/proc")) -> Path | None:
    """Return the directory of a process's group; None under version 1, or where it lies outside of what is mounted."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::") and ".." not in line:
            own = root / line[3:].lstrip("/")
            return own if (own / "cgroup.controllers").exists() else None
    return None


def read(directory: Path | None, host: Path = _HOST) -> Usage:
    """Read a group; without one, only the host's pressure is known."""
    if directory is None:
        return Usage(pressure=_pressure("host", {each: host / each for each in RESOURCES}))
    cpu, events = _fields(directory / "cpu.stat"), _fields(directory / "memory.events")
    pressure = _pressure("cgroup", {each: directory / f"{each}.pressure" for each in RESOURCES})
    throttled = cpu.get("throttled_usec")
    return Usage(
        quota=_quota(directory / "cpu.max"),
        periods=cpu.get("nr_periods"),
        throttled_periods=cpu.get("nr_throttled"),
        throttled_seconds=None if throttled is None else throttled / 1e6,
        memory_limit=_number(directory / "memory.max"),
        memory_used=_used(directory),
        oom_kills=events.get("oom_kill"),
        pressure=pressure or _pressure("host", {each: host / each for each in RESOURCES}),
    )


def _used(directory: Path) -> int | None:
    """Return the memory in use, as Kubernetes reckons it: file pages not lately used can be dropped at once."""
    current = _number(directory / "memory.current")
    if current is None:
        return None
    return max(0, current - _fields(directory / "memory.stat").get("inactive_file", 0))


def _quota(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # absent, or "max": no quota


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # absent, or "max": no limit


def _fields(path: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    try:
        return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
    except (OSError, ValueError):
        return {}


def _pressure(scope: str, paths: dict[str, Path]) -> dict[tuple[str, str, str], float]:
    """Read the totals."""
    found = {}
    for resource, path in paths.items():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue  # absent, or the kernel was built or booted without it
        for match in filter(None, map(_PRESSURE.fullmatch, lines)):
            found[scope, resource, match[1]] = int(match[2]) / 1e6
    return found
