"""A process as the kernel accounts for it: CPU, waiting for a CPU, memory, descriptors, threads.

All of it is read from /proc without the process's help (proc(5)), so it is known of a worker that hangs. What cannot
be read, since the kernel lacks it or the process belongs to another user, is None.
"""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LARGEST = 64 * 1024


@dataclass(frozen=True)
class Thread:
    """One thread: seconds in the run queue, and context switches; None where the kernel does not say."""

    run_queue: float | None
    voluntary: int
    involuntary: int


@dataclass(frozen=True)
class Process:
    """One process at one moment; seconds and bytes.

    Args:
        threads: by thread id; one that ends takes its numbers along.
    """

    user: float
    system: float
    rss: int
    fds: int | None
    threads: dict[int, Thread]


def content(path: str) -> bytes:
    """Return a small file's content; like Path.read_bytes in a quarter of the time, and there are many.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _LARGEST)
    finally:
        os.close(fd)


def read(pid: int) -> Process | None:
    """Read a process; None where there is none."""
    try:
        # pid (comm) state ppid ...; comm may hold anything, so count from its end: utime and stime are fields 14 and 15
        fields = content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        threads = {int(each.name): _thread(each) for each in Path(f"/proc/{pid}/task").iterdir()}
    except (OSError, ValueError):
        return None
    return Process(
        user=int(fields[11]) / TICKS,
        system=int(fields[12]) / TICKS,
        rss=int(fields[21]) * PAGE_BYTES,
        fds=_open_fds(pid),
        threads={tid: thread for tid, thread in threads.items() if thread is not None},
    )


def _thread(task: Path) -> Thread | None:
    """Read one thread; /proc/PID/schedstat and /proc/PID/status speak of the main thread only."""
    try:
        status = content(f"{task}/status")
    except OSError:
        return None  # it has ended
    return Thread(_run_queue(task), _line(status, b"\nvoluntary_ctxt"), _line(status, b"\nnonvoluntary_ctxt"))


def _run_queue(task: Path) -> float | None:
    try:
        # time on the CPU, time in the run queue, both in ns, and time slices: Documentation/scheduler/sched-stats.rst
        return int(content(f"{task}/schedstat").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def _line(status: bytes, name: bytes) -> int:
    at = status.find(name)
    return int(status[at:].split(b"\n", 2)[1].split()[1]) if at >= 0 else 0


def _open_fds(pid: int) -> int | None:
    """Count open descriptors: since Linux 6.2 the directory's size says it, before that only a listing."""
    path = Path(f"/proc/{pid}/fd")
    try:
        return path.stat().st_size or sum(1 for _ in path.iterdir())
    except OSError:
        return None


def proportional(pid: int) -> int | None:
    """Return the proportional set size in bytes; the kernel walks all pages for it, which takes milliseconds."""
    try:
        for line in content(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def maps(pid: int, file: os.stat_result) -> bool:
    """Tell whether a process has a file mapped: a pid that was read from elsewhere may be another process's here."""
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return False
    return any(line.split(None, 5)[3:5] == [device, str(file.st_ino)] for line in lines)
