"""Load from wrk, on cores that the workers do not use where there are some."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 16
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_DONE = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m),", re.MULTILINE)
_QUANTILE = re.compile(r"^\s*(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_SOCKETS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_STATUSES = re.compile(r"Non-2xx or 3xx responses: (\d+)")


class LoadError(RuntimeError):
    """wrk is not there, or what it reports is of no use."""


@dataclass(frozen=True)
class Load:
    """What wrk saw.

    Args:
        requests: those that were answered.
        seconds: how long it took.
        p50: the median latency in seconds.
        p99: the 99th percentile.
        errors: connections that failed or timed out.
        refused: answers that were neither 2xx nor 3xx.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int
    refused: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Cores:
    """Which cores run what: the workers one set, everything else another; the same where there is only one core."""

    workers: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that is to stay away from the workers."""
        return ["taskset", "-c", ",".join(map(str, self.others))]

    @property
    def apart(self) -> bool:
        """Whether the load has a core that the workers do not use."""
        return not set(self.workers) & set(self.others)


def cores(most: int = 1) -> Cores:
    """Give the workers up to `most` cores, but leave one to the load where there are two."""
    there = sorted(os.sched_getaffinity(0))
    count = max(1, min(most, len(there) - 1))
    return Cores(tuple(there[:count]), tuple(there[count:] or there))


def program() -> str:
    """Return where wrk is.

    Raises:
        LoadError: it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("the load comes from wrk: as root on Debian or Ubuntu, apt-get install wrk")
    return found


def run(url: str, seconds: int, where: Cores, connections: int = CONNECTIONS, script: Path | None = None) -> Load:
    """Send requests over connections that are kept, each with one request at a time.

    Args:
        script: a Lua script that says which requests.
    """
    options: Sequence[str] = ("-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s")
    scripted = ["-s", str(script)] if script else []
    command = [*where.prefix, program(), *options, *scripted, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    return parse(done.stdout or done.stderr)


def parse(text: str) -> Load:
    """Read wrk's report.

    Raises:
        LoadError: it is none, or no request was answered.
    """
    done = _DONE.search(text)
    if done is None or not int(done[1]):
        raise LoadError(f"wrk reports no answers: {text.strip()[:500]}")
    quantiles = {each[0]: float(each[1]) * _UNITS[each[2]] for each in _QUANTILE.findall(text)}
    sockets, statuses = _SOCKETS.search(text), _STATUSES.search(text)
    return Load(
        requests=int(done[1]),
        seconds=float(done[2]) * _UNITS[done[3]],
        p50=quantiles.get("50", 0.0),
        p99=quantiles.get("99", 0.0),
        errors=sum(map(int, sockets.groups())) if sockets else 0,
        refused=int(statuses[1]) if statuses else 0,
    )
