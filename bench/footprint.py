"""What Sightline takes besides requests: the agent's CPU, memory of workers and agent, and a worker's boot.

Memory is the proportional set size, since forked processes share pages: a worker's is compared with that of a bare
server of as many workers after the same load, so what is shared is shared by as many in both.
"""

import argparse
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import load, maths, report
from bench import variants as of
from bench.load import Cores
from bench.receiver import Receiver
from bench.servers import Server, Variant, cpu_seconds
from observability.exposition import OPENMETRICS
from observability.probes import process

_BARE_BOOT = Variant("bare", of.BARE.app, "bench/confs/boot.py")
_OUR_BOOT = Variant("ours", of.OURS.app, "bench/confs/boot.py", environ={"BENCH_OURS": "1"})
_BOOT_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """How much, and for how long.

    Args:
        workers: of each server.
        scrapes: of the agent that are measured.
        interval: seconds between two of them.
        boots: of each kind.
    """

    workers: int = 16
    scrapes: int = 12
    interval: float = 5.0
    boots: int = 15
    quick: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--workers", type=int, help="workers of each server")
    parser.add_argument("--scrapes", type=int, help="scrapes of the agent that are measured")
    parser.add_argument("--boots", type=int, help="boots of each kind")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what the command line asks for."""
    base = Settings(2, 2, 1.0, 2, quick=True) if options.quick else Settings()
    return Settings(
        workers=options.workers or base.workers,
        scrapes=options.scrapes or base.scrapes,
        interval=base.interval,
        boots=options.boots or base.boots,
        quick=base.quick,
    )


def run(settings: Settings) -> dict[str, Any]:
    """Measure, and return the result."""
    begun = time.monotonic()
    where = load.cores()
    with tempfile.TemporaryDirectory() as name, Receiver(where.prefix) as receiver:
        directory, environ = Path(name), {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        bare = _memory(of.BARE, settings, directory, where, {})
        ours = _memory(of.OURS, settings, directory, where, environ)
        boots = _boots(settings, directory, where, environ)
    rounds = {"bare": bare, "ours": ours, "boots": boots}
    medians = {
        "bare_worker_mb": median(bare["workers_mb"]),
        "our_worker_mb": median(ours["workers_mb"]),
        "agent_mb": median(ours["agent_mb"]),
        "agent_cpu_percent": median(ours["agent_cpu_percent"]),
        "scrape_bytes": median(ours["scrape_bytes"]),
        **{f"{name}_boot_ms": value for name, value in maths.medians(boots).items()},
    }
    return report.result(
        "footprint",
        quick=settings.quick,
        seconds=time.monotonic() - begun,
        settings=vars(settings),
        rounds=rounds,
        medians=medians,
        ratios={},
        values={
            "agent_cpu": sum(ours["agent_cpu_percent"]) / len(ours["agent_cpu_percent"]),
            "worker_memory": medians["our_worker_mb"] - medians["bare_worker_mb"],
            "agent_memory": medians["agent_mb"],
            "worker_boot": medians["ours_boot_ms"] - medians["bare_boot_ms"],
        },
    )


def _memory(
    variant: Variant, settings: Settings, directory: Path, where: Cores, environ: dict[str, str]
) -> dict[str, list[float]]:
    """Load a server until every worker has had requests, then look at it while its agent is scraped."""
    report.say(f"footprint: {variant.name}, {settings.workers} workers")
    every = Cores(tuple(sorted({*where.workers, *where.others})), where.others)
    with Server(variant, directory / variant.name, every, workers=settings.workers, environ=environ) as server:
        load.run(f"{server.url}/todos", 1 if settings.quick else 5, every, connections=8 * settings.workers)
        found = _scraped(server, settings) if variant.ours else {}
        found["workers_mb"] = [_pss(pid) for pid in server.workers()]
        return found


def _scraped(server: Server, settings: Settings) -> dict[str, list[float]]:
    """Scrape as Prometheus does by default: OpenMetrics with exemplars, at an interval."""
    (agent,) = server.agents()
    _scrape(server)  # the first one learns what the slots hold
    found: dict[str, list[float]] = {"agent_cpu_percent": [], "agent_mb": [], "scrape_bytes": []}
    for number in range(1, settings.scrapes + 1):
        begun, before = time.monotonic(), cpu_seconds(agent)
        size = _scrape(server)
        time.sleep(max(0.0, settings.interval - (time.monotonic() - begun)))
        share = (cpu_seconds(agent) - before) / (time.monotonic() - begun) * 100
        found["agent_cpu_percent"].append(share)
        found["agent_mb"].append(_pss(agent))
        found["scrape_bytes"].append(size)
        report.say(f"footprint: scrape {number} of {settings.scrapes}: the agent takes {share:.2f} % of a core")
    return found


def _scrape(server: Server) -> int:
    request = urllib.request.Request(f"{server.agent_url}/metrics", headers={"Accept": OPENMETRICS})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return len(answer.read())


def _pss(pid: int) -> float:
    return (process.proportional(pid) or 0) / 1e6


def _boots(settings: Settings, directory: Path, where: Cores, environ: dict[str, str]) -> list[dict[str, float]]:
    """Boot workers of both kinds in turn: each server replaces its one worker when that is told to go."""
    times = {kind: directory / f"boots-{kind}" for kind in ("bare", "ours")}
    servers = {
        variant.name: Server(
            variant,
            directory / f"boot-{variant.name}",
            where,
            environ=environ | {"BENCH_BOOTS": str(times[variant.name])},
        )
        for variant in (_BARE_BOOT, _OUR_BOOT)
    }
    with servers["bare"], servers["ours"]:
        for number in range(1, settings.boots + 1):
            for kind, server in servers.items():
                _replace_worker(server, times[kind], number)
            report.say(f"footprint: boot {number} of {settings.boots} of each kind")
    taken = {kind: [float(line) * 1e3 for line in path.read_text().splitlines()[1:]] for kind, path in times.items()}
    return [dict(zip(taken, each, strict=True)) for each in zip(*taken.values(), strict=True)]


def _replace_worker(server: Server, times: Path, known: int) -> None:
    """End the worker, and wait until its successor has booted.

    Raises:
        RuntimeError: it does not boot.
    """
    for pid in server.workers():
        server.signal(pid)
    deadline = time.monotonic() + _BOOT_SECONDS
    while len(times.read_text().splitlines()) <= known:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no worker booted: {server.log.read_text()[-1000:]}")
        time.sleep(0.02)


def tables(found: dict[str, Any]) -> str:
    """Return the footprint as a Markdown table."""
    medians, workers = found["medians"], found["settings"]["workers"]
    return report.markdown(
        ("", "Bare", "Sightline"),
        [
            (
                f"a worker's memory (PSS) of {workers}",
                f"{medians['bare_worker_mb']:.1f} MB",
                f"{medians['our_worker_mb']:.1f} MB",
            ),
            ("a worker's boot", f"{medians['bare_boot_ms']:.0f} ms", f"{medians['ours_boot_ms']:.0f} ms"),
            ("the agent's memory (PSS)", "", f"{medians['agent_mb']:.1f} MB"),
            ("the agent's CPU", "", f"{medians['agent_cpu_percent']:.2f} % of a core"),
        ],
    )
