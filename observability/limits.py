"""What this process may use: the cgroup's limits where there are some, else the host's."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# A gevent worker of the example app with all signals on is about 45 MB of private memory, and a real
# service's own code comes on top: the default number of workers assumes twice that.
WORKER_BYTES = 96 * 1024 * 1024


def _cgroup_directory(root: Path = CGROUP, membership: Path = Path("/proc/self/cgroup"), controller: str = "") -> Path:
    """Find this process's own group; inside a container's namespace that is the root.

    Args:
        root: where the hierarchy is mounted.
        membership: the file that says which groups a process is in; cgroups(7).
        controller: a controller of cgroup v1, which has a hierarchy of its own; empty for v2.
    """
    base = root / controller
    try:
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                own = base / path.lstrip("/")
                return own if own.is_dir() else base
    except (OSError, ValueError):
        pass
    return base


def cpus(cgroup: Path | None = None) -> float:
    """Return the CPUs that may be used: the affinity mask's, or the cgroup's quota if that is less."""
    available = float(len(os.sched_getaffinity(0)))
    for quota_file, period_file in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            base = cgroup or (_cgroup_directory() if period_file is None else CGROUP)
            words = (base / quota_file).read_text().split()
            if period_file is not None:
                words += (base / period_file).read_text().split()
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):
            continue  # absent, or "max": no quota
        if quota > 0 and period > 0:
            return min(available, quota / period)
    return available


def memory(cgroup: Path | None = None) -> int:
    """Return the bytes that may be used: the cgroup's limit, or the host's memory if that is less."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit_file, base in (
        ("memory.max", cgroup or _cgroup_directory()),
        ("memory/memory.limit_in_bytes", cgroup or CGROUP),
    ):
        try:
            return min(host, int((base / limit_file).read_text()))
        except (OSError, ValueError):
            continue  # absent, or "max": no limit
    return host


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel has killed for want of memory: of this cgroup, else of the host."""
    v1 = _cgroup_directory(controller="memory") / "memory.oom_control"
    for path in (_cgroup_directory() / "memory.events", v1, vmstat):
        try:
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except (OSError, ValueError):
            continue
    return 0


def default_workers() -> int:
    """Return 2 x cores + 1 (gunicorn's own rule of thumb), as far as the memory reaches; at least 1."""
    by_cpu = 2 * math.ceil(cpus()) + 1
    return max(1, min(by_cpu, memory() // WORKER_BYTES))
