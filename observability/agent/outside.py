"""What the kernel tells the agent of a server: its workers' processes, its listeners, its control group.

Nothing here needs a worker's help. Counters of a slot go on when the slot gets a new worker: what its dead processes
had counted is kept. The agent itself, started anew, begins at what the live ones have counted.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from observability import catalogue, limits
from observability.page import Page
from observability.probes import cgroup, process, sockets
from observability.probes.lasting import Lasting
from observability.scrape import Reading

FRESH_SECONDS = 0.9  # what was read is used for so long, however often it is asked
PSS_SECONDS = 15.0  # the kernel walks all of a process's pages for it
_LISTENERS_SECONDS = 15.0
_YOUNG_SECONDS = 5.0  # a worker that is older when this process begins may have booted long ago


@dataclass
class Ledger:
    """One slot's processes: what they have counted together, and the present one."""

    pid: int = 0
    now: process.Process | None = None
    pss: int | None = None
    pss_due: float = 0.0
    user: Lasting = field(default_factory=Lasting)
    system: Lasting = field(default_factory=Lasting)
    run_queue: Lasting = field(default_factory=Lasting)
    voluntary: Lasting = field(default_factory=Lasting)
    involuntary: Lasting = field(default_factory=Lasting)
    waits_known: bool = False

    def take(self, pid: int, found: process.Process | None) -> None:
        """Take what the slot's present process has counted; None where it cannot be read."""
        missed = pid == self.pid and pid and found is None
        if pid != self.pid:
            self.pss, self.pss_due = None, 0.0
        self.pid, self.now = pid, found
        if missed:
            return  # it lives, and what it has counted is not that of one that is gone
        threads = {(pid, tid): thread for tid, thread in found.threads.items()} if found else {}
        self.user.update({pid: found.user} if found else {})
        self.system.update({pid: found.system} if found else {})
        self.voluntary.update({key: thread.voluntary for key, thread in threads.items()})
        self.involuntary.update({key: thread.involuntary for key, thread in threads.items()})
        waits = {key: thread.run_queue for key, thread in threads.items() if thread.run_queue is not None}
        self.run_queue.update(waits)
        self.waits_known = self.waits_known or bool(waits)

    def look_at_memory(self, slot: int, now: float) -> None:
        """Read the proportional memory where that is due; slots take turns."""
        if self.now is None:
            self.pss = None
        elif now >= self.pss_due:
            self.pss = process.proportional(self.pid)
            self.pss_due = now + PSS_SECONDS + slot % 5

    @property
    def cpu(self) -> float | None:
        """CPU seconds of the present process."""
        return None if self.now is None else self.now.user + self.now.system


class Outside:
    """One server as the kernel sees it.

    Args:
        sidecar: whether the agent is no child of the master: then a pid may mean another process here.
    """

    def __init__(self, sidecar: bool = False) -> None:
        self.sidecar = sidecar
        self.ledgers: dict[int, Ledger] = {}
        self.listeners: dict[str, list[sockets.Listener]] = {}
        self.overflows: int | None = None
        self.usage = cgroup.Usage()
        self.cores: float | None = None
        self.preloaded: bool | None = None
        self._boots: dict[int, float] = {}
        self._at = 0.0
        self._inodes: set[int] = set()
        self._inodes_due = 0.0
        self._servers: tuple[object, ...] = ()
        self._drops: dict[str, Lasting] = {}
        self._ours: dict[int, bool] = {}

    def look(self, masters: Sequence[Reading], workers: Sequence[Reading]) -> None:
        """Read what the kernel tells, unless that was just done.

        Args:
            masters: the live masters' slots.
            workers: all workers' slots; those of the dead keep their counters.
        """
        now = time.monotonic()
        if now - self._at < FRESH_SECONDS:
            return
        self._look_at_boots([reading for reading in workers if reading.live], first=not self._at)
        self._at = now
        for gone in self.ledgers.keys() - {reading.number for reading in workers}:
            del self.ledgers[gone]
        for gone in self._ours.keys() - {reading.note.get("pid") for reading in (*masters, *workers)}:
            del self._ours[gone]
        for reading in workers:
            ledger = self.ledgers.setdefault(reading.number, Ledger())
            pid = self._pid(reading)
            ledger.take(pid, process.read(pid) if pid else None)
            ledger.look_at_memory(reading.number, now)
        self._look_at_listeners(masters, [reading for reading in workers if reading.live], now)
        self.overflows = sockets.overflows()
        self._look_at_master(next(filter(None, map(self._pid, masters)), 0))
        self.preloaded = next((each.note["preload"] for each in masters if "preload" in each.note), None)

    def _look_at_master(self, master: int) -> None:
        """Read what holds for the whole server."""
        self.usage = cgroup.read(cgroup.directory_of(master) if master else None)
        self.cores = self._usable_cores(master) if master else None

    def _usable_cores(self, master: int) -> float | None:
        try:
            bound = float(len(os.sched_getaffinity(master)))
        except OSError:
            return None
        if self.usage.quota is not None:
            return min(bound, self.usage.quota)
        return bound if self.sidecar else min(bound, limits.cpus())  # version 1; a sidecar's group is another

    def _look_at_boots(self, workers: Sequence[Reading], *, first: bool) -> None:
        """Note how old each worker is when it is first seen booted: nobody needs to know a boot better."""
        for gone in self._boots.keys() - {int(reading.note.get("pid", 0)) for reading in workers}:
            del self._boots[gone]
        for reading in workers:
            pid, started = int(reading.note.get("pid", 0)), reading.note.get("started")
            if reading.forked and reading.note.get("booted") and started and pid not in self._boots:
                age = max(0.0, time.time() - float(started))
                self._boots[pid] = 0.0 if first and age > _YOUNG_SECONDS else age

    def _pid(self, reading: Reading) -> int:
        """Return the pid of a slot's owner; 0 where it is dead, or of a process namespace that is not ours."""
        pid = int(reading.note.get("pid", 0)) if reading.live else 0
        if not self.sidecar or not pid:
            return pid
        if pid not in self._ours:
            self._ours[pid] = process.maps(pid, os.fstat(reading.file.fd))
        return pid if self._ours[pid] else 0

    def _look_at_listeners(self, masters: Sequence[Reading], workers: Sequence[Reading], now: float) -> None:
        """Ask for the queues of the server's sockets; which those are is looked up when processes change."""
        servers = tuple((reading.note.get("pid"), reading.note.get("booted")) for reading in (*masters, *workers))
        if servers != self._servers or now >= self._inodes_due:
            self._servers, self._inodes_due = servers, now + _LISTENERS_SECONDS
            self._inodes = self._sockets_of(masters)
            if not sockets.listeners(self._inodes):  # reuse_port: each worker has sockets of its own
                self._inodes = self._sockets_of(workers)
        self.listeners = {}
        for listener in sockets.listeners(self._inodes):
            self.listeners.setdefault(listener.address, []).append(listener)
        for address, found in self.listeners.items():
            drops = {each.inode: float(each.drops) for each in found if each.drops is not None}
            if len(drops) == len(found):  # else the kernel did not tell this time
                self._drops.setdefault(address, Lasting()).update(drops)

    def _sockets_of(self, readings: Sequence[Reading]) -> set[int]:
        """Return the inodes of the processes' sockets, but for the agent's own listener, which the master holds."""
        found: set[int] = set()
        for reading in readings:
            if pid := self._pid(reading):
                found |= sockets.inodes_of(pid) - {sockets.inode_of(pid, int(reading.note.get("agent_fd", -1)))}
        return found

    def put(self, page: Page) -> None:
        """Put all of it on a page."""
        for slot, ledger in self.ledgers.items():
            _put_process(page, str(slot), ledger)
        for address, found in self.listeners.items():
            page.put(catalogue.LISTEN_BACKLOG, sum(each.backlog for each in found), address)
            if all(each.limit is not None for each in found):
                page.put(catalogue.LISTEN_LIMIT, sum(each.limit or 0 for each in found), address)
            if all(each.drops is not None for each in found):
                page.put(catalogue.LISTEN_DROPS, self._drops[address].total, address)
        _put_known(page, catalogue.LISTEN_OVERFLOWS, self.overflows)
        _put_known(page, catalogue.USABLE_CORES, self.cores)
        _put_known(page, catalogue.PRELOADED, self.preloaded)
        _put_known(page, catalogue.BOOT_SECONDS, max(self._boots.values(), default=0.0) or None)
        _put_usage(page, self.usage)


def _put_known(page: Page, metric: catalogue.Metric, value: float | None, worker: str | None = None) -> None:
    if value is not None:
        page.put(metric, value, worker=worker)


def _put_process(page: Page, label: str, ledger: Ledger) -> None:
    page.put(catalogue.WORKER_CPU, ledger.user.total, "user", worker=label)
    page.put(catalogue.WORKER_CPU, ledger.system.total, "system", worker=label)
    page.put(catalogue.WORKER_SWITCHES, ledger.voluntary.total, "voluntary", worker=label)
    page.put(catalogue.WORKER_SWITCHES, ledger.involuntary.total, "involuntary", worker=label)
    if ledger.waits_known:
        page.put(catalogue.WORKER_RUN_QUEUE, ledger.run_queue.total, worker=label)
    if ledger.now is not None:
        page.put(catalogue.WORKER_RSS, ledger.now.rss, worker=label)
        page.put(catalogue.WORKER_THREADS, len(ledger.now.threads), worker=label)
        _put_known(page, catalogue.WORKER_FDS, ledger.now.fds, label)
        _put_known(page, catalogue.WORKER_PSS, ledger.pss, label)


def _put_usage(page: Page, usage: cgroup.Usage) -> None:
    _put_known(page, catalogue.CGROUP_CPU_QUOTA, usage.quota)
    _put_known(page, catalogue.CGROUP_PERIODS, usage.periods)
    _put_known(page, catalogue.CGROUP_THROTTLED_PERIODS, usage.throttled_periods)
    _put_known(page, catalogue.CGROUP_THROTTLED, usage.throttled_seconds)
    _put_known(page, catalogue.CGROUP_MEMORY_LIMIT, usage.memory_limit)
    _put_known(page, catalogue.CGROUP_MEMORY_USED, usage.memory_used)
    _put_known(page, catalogue.CGROUP_OOM_KILLS, usage.oom_kills)
    for labels, seconds in usage.pressure.items():
        page.put(catalogue.PRESSURE, seconds, *labels)
