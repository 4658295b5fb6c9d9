"""What watching costs a request: CPU of the workers and throughput, beside a bare server and beside the peers.

All servers of a worker class run at once, and each round loads them in turn, so that what disturbs the machine
disturbs all; a ratio is always to the bare server of the same round. They are started anew some times between, so that
no result hangs on one start.

Spans leave in batches: those of ours and of the peer that wait as a round ends are exported after it, uncounted. Of the
batch of 512 that is half a batch on average, so sampling costs both up to half a percent more than it says here.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load, maths, report
from bench import variants as of
from bench.load import Cores
from bench.receiver import Receiver
from bench.servers import Server, ServerError, Variant

PLAN: dict[str, tuple[Variant, ...]] = {
    "gevent": (
        *(of.BARE, of.OURS, of.OURS_SAMPLED, of.FLASK_EXPORTER, of.STRUCTLOG, of.OPENTELEMETRY),
        *(of.OPENTELEMETRY_SAMPLED, of.USUAL, of.BARE_OLD, of.GUNICORN_EXPORTER),
    ),
    "sync": (of.BARE, of.OURS, of.USUAL),
    "gthread": (of.BARE, of.OURS, of.USUAL),
}
QUICK = (of.BARE, of.OURS)
SAMPLE_RATIO = "0.1"  # the default of Sightline's own setting; the peers get the same


@dataclass(frozen=True)
class Settings:
    """How long, and how often.

    Args:
        starts: of the servers.
        rounds: of each variant after a start, and one to warm up.
        seconds: of load a round, whole ones since wrk takes no others.
        classes: worker classes.
        quick: only the bare server and ours.
    """

    starts: int = 3
    rounds: int = 6
    seconds: int = 1  # short, so that what are compared are seconds apart: the machine has moods of some seconds
    classes: tuple[str, ...] = tuple(PLAN)
    quick: bool = False
    connections: int = load.CONNECTIONS

    def variants(self, worker_class: str) -> tuple[Variant, ...]:
        """Return what is measured under a worker class."""
        return QUICK if self.quick else PLAN[worker_class]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rounds", type=int, help="rounds of each variant after a start")
    parser.add_argument("--seconds", type=int, help="seconds of load a round")
    parser.add_argument("--classes", nargs="+", choices=PLAN, help="worker classes")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what the command line asks for."""
    base = Settings(starts=1, rounds=2, classes=("gevent",), quick=True) if options.quick else Settings()
    return Settings(
        starts=base.starts,
        rounds=options.rounds or base.rounds,
        seconds=options.seconds or base.seconds,
        classes=tuple(options.classes or base.classes),
        quick=base.quick,
    )


def run(settings: Settings) -> dict[str, Any]:
    """Measure, and return the result."""
    begun = time.monotonic()
    where = load.cores()
    raw: dict[str, list[dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as name, Receiver(where.prefix) as receiver:
        for worker_class in settings.classes:
            raw[worker_class] = []
            for start in range(1, settings.starts + 1):
                report.say(f"{worker_class}: start {start} of {settings.starts}")
                directory = Path(name) / str(start)
                raw[worker_class] += _class(settings, worker_class, directory, where, receiver)
        exported = receiver.spans()
    return _result(settings, raw, time.monotonic() - begun, where, exported)


def _class(
    settings: Settings, worker_class: str, directory: Path, where: Cores, receiver: Receiver
) -> list[dict[str, dict[str, float]]]:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRACES_SAMPLER_ARG": SAMPLE_RATIO}
    variants = settings.variants(worker_class)
    rounds = []
    with ExitStack() as stack:
        servers = []
        for variant in variants:
            report.say(f"{worker_class}: starting {variant.name}")
            here = directory / f"{worker_class}-{variant.name}"
            servers.append(stack.enter_context(Server(variant, here, where, worker_class, environ=environ)))
        for server in servers:
            load.run(f"{server.url}/todos", 1, where, settings.connections)
        for number in range(1, settings.rounds + 1):
            found = {server.variant.name: _measure(server, settings, where) for server in servers}
            rounds.append(found)
            report.say(f"{worker_class}: round {number} of {settings.rounds}: {_brief(found)}")
        for server in servers:
            if server.variant.ours and (dropped := server.dropped_spans()):
                report.say(
                    f"{worker_class}: {server.variant.name} dropped {dropped} spans, which costs it less than it should"
                )
    return rounds


def _measure(server: Server, settings: Settings, where: Cores) -> dict[str, float]:
    before = server.cpu_seconds()
    seen = load.run(f"{server.url}/todos", settings.seconds, where, settings.connections)
    cpu = server.cpu_seconds() - before
    if seen.refused:
        raise ServerError(f"{server.variant.name} refused {seen.refused} of {seen.requests} requests")
    return {
        "cpu_us": cpu / seen.requests * 1e6,
        "rate": seen.rate,
        "busy": cpu / seen.seconds,
        "p50_ms": seen.p50 * 1e3,
        "p99_ms": seen.p99 * 1e3,
        "requests": seen.requests,
        "errors": seen.errors,
    }


def _brief(found: dict[str, dict[str, float]]) -> str:
    return "  ".join(f"{name} {each['cpu_us']:.0f} us" for name, each in found.items())


def compared(rounds: Sequence[dict[str, dict[str, float]]], key: str) -> dict[str, list[float]]:
    """Return each variant's ratio to its base in each round."""
    flat = [{name: each[key] for name, each in found.items()} for found in rounds]
    names = [name for name in flat[0] if name not in ("bare", "bare_gunicorn_23")]
    return {name: maths.ratios(flat, name, of.BASES.get(name, "bare")) for name in names}


def _result(
    settings: Settings,
    raw: dict[str, list[dict[str, dict[str, float]]]],
    seconds: float,
    where: Cores,
    exported: int,
) -> dict[str, Any]:
    medians: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    values: dict[str, float] = {}
    for worker_class, rounds in raw.items():
        medians[worker_class] = {
            key: maths.medians([{name: each[key] for name, each in found.items()} for found in rounds])
            for key in rounds[0]["bare"]
        }
        ratios[worker_class] = {}
        for key in ("cpu_us", "rate"):
            every = compared(rounds, key)
            middle = maths.medians([dict(zip(every, row, strict=True)) for row in zip(*every.values(), strict=True)])
            ratios[worker_class][key] = {
                name: {"median": middle[name], "quartiles": maths.spread(every[name])} for name in every
            }
        values[f"cpu_{worker_class}"] = ratios[worker_class]["cpu_us"]["ours"]["median"]
    if "gevent" in ratios:
        values["throughput"] = ratios["gevent"]["rate"]["ours"]["median"]
        if of.OURS_SAMPLED.name in ratios["gevent"]["cpu_us"]:
            values["cpu_all_sampled"] = ratios["gevent"]["cpu_us"][of.OURS_SAMPLED.name]["median"]
    used = vars(settings) | {"cores": vars(where), "load_apart": where.apart, "spans_received": exported}
    return report.result(
        "overhead",
        quick=settings.quick,
        seconds=seconds,
        settings=used,
        rounds=raw,
        medians=medians,
        ratios=ratios,
        values=values,
    )


def tables(found: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table."""
    rows = []
    for worker_class, medians in found["medians"].items():
        ratios = found["ratios"][worker_class]
        for name, cpu in medians["cpu_us"].items():
            cpu_ratio, rate_ratio = (ratios[key].get(name, {"median": 1.0})["median"] for key in ("cpu_us", "rate"))
            row = (worker_class, of.WORDS[name], f"{cpu:.0f}", f"{cpu_ratio:.2f}", f"{rate_ratio:.2f}")
            rows.append(row)
    return report.markdown(("Worker class", "", "CPU, µs a request", "/ bare", "Requests/s / bare"), rows)
