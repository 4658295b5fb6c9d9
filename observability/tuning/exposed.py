"""One agent's `/metrics` as the tuner takes it: some numbers of each worker, histograms by bound, and no more."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite

from observability import catalogue
from observability.tuning.trends import Memory

MOST_SERIES = 5000  # of one server: four hundred workers, and more than one would ever tune
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_BUCKET = "_bucket"

# By what a counter is kept apart; None is for all workers and label sets together.
_COUNTERS: dict[str, tuple[str, ...]] = {
    catalogue.WORKER_REQUESTS.name: ("worker",),
    catalogue.WORKER_ERRORS.name: ("worker",),
    catalogue.WORKER_BUSY.name: ("worker",),
    catalogue.WORKER_CPU.name: ("worker", "mode"),
    catalogue.WORKER_RUN_QUEUE.name: ("worker",),
    catalogue.WORKER_BLOCKED.name: ("worker",),
    catalogue.EXITS.name: ("cause",),
    catalogue.REQUESTS_LOST.name: (),
    catalogue.RELOADS.name: (),
    catalogue.CGROUP_PERIODS.name: (),
    catalogue.CGROUP_THROTTLED_PERIODS.name: (),
    catalogue.CGROUP_OOM_KILLS.name: (),
    # cumulative over bounds, and summed over routes and workers
    catalogue.REQUEST_DURATION.name + _BUCKET: ("le",),
    catalogue.REQUEST_QUEUE.name + _BUCKET: ("le",),
    catalogue.WORKER_LAG.name + _BUCKET: ("le",),
}
# A server's gauges, and how several of a kind become one
_GAUGES: dict[str, tuple[str, Callable[[float, float], float]]] = {
    catalogue.WORKER_CAPACITY.name: ("slots", max),
    catalogue.WORKER_QUEUED.name: ("queued", float.__add__),
    catalogue.LISTEN_BACKLOG.name: ("backlog", float.__add__),
    catalogue.LISTEN_LIMIT.name: ("backlog_limit", float.__add__),
    catalogue.USABLE_CORES.name: ("cores", max),
    catalogue.CGROUP_MEMORY_LIMIT.name: ("memory_limit", max),
    catalogue.CGROUP_MEMORY_USED.name: ("memory_used", max),
    catalogue.BOOT_SECONDS.name: ("boot_seconds", max),
    catalogue.PRELOADED.name: ("preload", max),
}
_OF_WORKERS = {
    catalogue.WORKER_BUSY_RATIO.name: "busy",
    catalogue.WORKER_PSS.name: "size",
    catalogue.WORKER_START.name: "started",
}
_WORKERS = {"target": "workers_target", "booted": "workers_live"}
_WANTED = _COUNTERS.keys() | _GAUGES.keys() | _OF_WORKERS.keys() | {catalogue.WORKERS.name, catalogue.WORKER_INFO.name}

Key = tuple[str, ...]


@dataclass
class Mark:
    """What a server had counted, and showed, at one moment.

    Args:
        at: monotonic seconds.
        time: Unix time, by this machine's clock.
        counters: by the metric's name and the labels that it is kept apart by.
        gauges: by the names that signals have.
        workers: of each worker that lives, by slot: busy, size, started.
        classes: how many workers are of which class.
    """

    at: float
    time: float
    counters: dict[Key, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    workers: dict[str, dict[str, float]] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> list[Memory]:
        """The memory of the workers that are known by their start."""
        return [
            Memory(slot, worker["started"], self.time, worker["size"])
            for slot, worker in self.workers.items()
            if "started" in worker and "size" in worker
        ]

    def take(self, name: str, labels: dict[str, str], value: float) -> None:
        """Take one sample.

        Raises:
            ValueError: there are more than a server has.
        """
        if name in _COUNTERS:
            key = (name, *(labels.get(label, "") for label in _COUNTERS[name]))
            self.counters[key] = self.counters.get(key, 0.0) + value
        elif name in _GAUGES:
            known, joined = _GAUGES[name]
            self.gauges[known] = joined(self.gauges[known], value) if known in self.gauges else value
        elif name in _OF_WORKERS:
            self.workers.setdefault(labels.get("worker", ""), {})[_OF_WORKERS[name]] = value
        elif name == catalogue.WORKER_INFO.name:
            of = labels.get("worker_class", "")
            self.classes[of] = self.classes.get(of, 0) + 1
        elif labels.get("state") in _WORKERS:
            self.gauges[_WORKERS[labels["state"]]] = value
        if len(self.counters) + len(self.workers) + len(self.classes) > MOST_SERIES:
            raise ValueError(f"shows more than {MOST_SERIES} series that matter here")


def read(text: str, at: float, time: float) -> Mark:
    """Read an agent's answer.

    Raises:
        ValueError: it is none.
    """
    mark = Mark(at, time)
    for name, labels, value in samples(text):
        mark.take(name, labels, value)
    if "workers_live" not in mark.gauges:
        raise ValueError("answers, but shows no gunicorn: is it an agent, and does its server run?")
    return mark


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the samples of our own exposition that matter here; a value that is no number is left out.

    A small reader of our own: prometheus_client's takes a second for what a server with a thousand label sets shows,
    and that every few seconds.
    """
    for line in text.split("\n"):  # a label's value may hold any other end of line
        name = line.partition(" ")[0].partition("{")[0]
        if name in _WANTED:
            head, _, number = line.rpartition(" ")
            try:
                value = float(number)
            except ValueError:
                continue
            if isfinite(value):
                yield name, dict(_LABEL.findall(head[len(name) :])), value
