"""One look at a server's health for a person: each check is a line, with what to do where it is not well.

It only reads, and asks the agent and the trace receiver; it starts nothing, and sends no span.
"""

import difflib
import os
import platform
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from math import inf
from pathlib import Path
from typing import Any

import orjson
import requests
from opentelemetry.util.re import parse_env_headers
from packaging.specifiers import SpecifierSet

from observability import catalogue, layout, previous, redact, slots
from observability.agent.view import View
from observability.page import Page
from observability.settings import Server, Settings, SettingsError, load, masked
from observability.top import source, state
from observability.top.cells import duration, printable, size
from observability.top.source import UnreachableError, agent_url
from observability.top.state import State

OK, WARNING, PROBLEM = "ok", "warning", "problem"
# as in pyproject.toml, which a deployed image need not have
GUNICORN = SpecifierSet(">=26.1,<28")
PYTHON = SpecifierSet(">=3.11,<3.14")
_SLOT_BYTES = 512 * 1024  # what a worker's slot file takes with a few hundred series
_LEAST_BYTES = layout.VALUES_AT + 16 * 1024  # below that no worker can claim a slot
_IN_MEMORY = ("tmpfs", "ramfs")
_GUNICORNS_OWN = {"GUNICORN_CMD_ARGS", "GUNICORN_PID", "GUNICORN_FD"}
_RECEIVER_SECONDS = 3.0
_LONG_QUEUE = 60.0  # seconds: no client waits so long on average, so some clock is wrong
_MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: its name.
        level: ok, warning, or problem.
        says: what was seen.
        do: what to do about it.
    """

    check: str
    level: str
    says: str
    do: str = ""


Findings = Iterator[Finding]


def run(*, as_json: bool = False) -> int:
    """Examine the server of this environment, and print what was found; return 1 if there is a problem."""
    found = [_safe(each) for each in diagnose(os.environ)]
    worst = max((each.level for each in found), key=(OK, WARNING, PROBLEM).index)
    if as_json:
        text = orjson.dumps({"worst": worst, "checks": [asdict(each) for each in found]}).decode()
    else:
        text = "\n".join(_line(each) for each in found)
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 1 if worst == PROBLEM else 0


def _safe(found: Finding) -> Finding:
    return Finding(found.check, found.level, printable(found.says), printable(found.do))


def _line(found: Finding) -> str:
    advice = f"\n{'':9}{'':17}-> {found.do}" if found.do else ""
    return f"{found.level:9}{found.check:17}{found.says}{advice}"


def diagnose(environ: Mapping[str, str]) -> Findings:
    """Run every check; one that fails by itself is a finding too."""
    yield from _guarded("gunicorn", _versions)
    try:
        settings, server = load(Settings, environ), load(Server, environ)
    except SettingsError as error:
        yield Finding("settings", PROBLEM, str(error), "the server does not start so: see docs/settings.md")
        return
    try:
        patient = Patient(settings, server, environ)
    except Exception as error:  # slots that hold what no release has written
        yield Finding("state directory", WARNING, f"could not be read: {redact.shown(error)}")
        return
    for name, check in (
        ("settings", patient.variables),
        ("worker class", patient.worker_class),
        ("state directory", patient.directory),
        ("server", patient.master),
        ("workers", patient.workers),
        ("agent", patient.agent),
        ("last end", patient.last_end),
        ("traces", patient.receiver),
        ("queue time", patient.queue_time),
    ):
        yield from _guarded(name, check)


def _guarded(name: str, check: Callable[[], Findings]) -> Findings:
    try:
        yield from check()
    except Exception as error:
        yield Finding(name, WARNING, f"could not be checked: {redact.shown(error)}")


def _versions() -> Findings:
    for name, version, supported in (
        ("gunicorn", metadata.version("gunicorn"), GUNICORN),
        ("python", platform.python_version(), PYTHON),
    ):
        if supported.contains(version, prereleases=True):
            yield Finding(name, OK, version)
        else:
            yield Finding(name, WARNING, f"{version} was never tried", f"install {supported}")


class Patient:
    """One server, as its environment describes it.

    Args:
        settings: what the telemetry takes.
        server: what gunicorn takes.
        environ: the environment of both.
    """

    def __init__(self, settings: Settings, server: Server, environ: Mapping[str, str]) -> None:
        self.settings, self.server, self.environ = settings, server, environ
        self.path = settings.directory
        self.url = agent_url(settings)
        view = View(self.path)
        self.state: State = state.convert(view.state())
        self.page: Page = view.scraper.page

    def variables(self) -> Findings:
        """Look for variables that nothing reads: most are misspelt."""
        known = {each.metadata["variable"] for cls in (Settings, Server) for each in fields(cls)} | _GUNICORNS_OWN
        unknown = sorted(
            name for name in self.environ if name.startswith(("OBSERVABILITY_", "GUNICORN_")) and name not in known
        )
        for name in unknown:
            near = difflib.get_close_matches(name, known, 1)
            yield Finding("settings", WARNING, f"nothing reads {name}", f"is it {near[0]}?" if near else "remove it")
        if not unknown:
            given = sum(name in self.environ for name in known)
            yield Finding("settings", OK, f"valid; {given} of {len(known)} variables are set, the rest are defaults")

    def worker_class(self) -> Findings:
        """Import the worker class."""
        from gunicorn.util import load_class

        name = self.server.worker_class
        try:
            load_class(name)
        except Exception as error:
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            yield Finding("worker class", PROBLEM, f"{name}: {last[0]}", "install its package")
        else:
            yield Finding("worker class", OK, name)

    def directory(self) -> Findings:
        """Look at the state directory: owner, mode, file system, room, layout."""
        name = "state directory"
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            todo = "start the server, which makes it; if one runs, give this command its OBSERVABILITY_DIR"
            yield Finding(name, WARNING, f"{self.path} is not there", todo)
            return
        if not stat.S_ISDIR(found.st_mode):
            yield Finding(name, PROBLEM, f"{self.path} is no directory", "remove it, or set OBSERVABILITY_DIR")
            return
        troubles = [*self._owner(found), *self._place(), *self._content()]
        yield from troubles or [Finding(name, OK, f"{self.path}, {size(_free(self.path))} free")]

    def _owner(self, found: os.stat_result) -> Findings:
        if found.st_uid != os.geteuid():
            says = f"{self.path} belongs to user {found.st_uid}, and this is user {os.geteuid()}"
            todo = "run this command as the server's user; a server of another user refuses the directory"
            yield Finding("state directory", WARNING if os.geteuid() == 0 else PROBLEM, says, todo)
        elif found.st_mode & 0o077:
            says = f"{self.path} can be read by others, and the paths of requests are in it"
            yield Finding("state directory", WARNING, says, f"chmod 700 {self.path}")

    def _place(self) -> Findings:
        kind, free = _file_system(self.path), _free(self.path)
        if kind not in _IN_MEMORY:
            says = f"{self.path} is on {kind}, not in memory: writing a number may wait for a disk"
            yield Finding("state directory", WARNING, says, "set OBSERVABILITY_DIR to a directory on tmpfs")
        if free < _LEAST_BYTES:
            says = f"{self.path} is full ({size(free)} free): new series are refused, and new workers run unseen"
            yield Finding("state directory", PROBLEM, says, "make room there")
        elif free < _SLOT_BYTES * (self.server.workers + 1):
            says = f"{size(free)} are free in {self.path}: hardly enough for {self.server.workers} workers"
            yield Finding("state directory", WARNING, says, "make room there")

    def _content(self) -> Findings:
        if any(slots.files(self.path)) and not slots.stamped(self.path):
            says = f"{self.path} holds slots of another release"
            yield Finding("state directory", WARNING, says, "restart the server: it begins anew")
        corrupt = self.state.agent.corrupt_files
        for path, why in list(corrupt.items())[:_MOST_NAMED]:
            says = f"{Path(path).name} cannot be read and is left out: {why}"
            yield Finding("state directory", WARNING, says, "the slot's next worker sets it aside")

    def master(self) -> Findings:
        """Look for a live master."""
        masters = self.state.masters
        if not masters:
            says = f"no master lives over {self.path}"
            todo = "start the server; if one runs, give this command its environment"
            yield Finding("server", PROBLEM, says, todo)
            return
        each = ", ".join(f"pid {master.pid}, up {duration(master.age_seconds)}" for master in masters)
        if len(masters) > 1:
            yield Finding("server", WARNING, f"two masters: {each}", "end the upgrade: TERM to one of them")
        else:
            yield Finding("server", OK, f"{each}, {masters[0].worker_class}")

    def workers(self) -> Findings:
        """Count the workers, and look at each one's heartbeat."""
        if not self.state.masters:
            return
        live = len(self.state.workers)
        booted = sum(worker.booted for worker in self.state.workers)
        target = _value(self.page, catalogue.WORKERS.name, "state", "target")
        says = f"{live} live, {booted} booted, {target:.0f} wanted"
        late = [worker for worker in self.state.workers if _is_late(worker, self.server.timeout)]
        if not booted:
            yield Finding("workers", PROBLEM, says, "see the log for why none can boot")
        elif booted < target:
            yield Finding("workers", WARNING, says, "look again in a moment; if it stays so, see the log")
        elif not late:
            yield Finding("workers", OK, says)
        for worker in late[:_MOST_NAMED]:
            says = f"slot {worker.slot} has not beaten for {duration(worker.heartbeat_age_seconds)}: it is stuck"
            yield Finding("workers", PROBLEM, says, f"curl {self.url}/workers/{worker.slot}/stack")

    def agent(self) -> Findings:
        """Ask the agent for the server's health."""
        begun = time.monotonic()
        try:
            health = source.ask(f"{self.url}/livez")
        except UnreachableError as error:
            yield self._no_agent(str(error))
            return
        took = duration(time.monotonic() - begun)
        if health.status_code not in (200, 503) or not health.headers.get("Content-Type", "").startswith("text/plain"):
            todo = "set OBSERVABILITY_AGENT_PORT to a free port, or end what has it"
            yield Finding("agent", PROBLEM, f"something else answers at {self.url}", todo)
        elif health.status_code == 503:
            yield Finding("agent", PROBLEM, f"{self.url} says: {health.text.strip()[:200]}", "see the lines above")
        elif not self._same_server():
            todo = "give this command the server's OBSERVABILITY_DIR and OBSERVABILITY_AGENT_PORT"
            yield Finding("agent", WARNING, f"{self.url} answers for another server", todo)
        else:
            yield Finding("agent", OK, f"{self.url} answers in {took}")

    def _no_agent(self, why: str) -> Finding:
        says = f"{self.url}: {why}"
        if not self.state.masters:
            return Finding("agent", WARNING, says, "it comes with the server")
        if not self.settings.agent:
            return Finding("agent", WARNING, says, "OBSERVABILITY_AGENT is 0: run `python -m observability agent`")
        return Finding("agent", PROBLEM, says, "see the log for `agent`: it waits for its port, or keeps dying")

    def _same_server(self) -> bool:
        try:
            answered = state.decode(source.ask(f"{self.url}/state").content)
        except (UnreachableError, ValueError):
            return True  # it has just answered: no reason to suspect another one
        pids = {master.pid for master in answered.masters}
        return not pids or not self.state.masters or bool(pids & {master.pid for master in self.state.masters})

    def last_end(self) -> Findings:
        """Say how the server before ended, or this one if it is dead."""
        end = previous.read(self.path) if self.path.is_dir() else None
        if end is None:
            yield Finding("last end", OK, "none is known")
            return
        ago = duration(max(0.0, time.time() - end["time"]))
        says = f"{end['outcome']}, {ago} ago" + (f": {end['reason']}" if end.get("reason") else "")
        if end["outcome"] == "clean":
            yield Finding("last end", OK, says)
            return
        grave = end["outcome"] == "halted" and not self.state.masters
        yield Finding("last end", PROBLEM if grave else WARNING, says, "see the log of that time")
        for each in end.get("boot_errors", [])[:_MOST_NAMED]:
            error = str(each.get("error", "")).strip()
            says = f"slot {each.get('slot')} (pid {each.get('pid')}) could not boot: {error}"
            yield Finding("last end", PROBLEM if grave else WARNING, says, "mend that, and start again")
        for each in end.get("in_flight", [])[:_MOST_NAMED]:
            request = f"{each.get('method')} {each.get('path')} (trace {each.get('trace_id')})"
            yield Finding("last end", WARNING, f"slot {each.get('slot')} was in {request} when it died")

    def receiver(self) -> Findings:
        """Send the trace receiver an empty message, with the headers that spans would have."""
        if not self.settings.otlp_endpoint:
            yield Finding("traces", OK, "off: OTEL_EXPORTER_OTLP_ENDPOINT is not set")
            return
        address = masked(self.settings.otlp_endpoint)
        try:
            answer = requests.post(
                f"{self.settings.otlp_endpoint.rstrip('/')}/v1/traces",
                data=b"",  # an ExportTraceServiceRequest without spans
                headers={"Content-Type": "application/x-protobuf", **_otlp_headers(self.environ)},
                timeout=_RECEIVER_SECONDS,
            )
        except requests.RequestException as error:
            says = f"{address} cannot be reached ({type(error).__name__}): spans are dropped"
            yield Finding("traces", PROBLEM, says, "start the receiver, or mend OTEL_EXPORTER_OTLP_ENDPOINT")
            return
        if answer.ok:
            yield Finding("traces", OK, f"{address} takes spans")
        else:
            todo = "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS"
            yield Finding("traces", PROBLEM, f"{address} answers {answer.status_code}: spans are dropped", todo)

    def queue_time(self) -> Findings:
        """Judge what came of the X-Request-Start headers."""
        asked = sum(worker.requests or 0 for worker in self.state.workers)
        waited, count = _sum_and_count(self.page, catalogue.REQUEST_QUEUE.name)
        if not asked:
            return
        if not count:
            says = "no request had an X-Request-Start that can be believed, so time in queues is not seen"
            todo = "let the proxy set it to its time; if it does, compare the clocks of both machines"
            yield Finding("queue time", WARNING, says, todo)
        elif waited / count >= _LONG_QUEUE:
            says = f"requests seem to have waited for {duration(waited / count)} on average: a clock is wrong"
            yield Finding("queue time", WARNING, says, "set the clocks of the proxy and of this machine by NTP")
        else:
            yield Finding("queue time", OK, f"{duration(waited / count)} on average, of {count:.0f} requests")


def _is_late(worker: state.Worker, configured: float) -> bool:
    timeout = configured if worker.timeout_seconds is None else worker.timeout_seconds
    return bool(timeout) and (worker.heartbeat_age_seconds or 0.0) > timeout


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the file system that holds a path: that of the mount nearest above it."""
    best, kind = "", "an unknown file system"
    real = path.resolve()
    for line in mounts.read_text().splitlines():
        _, point, found, *_ = (word.encode().decode("unicode_escape") for word in line.split(" "))
        if real.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _value(page: Page, name: str, label: str, value: str) -> float:
    points = page[name].children.get(((label, value),), {}) if name in page else {}
    return sum(point.value for point in points.values())


def _sum_and_count(page: Page, name: str) -> tuple[float, float]:
    children: list[Any] = list(page[name].children.values()) if name in page else []
    total = sum(points[("_sum", inf)].value for points in children if ("_sum", inf) in points)
    return total, sum(
        point.value for points in children for (suffix, _), point in points.items() if suffix == "_bucket"
    )


def _otlp_headers(environ: Mapping[str, str]) -> dict[str, str]:
    given = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS") or ""
    return dict(parse_env_headers(given, liberal=True))
