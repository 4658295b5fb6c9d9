"""What a scrape costs: ours beside prometheus_client's MultiProcessCollector, and after many workers were recycled.

Both sides hold the same histograms with the same label sets, written by as many writers, and both end with the text
that Prometheus reads. The CPU time of this process is what counts, and rounds alternate between the two.
Ours is measured as the agent scrapes, with what it learnt at earlier scrapes; its first scrape is reported besides.

A recycled worker is a process of its own: forked, it claims the lowest free slot, counts requests, and ends without a
word, so the kernel frees its lock. On the peer's side it is a pid, whose files stay, as its documentation has it.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest, multiprocess, values

from bench import maths, report
from observability import catalogue, exposition, slots
from observability.scrape import Scraper
from observability.store import STORE, Store

METRICS = (catalogue.REQUEST_DURATION, catalogue.REQUEST_BODY_SIZE, catalogue.RESPONSE_BODY_SIZE)
_SHOWN_EVERY = 500


@dataclass(frozen=True)
class Settings:
    """How much, and how often.

    Args:
        slots: workers that are there.
        routes: of each.
        rounds: scrapes of each side.
        recycled: workers that come and go.
        pool: slots that the recycled ones take turns in.
        peer_recycled: pids that the peer is left with besides.
    """

    slots: int = 64
    routes: int = 50
    rounds: int = 15
    recycled: int = 10_000
    pool: int = 4
    peer_recycled: int = 128
    quick: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--slots", type=int, help="slots that are scraped")
    parser.add_argument("--routes", type=int, help="routes of each")
    parser.add_argument("--rounds", type=int, help="scrapes of each side")
    parser.add_argument("--recycled", type=int, help="workers that come and go")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what the command line asks for."""
    base = Settings(4, 5, 3, 20, 2, 4, quick=True) if options.quick else Settings()
    return Settings(
        slots=options.slots or base.slots,
        routes=options.routes or base.routes,
        rounds=options.rounds or base.rounds,
        recycled=options.recycled or base.recycled,
        pool=base.pool,
        peer_recycled=base.peer_recycled,
        quick=base.quick,
    )


def labels_of(metric: catalogue.Metric, route: int) -> tuple[str, ...]:
    """Return the label values of one route's series."""
    full = ("GET", f"/routes/{route}/<name>", "200", "http", "")
    return full[: len(metric.labels)]


def record(store: Store, routes: int, times: int = 1) -> None:
    """Count requests to each of these routes, as a worker does."""
    for route, metric in itertools.product(range(routes), METRICS):
        for _ in range(times):
            store.child(metric, *labels_of(metric, route)).observe(0.007)


@contextmanager
def our_slots(directory: Path, count: int, routes: int) -> Iterator[Path]:
    """Fill slots that stay claimed while the block runs."""
    stores = []
    for _ in range(count):
        store = Store(directory)
        store.claim()
        record(store, routes)
        stores.append(store)
    try:
        yield directory
    finally:
        for store in stores:
            store.slot.close()


def their_files(directory: Path, pids: Sequence[int], routes: int) -> None:
    """Write the same as these processes would have with prometheus_client, into its files."""
    before, values.ValueClass = values.ValueClass, None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    try:
        for pid in pids:
            values.ValueClass = values.MultiProcessValue(lambda pid=pid: pid)  # type: ignore[no-untyped-call]
            registry = CollectorRegistry()
            for metric in METRICS:
                histogram = Histogram(
                    metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
                )
                for route in range(routes):
                    histogram.labels(*labels_of(metric, route)).observe(0.007)
    finally:
        values.ValueClass = before
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def our_scrape(scraper: Scraper) -> bytes:
    """Scrape as the agent does."""
    page, _ = scraper.scrape()
    return exposition.write(page, exposition.TEXT)


def their_scrape(directory: Path) -> bytes:
    """Scrape as prometheus_client's documentation has it."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of this process that some work takes, in milliseconds."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e3


def recycle(directory: Path, count: int, pool: int, routes: int) -> None:
    """Have workers come and go: each a process that claims a slot, counts requests, and ends without a word.

    As many live at once as the pool has slots.
    """
    living: list[int] = []
    for number in range(count):
        if len(living) >= pool:
            os.waitpid(living.pop(0), 0)
        living.append(_recycled(directory, routes))
        if not (number + 1) % _SHOWN_EVERY:
            report.say(f"recycled: {number + 1} of {count} workers")
    for pid in living:
        os.waitpid(pid, 0)


def _recycled(directory: Path, routes: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:  # the child: STORE has begun anew at the fork
        slot = slots.claim(directory)
        STORE.attach(slot)
        slot.begin()
        record(STORE, routes)
    finally:
        os._exit(0)


def run(settings: Settings) -> dict[str, Any]:
    """Measure, and return the result."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory()) as name:
        directory = Path(name)
        rounds, first = _compare(settings, directory)
        recycled = _after_recycling(settings, directory)
    medians = maths.medians(rounds) | {"ours_first_ms": first}
    ratios: dict[str, Any] = {
        "scrape": maths.ratios(rounds, "ours_ms", "peer_ms"),
        "peer_recycled": recycled["peer_after_ms"] / medians["peer_ms"],
        "peer_files": (settings.slots + settings.peer_recycled) / settings.slots,
    }
    return report.result(
        "scrape",
        quick=settings.quick,
        seconds=time.monotonic() - begun,
        settings=vars(settings),
        rounds=rounds,
        medians=medians | recycled,
        ratios=ratios,
        values={
            "scrape": maths.medians([{"ratio": each} for each in ratios["scrape"]])["ratio"],
            "scrape_recycled": recycled["after_ms"] / recycled["before_ms"],
        },
    )


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # where the state directory is by default


def _compare(settings: Settings, directory: Path) -> tuple[list[dict[str, float]], float]:
    ours, theirs = directory / "ours", directory / "theirs"
    ours.mkdir()
    theirs.mkdir()
    report.say(f"filling {settings.slots} slots with {settings.routes} routes, on both sides")
    their_files(theirs, range(1, settings.slots + 1), settings.routes)
    with our_slots(ours, settings.slots, settings.routes):
        scraper = Scraper(ours)
        first = cpu_ms(lambda: our_scrape(scraper))
        their_scrape(theirs)
        rounds = []
        for number in range(1, settings.rounds + 1):
            found = {
                "ours_ms": cpu_ms(lambda: our_scrape(scraper)),
                "peer_ms": cpu_ms(lambda: their_scrape(theirs)),
            }
            rounds.append(found)
            report.say(
                f"scrape: round {number} of {settings.rounds}: ours {found['ours_ms']:.1f} ms, "
                f"MultiProcessCollector {found['peer_ms']:.1f} ms"
            )
    return rounds, first


def _after_recycling(settings: Settings, directory: Path) -> dict[str, float]:
    """Scrape before and after many workers were recycled; the peer after a few, since it grows with each."""
    ours, theirs = directory / "recycled", directory / "theirs"
    ours.mkdir()
    scraper = Scraper(ours)
    with our_slots(ours, settings.pool, settings.routes):
        pass  # each slot of the pool is there before
    before = _median_scrape(scraper, settings.rounds)
    recycle(ours, settings.recycled, settings.pool, settings.routes)
    after = _median_scrape(scraper, settings.rounds)
    _check(scraper, (settings.recycled + settings.pool) * settings.routes)
    report.say(f"prometheus_client: {settings.peer_recycled} workers more")
    first = settings.slots + 1
    their_files(theirs, range(first, first + settings.peer_recycled), settings.routes)
    return {
        "before_ms": before,
        "after_ms": after,
        "files_after": float(len(list(slots.files(ours)))),
        "peer_after_ms": min(cpu_ms(lambda: their_scrape(theirs)) for _ in range(3)),
    }


def _check(scraper: Scraper, wanted: int) -> None:
    """See that nothing that a recycled worker counted was lost: else it was no worker, and the scrape too cheap.

    Raises:
        RuntimeError: the count is another one.
    """
    points = scraper.scrape()[0][catalogue.REQUEST_DURATION.name].children.values()
    counted = sum(point.value for each in points for (suffix, _), point in each.items() if suffix == "_bucket")
    if counted != wanted:
        raise RuntimeError(f"{wanted} requests were counted by recycled workers, and {counted:.0f} are scraped")


def _median_scrape(scraper: Scraper, rounds: int) -> float:
    our_scrape(scraper)
    return maths.medians([{"ms": cpu_ms(lambda: our_scrape(scraper))} for _ in range(rounds)])["ms"]


def tables(found: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table."""
    settings, medians = found["settings"], found["medians"]
    many = settings["slots"] + settings["peer_recycled"]
    return report.markdown(
        ("Scrape", "Sightline, ms", "MultiProcessCollector, ms"),
        [
            (
                f"{settings['slots']} workers, {settings['routes']} routes",
                f"{medians['ours_ms']:.1f}",
                f"{medians['peer_ms']:.0f}",
            ),
            ("the first one of a new agent", f"{medians['ours_first_ms']:.0f}", ""),
            (f"{settings['pool']} workers", f"{medians['before_ms']:.2f}", ""),
            (f"the same after {settings['recycled']} were recycled", f"{medians['after_ms']:.2f}", ""),
            (f"{many} pids: {settings['peer_recycled']} were recycled", "", f"{medians['peer_after_ms']:.0f}"),
        ],
    )
