"""Draw the dashboards in docs/images: real servers under load and in trouble, drawn by Grafana's own components.

python -m scripts.pictures [--recorded FILE] [DASHBOARD...]

The answers go to FILE, or a temporary one; with a FILE that is there already nothing is run, only drawn.
"""

import argparse
import gzip
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import yaml

from dashboards.drawing import browser
from dashboards.drawing.logql import Log, lines_of
from dashboards.drawing.recording import Choice, Recorder, renewed
from dashboards.drawing.traceql import Spans
from scripts.options import ROOT

Json = dict[str, Any]
# What the tests of the dashboards run and know. They are not annotated, and mypy would follow an ordinary import.
stacks, foreign, grafana, load = (
    import_module(f"tests.{name}")
    for name in ("dashboards.stack", "dashboards.foreign", "dashboards.grafana", "prove.load")
)
# Their numbers are made up, since the programs cannot be had: no picture shows those.
STOOD_IN_FOR: Final = tuple(foreign.PROGRAMS)
DASHBOARDS: Final = ROOT / "dashboards"
DATASOURCES: Final = ROOT / "monitoring/grafana/provisioning/datasources/sightline.yml"
IMAGES: Final = ROOT / "docs/images"
DRAWN: Final = IMAGES / "dashboards.json"  # what each picture was drawn of
SOURCES: Final = (".cjs", ".html", ".json", ".py", ".ts", ".tsx")  # of the drawing
SETTLE_SECONDS: Final = 75  # before what is drawn: windows fill, and rates have a beginning
LAST_SECONDS: Final = 25
CLIENTS: Final = 6
WHERE_LINES: Final = {"app": "server-*/server.log", "nginx": "nginx/access.log"}
USUAL: Final = ("/todos", "/todos/1", "/todos?limit=5", "/todos/1", "/", "/nothing-here")


def picture(name: str) -> Path:
    """Return the picture of a dashboard, by the name of its JSON file."""
    return IMAGES / f"dashboard-{name.replace('_', '-')}.png"


def names() -> list[str]:
    """Name the dashboards that there are."""
    return sorted(path.stem for path in DASHBOARDS.glob("*.json"))


def digest(name: str) -> str:
    """Return what names a dashboard and the drawing as they are now: another picture would have another one."""
    drawing = sorted(path for path in browser.HERE.rglob("*") if path.suffix in SOURCES)
    made = hashlib.sha256((DASHBOARDS / f"{name}.json").read_bytes())
    for path in drawing:
        made.update(f"\0{path.relative_to(browser.HERE)}\0".encode() + path.read_bytes())
    return made.hexdigest()[:32]


def drawn() -> dict[str, str]:
    """Return the digest of what each picture was drawn of, by the dashboard's name."""
    found: dict[str, str] = json.loads(DRAWN.read_text()) if DRAWN.exists() else {}
    return found


def _read(name: str) -> Json:
    found: Json = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return found


class Trouble:
    """What goes wrong while it is recorded: each step, and how many seconds it is given.

    Together they take about six minutes: of a longer time, graphs of this width name few moments on their axes.
    """

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self.steps: Sequence[tuple[str, Callable[[], None], float]] = (
            ("the usual", lambda: None, 25),
            ("requests fail", lambda: self._through("/faults/fail?rate=0.5", 25), 35),
            ("a reload", lambda: self._stack.servers["gthread"].signal(signal.SIGHUP), 25),
            ("slow requests fill the sync workers, and the tuner adds one", lambda: self._full("sync", 60), 70),
            ("database connections are held", lambda: self._held("gthread"), 30),
            ("a worker is killed", lambda: self._killed("sync"), 25),
            ("an event loop is blocked", lambda: self._to("gevent", "/faults/block?seconds=4"), 25),
            ("a worker times out", lambda: self._to("sync", "/faults/block?seconds=30"), 30),
            ("the CPU is busy", lambda: self._busy("gthread"), 30),
            ("the cache is away", self._without_cache, 30),
            ("spans are refused", self._refused, 30),
        )

    def begin(self) -> None:
        """Go through all, with a line for each."""
        for name, step, seconds in self.steps:
            print(f"  {time.strftime('%H:%M:%S')} {name}", flush=True)
            until = time.monotonic() + seconds
            step()
            time.sleep(max(0.0, until - time.monotonic()))

    def _through(self, path: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            load.ask(self._stack.proxy.url + path)
            time.sleep(0.1)

    def _to(self, server: str, path: str, clients: int = 1) -> None:
        for _ in range(clients):
            threading.Thread(target=load.ask, args=(self._stack.servers[server].url + path,), daemon=True).start()

    def _full(self, server: str, seconds: float) -> None:
        with load.pressing(8, lambda _: load.ask(f"{self._stack.servers[server].url}/faults/sleep?seconds=0.3")):
            time.sleep(seconds)

    def _held(self, server: str) -> None:
        for _ in range(6):
            self._to(server, "/faults/hold?seconds=3", clients=3)
            self._to(server, "/todos", clients=4)
            time.sleep(4)

    def _killed(self, server: str) -> None:
        os.kill(self._stack.servers[server].worker_pids()[0], signal.SIGKILL)

    def _busy(self, server: str) -> None:
        for _ in range(5):
            self._to(server, "/faults/cpu?seconds=3", clients=3)
            time.sleep(4)

    def _without_cache(self) -> None:
        self._stack.redis.stop()
        time.sleep(15)
        self._stack.redis.start()
        self._stack.bound_redis()

    def _refused(self) -> None:
        self._stack.receiver.status = 500
        time.sleep(20)
        self._stack.receiver.ok()


def record(wanted: Sequence[str]) -> dict[str, Json]:
    """Run everything, and return the dashboards with their answers."""
    print("Starting servers, databases, exporters, Prometheus", flush=True)
    with stacks.running() as stack:
        for job in STOOD_IN_FOR:
            stack.scrape(job, [])
        with _load(stack.proxy.url):
            time.sleep(SETTLE_SECONDS)
            start = time.time()
            Trouble(stack).begin()
            time.sleep(LAST_SECONDS)
            recorder = _recorder(stack, start, time.time())
            print("Recording", flush=True)
            return {name: recorder.record(_read(name)) for name in wanted}


@contextmanager
def _load(url: str) -> Iterator[None]:
    """Send requests beside the stack's own while the block runs."""
    over = threading.Event()

    def client(number: int) -> None:
        turn = number
        while not over.wait(0.15):
            load.ask(url + USUAL[turn % len(USUAL)])
            turn += 1

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(10)


def _recorder(stack: Any, start: float, end: float) -> Recorder:
    def span(points: int, least: str) -> Any:
        return grafana.Span(end - start, points, _seconds(least) if least else _scrape_seconds())

    def substitute(query: str, choices: Mapping[str, Choice], points: int, language: str, least: str) -> str:
        variables = {
            name: grafana.Variable([grafana.ALL], choice.options, choice.multi, True, choice.all_value)
            for name, choice in choices.items()
        }
        return str(grafana.substitute(query, variables, span(points, least), language))

    lines = [
        line
        for service, places in WHERE_LINES.items()
        for path in stack.directory.glob(places)
        for line in lines_of(service, path.read_text())
    ]
    others = {"logql": Log(lines, start, end).ask, "traceql": Spans(stack.receiver.spans, start, end).ask}
    missing = partial(absent, STOOD_IN_FOR)

    def step(points: int, least: str) -> float:
        return float(span(points, least).interval)

    return Recorder(stack.prometheus.url, start, end, step, substitute, missing, others)


def _scrape_seconds() -> float:
    """Read how often Grafana believes that Prometheus scrapes: no step is shorter."""
    found = yaml.safe_load(DATASOURCES.read_text())["datasources"]
    (given,) = (each["jsonData"]["timeInterval"] for each in found if each["type"] == "prometheus")
    return _seconds(given)


def _seconds(interval: str) -> float:
    return float(interval.removesuffix("s"))


def absent(jobs: Sequence[str], expression: str) -> str:
    """Return why a query is not asked; nothing where it is."""
    named = (job for job in jobs if f'job="{job}"' in expression or f"{job}_" in expression)
    return next((f"{job.capitalize()} was not there to be recorded" for job in named), "")


def draw(recorded: Mapping[str, Json]) -> None:
    """Draw each recorded dashboard, as it looks now, and write down what that was."""
    digests = {name: digest(name) for name in recorded}
    now = {name: renewed(answers, _read(name)) for name, answers in recorded.items()}
    with tempfile.TemporaryDirectory() as name:
        print("Bundling the page", flush=True)
        browser.bundle(Path(name))
        for dashboard, answers in now.items():
            print(f"Painting {dashboard}", flush=True)
            browser.paint(answers, Path(name), picture(dashboard))
    made = [picture(dashboard) for dashboard in now]
    browser.shrink(made)
    known = {name: each for name, each in (drawn() | digests).items() if name in names()}
    DRAWN.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    for path in made:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} kB", flush=True)


def main() -> int:
    """Record and draw, or draw what was recorded, and return 1 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pictures", description="Draw the dashboards.")
    parser.add_argument("--recorded", type=Path, help="a file of answers: made, or drawn if it is there")
    parser.add_argument("dashboards", nargs="*", help=f"of {', '.join(names())}; all if none is named")
    asked = parser.parse_args()
    wanted = asked.dashboards or names()
    try:
        if asked.recorded and asked.recorded.exists():
            recorded = json.loads(gzip.decompress(asked.recorded.read_bytes()))
        else:
            recorded = record(wanted)
            if asked.recorded:
                asked.recorded.write_bytes(gzip.compress(json.dumps(recorded).encode()))
        draw({name: recorded[name] for name in wanted})
    except browser.Missing as missing:
        print(missing)
        return 1
    except ValueError as unknown:
        print(f"Record anew, as these ask what was not recorded: {unknown}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
