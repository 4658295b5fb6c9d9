"""What grows with what: a request's CPU with workers, routes, label sets, connections; a scrape's with slots, routes.

Each curve comes with the exponent of the power law that fits it best: 0 does not grow, 1 grows as its cause does.
The bare server is measured beside ours, since connections and workers cost it something too.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import load, maths, report, scrape
from bench import variants as of
from bench.load import Cores
from bench.receiver import Receiver
from bench.servers import Server
from observability.scrape import Scraper

_NO_BODY = (204, 205, 304)
STATUSES = [status for status in range(200, 500) if status not in _NO_BODY]  # 5xx are failures, which cost more
LUA = """local paths = {{{paths}}}
local requests, turn = {{}}, 0
init = function()
  for index, path in ipairs(paths) do requests[index] = wrk.format("GET", path) end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
"""
AXES = {
    "workers": "workers",
    "routes": "routes",
    "label_sets": "label sets of one route",
    "connections": "connections",
    "scrape_slots": "slots, of 50 routes",
    "scrape_routes": "routes, in 8 slots",
}


@dataclass(frozen=True)
class Settings:
    """Which points, and how often each.

    Args:
        rounds: of each point.
        seconds: of load a round.
    """

    rounds: int = 5
    seconds: int = 2
    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    routes: tuple[int, ...] = (1, 10, 50, 200, 500)
    label_sets: tuple[int, ...] = (1, 10, 50, 100, 250)
    connections: tuple[int, ...] = (1, 10, 100, 1000)
    scrape_slots: tuple[int, ...] = (1, 4, 16, 64)
    scrape_routes: tuple[int, ...] = (1, 10, 50, 200, 500)
    quick: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rounds", type=int, help="rounds of each point")
    parser.add_argument("--seconds", type=int, help="seconds of load a round")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what the command line asks for."""
    if options.quick:
        return Settings(1, 1, (1, 2), (1, 10), (1, 10), (1, 10), (1, 2), (1, 5), quick=True)
    base = Settings()
    return Settings(options.rounds or base.rounds, options.seconds or base.seconds)


def run(settings: Settings) -> dict[str, Any]:
    """Measure, and return the result."""
    begun = time.monotonic()
    rounds: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name, Receiver(load.cores().prefix) as receiver:
        directory, environ = Path(name), {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        rounds["workers"] = _over_workers(settings, directory, environ)
        rounds |= _over_requests(settings, directory, environ)
        rounds["scrape_slots"] = _scrapes(settings, directory, [(each, 50) for each in settings.scrape_slots], 0)
        rounds["scrape_routes"] = _scrapes(settings, directory, [(8, each) for each in settings.scrape_routes], 1)
    return report.result(
        "scale",
        quick=settings.quick,
        seconds=time.monotonic() - begun,
        settings=vars(settings),
        rounds=rounds,
        medians={axis: curves(points) for axis, points in rounds.items()},
        ratios={axis: slopes(curves(points)) for axis, points in rounds.items()},
        values={},
    )


def curves(points: Sequence[dict[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Return each side's curve: the median of what was measured at each x."""
    found: dict[str, list[tuple[float, float]]] = {}
    for side in [key for key in points[0] if key != "x"]:
        xs = dict.fromkeys(each["x"] for each in points)
        found[side] = [(x, median(each[side] for each in points if each["x"] == x)) for x in xs]
    return found


def slopes(found: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Return the exponent of each side's curve."""
    return {side: maths.slope(points) for side, points in found.items()}


def _over_workers(settings: Settings, directory: Path, environ: dict[str, str]) -> list[dict[str, float]]:
    """Give the workers all cores but the load's; all are busy, each with four connections."""
    points = []
    for workers in settings.workers:
        where = load.cores(workers)
        with ExitStack() as stack:
            pair = _pair(stack, directory / f"workers-{workers}", where, environ, workers)
            points += _measure(pair, settings, where, workers, "/todos", connections=max(load.CONNECTIONS, 4 * workers))
        report.say(f"scale: {workers} workers: {_brief(points[-1])}")
    return points


def _over_requests(settings: Settings, directory: Path, environ: dict[str, str]) -> dict[str, list[dict[str, float]]]:
    """Vary what is asked for, of one worker."""
    found: dict[str, list[dict[str, float]]] = {"routes": [], "label_sets": [], "connections": []}
    where = load.cores()
    with ExitStack() as stack:
        pair = _pair(stack, directory / "requests", where, environ, 1)
        for count in settings.routes:
            script = _script(directory, [f"/routes/{number}/x" for number in range(count)])
            found["routes"] += _measure(pair, settings, where, count, "/", script=script)
            report.say(f"scale: {count} routes: {_brief(found['routes'][-1])}")
        for count in settings.label_sets:
            script = _script(directory, [f"/status/{status}" for status in STATUSES[:count]])
            found["label_sets"] += _measure(pair, settings, where, count, "/", script=script)
            report.say(f"scale: {count} label sets: {_brief(found['label_sets'][-1])}")
        for count in settings.connections:
            found["connections"] += _measure(pair, settings, where, count, "/todos", connections=count)
            report.say(f"scale: {count} connections: {_brief(found['connections'][-1])}")
    return found


def _pair(stack: ExitStack, directory: Path, where: Cores, environ: dict[str, str], workers: int) -> list[Server]:
    """Start the bare server and ours."""
    return [
        stack.enter_context(Server(variant, directory / variant.name, where, workers=workers, environ=environ))
        for variant in (of.BARE, of.OURS)
    ]


def _measure(
    pair: Sequence[Server],
    settings: Settings,
    where: Cores,
    x: int,
    path: str,
    connections: int = load.CONNECTIONS,
    script: Path | None = None,
) -> list[dict[str, float]]:
    for server in pair:  # warm-up: each route is met once
        load.run(server.url + path, 1, where, connections, script)
    points = []
    for _ in range(settings.rounds):
        point = {"x": float(x)}
        for server in pair:
            before = server.cpu_seconds()
            seen = load.run(server.url + path, settings.seconds, where, connections, script)
            point[server.variant.name] = (server.cpu_seconds() - before) / seen.requests * 1e6
        points.append(point)
    return points


def _script(directory: Path, paths: Sequence[str]) -> Path:
    script = directory / f"{len(list(directory.glob('*.lua')))}.lua"
    script.write_text(LUA.format(paths=",".join(f'"{path}"' for path in paths)))
    return script


def _brief(point: dict[str, float]) -> str:
    return f"bare {point['bare']:.0f} us, ours {point['ours']:.0f} us"


def _scrapes(
    settings: Settings, directory: Path, shapes: Sequence[tuple[int, int]], axis: int
) -> list[dict[str, float]]:
    """Scrape slots and routes of these numbers, one of which is x."""
    points = []
    for shape in shapes:
        here = directory / f"scrape-{axis}-{shape[axis]}"
        here.mkdir()
        with scrape.our_slots(here, *shape):
            scraper = Scraper(here)
            scrape.our_scrape(scraper)
            for _ in range(settings.rounds):
                taken = scrape.cpu_ms(lambda known=scraper: scrape.our_scrape(known))  # type: ignore[misc]
                points.append({"x": float(shape[axis]), "ours": taken})
        report.say(f"scale: scrape of {shape[0]} slots with {shape[1]} routes: {points[-1]['ours']:.1f} ms")
    return points


def tables(found: dict[str, Any]) -> str:
    """Return the ends of each curve, and its exponent, as a Markdown table."""
    rows = []
    for axis, sides in found["medians"].items():
        points, exponents = sides["ours"], found["ratios"][axis]
        what, unit = ("A scrape", "ms") if axis.startswith("scrape") else ("A request", "µs")
        (first, low), (last, high) = points[0], points[-1]
        bare = f"{exponents['bare']:+.3f}" if "bare" in exponents else ""
        cells = (f"{first:g} to {last:g} {AXES[axis]}", f"{low:.3g} to {high:.3g} {unit}", f"{exponents['ours']:+.3f}")
        rows.append((what, *cells, bare))
    return report.markdown(("", "With", "CPU", "Exponent", "Exponent of the bare server"), rows)
