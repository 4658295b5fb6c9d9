"""What reads signals, and how numbers by name become signals: the same way wherever they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from observability.tuning.model import SLOTTED, Signals
from observability.tuning.thresholds import OTHER

WINDOW_SECONDS = 60.0  # of the recording rules' rates
LOOK_BACK_WINDOWS = 15  # what low_seconds is seen in
RISING_WINDOWS = 5
PRELOADED = 0.5
# Without these there is no server to decide on. A rate of Prometheus' is too low until there are counters of a whole
# window: then WHOLE is there.
WHOLE = "whole_window"
ESSENTIAL = ("workers_target", "workers_live", "cores", "requests_per_second", "in_flight", "busy", WHOLE)


class ReadError(RuntimeError):
    """There are no signals: the message is one line for a person."""


class Reader(Protocol):
    """Reads the signals of all servers that it knows of."""

    def read(self, now: float) -> list[Signals]:
        """Return the signals of each server at this moment, by the server's name.

        Args:
            now: Unix time of the caller's clock.

        Raises:
            ReadError: nobody answers, or nothing that could be read.
        """


@dataclass(frozen=True)
class Numbers:
    """What is known of one server at one moment.

    Args:
        values: numbers by name: the fields of Signals as they are called there, and what they are made from.
        worker_class: as gunicorn names it.
        busy_by_worker: of each worker that lives, in any order.
        low_seconds: as trends.low_seconds() returns it.
        quiet_peak: as trends.quiet_peak() returns it.
        busy_before: the busy ratio of some minutes ago; None where nobody looked.
        busy_window_ago: the same of a window ago.
        leak_bytes: as trends.leak() returns it.
    """

    values: Mapping[str, float]
    worker_class: str = ""
    busy_by_worker: tuple[float, ...] = ()
    low_seconds: float = 0.0
    quiet_peak: float | None = None
    busy_before: float | None = None
    busy_window_ago: float | None = None
    leak_bytes: float = 0.0

    @property
    def missing(self) -> list[str]:
        """What has to be known, and is not."""
        known = [name for name in ESSENTIAL if name not in self.values]
        return known if self.worker_class else [*known, "worker_class"]


@dataclass(frozen=True)
class Queue:
    """How long requests wait for a worker, and who says so."""

    seconds: float | None = None
    source: str = "none"


def queue_of(values: Mapping[str, float], worker_class: str, window: float = WINDOW_SECONDS) -> Queue:
    """Tell how long requests wait: as the proxy's header says, else from what waits, by Little's law.

    The law gives the mean, which stands for the 95th percentile where nobody knows that. What none of the window's
    requests was served for has waited that long, and perhaps longer. An event loop takes whatever comes, and what waits
    within it nobody counts: there an empty backlog says nothing.

    Args:
        values: queue_p95, queued, backlog, requests_per_second, as far as they are known.
        worker_class: whose queue it is.
        window: seconds that the rate is over.
    """
    if (told := values.get("queue_p95")) is not None:
        return Queue(told, "proxy")
    queued, backlog = values.get("queued", 0.0), values.get("backlog", 0.0)
    if "queued" not in values and "backlog" not in values:
        return Queue()
    if queued + backlog == 0 and worker_class not in SLOTTED:
        return Queue()
    source = "threads" if "queued" in values and queued >= backlog else "backlog"
    rate = values.get("requests_per_second", 0.0)
    waited = (queued + backlog) / rate if rate > 0 else window if queued + backlog else 0.0
    return Queue(min(waited, window), source)


def assemble(server: str, now: float, numbers: Numbers, window: float = WINDOW_SECONDS, servers: int = 1) -> Signals:
    """Make signals of numbers.

    Args:
        server: what Prometheus calls the instance.
        now: Unix time of the caller's clock.
        numbers: nothing of `missing` in them.
        window: seconds that the rates are over.
        servers: of the job that are up.
    """
    values = numbers.values
    queue = queue_of(values, numbers.worker_class, window)
    rate, cpu = values["requests_per_second"], values.get("cpu_cores", 0.0)
    busy, before, ago = values["busy"], numbers.busy_before, numbers.busy_window_ago
    used, pss = values.get("memory_used"), values.get("worker_memory")
    plain = {name: values[name] for name in _AS_THEY_ARE if name in values}
    return Signals(
        server=server,
        time=now - values.get("age_samples", 0.0),
        age=max(0.0, values.get("age_samples", 0.0), values.get("age_rules", 0.0)),
        worker_class=numbers.worker_class,
        workers_target=round(values["workers_target"]),
        workers_live=round(values["workers_live"]),
        slots=values.get("slots", 0.0),
        cores=values["cores"],
        requests=rate * window,
        cpu_seconds_per_request=cpu / rate if rate > 0 and "cpu_cores" in values else None,
        queue_p95=queue.seconds,
        queue_source=queue.source,
        busy_by_worker=tuple(sorted(numbers.busy_by_worker, reverse=True)),
        busy_rising=before is not None and busy - before >= OTHER,
        busy_changing=ago is None or abs(busy - ago) >= OTHER,
        cpu_share=cpu / values["cores"] if values["cores"] > 0 else 0.0,
        master_memory=max(0.0, used - pss) if used is not None and pss is not None else None,
        errors_burning=values.get("errors_burning", 0.0) > 0,
        leak_bytes=numbers.leak_bytes,
        low_seconds=numbers.low_seconds,
        quiet_peak=numbers.quiet_peak,
        reloading=values.get("reloads", 0.0) > 0,
        preload=values.get("preload", 0.0) > PRELOADED,
        servers=servers,
        **plain,
    )


_AS_THEY_ARE = (
    "requests_per_second",
    "in_flight",
    "service_seconds",
    "duration_p99",
    "duration_p99_usual",
    "queued",
    "backlog",
    "backlog_limit",
    "busy",
    "run_queue",
    "throttled",
    "memory_share",
    "memory_limit",
    "worker_memory_p95",
    "oom_kills",
    "timeouts",
    "loop_lag_p99",
    "loop_blocked",
    "error_ratio",
    "boot_seconds",
)
