"""Why each worker ended, on a live server, for each class and event: every one right, none counted twice."""

import contextlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.server import Server, free_port, wait_until
from tests.sight.tables import Table

CLASSES = ["sync", "gthread", "gevent", "asgi"]
APPS = dict.fromkeys(CLASSES, "tests.probe_app:create_app()") | {"asgi": "tests.sight.loop_app:app"}
EVENTS = [
    "TTIN: one worker more",
    "TTOU: one worker less",
    "HUP: reload",
    "SIGKILL from outside",
    "SEGV",
    "`os._exit(0)`",
    "`os._exit(7)`",
    "USR2, then TERM to the old master",
    "TERM in time",
    "TERM past `graceful_timeout`",
    "QUIT",
    "`max_requests` reached",
    "a request that waits longer than `timeout`",
    "a request that is busy in Python for longer: blocked hub or loop",
    "a request in C code that holds the GIL for longer",
    "memory: killed by the cgroup",
    "boot failure of one worker",
    "boot failure of several workers",
    "HUP with broken code: the server halts",
]
TABLE = Table("causes", "docs/causes.md", ["event", *CLASSES], EVENTS)
each_class = pytest.mark.parametrize("worker_class", CLASSES)
NONE = "no worker ends"


def lines(server: Server, event: str = "gunicorn.worker.exit") -> list[dict[str, Any]]:
    """Return the log's events of a kind; a worker that fails to boot prints other lines too."""
    found = []
    for line in server.log_path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict) and line.get("event.name") == event]


def causes(server: Server) -> Counter[str]:
    return Counter(line["cause"] for line in lines(server))


class Watch:
    """Sees which causes an event adds, in the log and in the counters, and that each worker is named once.

    Args:
        server: the server.
        worker_class: the table's column.
    """

    def __init__(self, server: Server, worker_class: str) -> None:
        self.server = server
        self.worker_class = worker_class
        self.before: Counter[str] = causes(server)

    def expect(self, event: str, expected: dict[str, int], seconds: float = 30.0) -> None:
        """Wait until as many workers have ended as expected, compare, and record what was seen."""
        wait_until(lambda: (causes(self.server) - self.before).total() >= sum(expected.values()), seconds, event)
        seen = causes(self.server) - self.before
        self.before += seen
        assert dict(seen) == expected, event
        pids = Counter(line["worker_pid"] for line in lines(self.server))
        assert max(pids.values(), default=1) == 1, pids
        shown = ", ".join(f"{count} {cause}" if count > 1 else cause for cause, count in sorted(seen.items()))
        TABLE.record(event, self.worker_class, shown or NONE)

    def settled(self, workers: int = 2) -> None:
        """Wait for the server to stand again; then the counters say what the log says."""
        wait_until(lambda: _steady(self.server, workers), 30, f"{workers} booted workers")
        counted = self.server.metrics().by("cause", "gunicorn_worker_exits_total")
        assert {cause: count for cause, count in counted.items() if count} == dict(self.before)
        self.nothing_more()

    def nothing_more(self) -> None:
        assert causes(self.server) == self.before


def _steady(server: Server, workers: int) -> bool:
    state = server.state()["workers"]
    return len(state) == workers and all(worker["booted"] for worker in state)


def ask(server: Server, path: str) -> threading.Thread:
    """Send a request and do not wait for its answer."""

    def send() -> None:
        with contextlib.suppress(requests.RequestException):
            server.get(path, timeout=40)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def in_flight(server: Server, count: int = 1) -> bool:
    return sum(worker["in_flight"] for worker in server.state()["workers"]) >= count


@each_class
def test_what_operators_and_crashes_do(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(APPS[worker_class], GUNICORN_WORKER_CLASS=worker_class)
    watch = Watch(server, worker_class)
    server.signal(signal.SIGTTIN)
    watch.settled(3)
    watch.expect("TTIN: one worker more", {})
    server.signal(signal.SIGTTOU)
    watch.expect("TTOU: one worker less", {"scaled_down": 1})
    watch.settled()
    server.signal(signal.SIGHUP)
    watch.expect("HUP: reload", {"reloaded": 2})
    watch.settled()
    server.signal(signal.SIGKILL, server.worker_pids()[0])
    watch.expect("SIGKILL from outside", {"killed": 1})
    watch.settled()
    for event, how in (("SEGV", "SEGV"), ("`os._exit(0)`", "exit0"), ("`os._exit(7)`", "exit7")):
        ask(server, f"/die/{how}")
        watch.expect(event, {"crashed": 1})
        watch.settled()
    died = {line["signal"] or line["exit_code"]: line for line in lines(server) if line["cause"] == "crashed"}
    assert set(died) == {"SIGSEGV", 0, 7}
    assert "in die" in died["SIGSEGV"]["code.stacktrace"] or "in _do" in died["SIGSEGV"]["code.stacktrace"]
    assert all(line["requests_in_flight"][0]["path"].startswith("/die/") for line in died.values())
    assert server.metrics().sum("gunicorn_requests_lost_total") == len(died)
    assert "Perhaps out of memory" not in server.log_path.read_text()
    upgrade(server, watch)


def upgrade(server: Server, watch: Watch) -> None:
    """Replace the master, and end the new one in time."""
    server.signal(signal.SIGUSR2)
    wait_until(lambda: len(server.state()["masters"]) == 2 and _steady(server, 4), 30, "the new master's workers")
    (new,) = server.upgraded()
    server.signal(signal.SIGTERM)
    watch.expect("USR2, then TERM to the old master", {"shutdown": 2})
    wait_until(lambda: len(server.state()["masters"]) == 1, 20)
    watch.settled()
    server.signal(signal.SIGTERM, new)
    watch.expect("TERM in time", {"shutdown": 2})


@each_class
def test_a_timeout_and_a_forced_end(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(
        APPS[worker_class],
        GUNICORN_WORKER_CLASS=worker_class,
        GUNICORN_TIMEOUT=4,
        GUNICORN_GRACEFUL_TIMEOUT=3,
        GUNICORN_THREADS=2,
    )
    watch = Watch(server, worker_class)
    waits = worker_class != "sync"
    asked = ask(server, "/sleep/7")
    if waits:
        asked.join(40)
    watch.expect("a request that waits longer than `timeout`", {} if waits else {"timeout": 1})
    watch.settled()
    beats = worker_class == "gthread"
    asked = ask(server, "/burn/7")
    if beats:
        asked.join(40)
    event = "a request that is busy in Python for longer: blocked hub or loop"
    watch.expect(event, {} if beats else {"timeout": 1})
    watch.settled()
    ask(server, "/hold")
    watch.expect("a request in C code that holds the GIL for longer", {"timeout": 1})
    watch.settled()
    ask(server, "/sleep/60")
    wait_until(lambda: in_flight(server), 10)
    server.signal(signal.SIGTERM)
    watch.expect("TERM past `graceful_timeout`", {"shutdown": 1, "killed": 1})
    (cut,) = [line for line in lines(server) if line["cause"] == "killed"]
    assert [each["path"] for each in cut["requests_in_flight"]] == ["/sleep/60"]


@each_class
def test_recycling_and_quit(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(APPS[worker_class], GUNICORN_WORKER_CLASS=worker_class, GUNICORN_MAX_REQUESTS=5, WEB_CONCURRENCY=1)
    watch = Watch(server, worker_class)
    for _ in range(20):
        with contextlib.suppress(requests.RequestException):
            server.get("/sleep/0")
        if causes(server):
            break
    watch.expect("`max_requests` reached", {"recycled": 1})
    (line,) = lines(server)
    assert line["requests"] >= 5
    watch.settled(1)
    server.signal(signal.SIGQUIT)
    watch.expect("QUIT", {"shutdown": 1})


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """Make a cgroup with little memory, of whichever version the machine has."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    base, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    group = base / f"sightline-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text("300M")
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text().strip(), 20, "an empty cgroup")
    group.rmdir()


@each_class
def test_a_kill_for_want_of_memory(tmp_path: Path, small_memory: Path, worker_class: str) -> None:
    server = Server(tmp_path, APPS[worker_class], GUNICORN_WORKER_CLASS=worker_class)
    home = small_memory.parent / "cgroup.procs"
    (small_memory / "cgroup.procs").write_text(str(os.getpid()))  # the server inherits the group
    try:
        server.start()
    finally:
        home.write_text(str(os.getpid()))
    try:
        server.wait_ready()
        watch = Watch(server, worker_class)
        ask(server, "/eat")
        watch.expect("memory: killed by the cgroup", {"oom_killed": 1}, 60)
        (line,) = lines(server)
        assert line["signal"] == "SIGKILL"
        assert [each["path"] for each in line["requests_in_flight"]] == ["/eat"]
        watch.settled()
    finally:
        server.stop()


BROKEN = "raise RuntimeError('broken on purpose')\n"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """Make an app of its own, which a test can break."""
    path = tmp_path / "code" / "breakable.py"
    path.parent.mkdir()
    return path


def good(worker_class: str) -> str:
    module, _, name = APPS[worker_class].partition(":")
    made = f"{module}.{name}"
    return f"import {module}\napp = {made}\n"


@each_class
@pytest.mark.parametrize("workers", [1, 3])
def test_a_boot_failure_is_seen_by_the_next_start(
    tmp_path: Path, module: Path, worker_class: str, workers: int
) -> None:
    module.write_text(BROKEN)
    server = Server(
        tmp_path, "breakable:app", module.parent, GUNICORN_WORKER_CLASS=worker_class, WEB_CONCURRENCY=workers
    )
    server.start()
    assert server.process is not None
    assert server.process.wait(40) != 0
    watch = Watch(server, worker_class)
    watch.before = Counter()
    event = f"boot failure of {'one worker' if workers == 1 else 'several workers'}"
    seen = causes(server)
    assert seen["boot_failed"] >= 1
    assert set(seen) <= {"boot_failed", "shutdown"}  # one that had not come so far when the server halted
    assert seen.total() <= workers
    assert "broken on purpose" in lines(server)[0]["error"]
    TABLE.record(event, worker_class, "boot_failed" if workers == 1 else "boot_failed, each that came so far")
    module.write_text(good(worker_class))
    with server:
        assert "RuntimeError: broken on purpose" in str(told(server)["boot_errors"])
        assert server.metrics().by("outcome", "gunicorn_previous_end_timestamp_seconds").keys() == {"halted"}


def test_an_app_that_leaves_as_it_is_loaded_says_why(tmp_path: Path, module: Path) -> None:
    """gunicorn does not halt for it, and starts worker after worker."""
    module.write_text("raise SystemExit('no database')\n")
    server = Server(tmp_path, "breakable:app", module.parent, GUNICORN_WORKER_CLASS="sync", WEB_CONCURRENCY=1)
    server.start()
    try:
        wait_until(lambda: causes(server)["boot_failed"] >= 2, 30, "two boot failures")
    finally:
        server.stop()
    assert set(causes(server)) <= {"boot_failed", "shutdown"}
    assert "no database" in lines(server)[0]["error"]


def told(server: Server) -> dict[str, Any]:
    """Return what a start says of the server before it."""
    said = "the server before this one did not end well"
    found = [json.loads(line) for line in server.log_path.read_text().splitlines() if said in line]
    assert len(found) == 1
    return dict(found[0])


@each_class
def test_a_broken_reload(tmp_path: Path, module: Path, worker_class: str) -> None:
    module.write_text(good(worker_class))
    server = Server(tmp_path, "breakable:app", module.parent, GUNICORN_WORKER_CLASS=worker_class, WEB_CONCURRENCY=1)
    with server:
        module.write_text(BROKEN)
        server.signal(signal.SIGHUP)
        assert server.process is not None
        assert server.process.wait(40) != 0
        seen = causes(server)
        assert seen["boot_failed"] == 1, seen
        assert seen["reloaded"] + seen["shutdown"] == 1, seen
        assert seen.total() == 2, seen
        event = "HUP with broken code: the server halts"
        TABLE.record(event, worker_class, "boot_failed; the old worker shutdown or reloaded")
        module.write_text(good(worker_class))
        server.env["GUNICORN_BIND"] = f"127.0.0.1:{free_port()}"  # the old port may linger
        server.start()
        server.wait_ready()
        assert told(server)["outcome"] == "halted"


def test_the_page_shows_what_was_seen() -> None:
    TABLE.check()
