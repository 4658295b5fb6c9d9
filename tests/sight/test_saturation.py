"""Loads that each saturate one thing: the signal made for it shows it within 5 s, and the others stay quiet.

All of it is read from the agent's `/metrics`, as whoever runs the server would see it.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from observability.probes import cgroup
from tests.server import Samples, Server, free_port, wait_until
from tests.sight.tables import Table

pytestmark = pytest.mark.alone

SECONDS = 20  # a load lasts longer than it is looked at
WITHIN_SECONDS = 5.0  # from the moment the load is there, to the right signal on the page
SHOWS, QUIET, NONE = "**shows it**", "quiet", "none"
BACKLOG, QUEUED, LAG, RUN_QUEUE, BUSY = "listen backlog", "queued requests", "loop lag", "run-queue wait", "busy ratio"
RUN_QUEUE_SECONDS, ACTIVE = "gunicorn_worker_run_queue_seconds_total", "gunicorn_worker_active_requests"
# from what on a signal is sure to show it, and up to what it is quiet; between them it is looked at again
BOUNDS = {BACKLOG: (10, 2), QUEUED: (10, 2), LAG: (1.0, 0.5), RUN_QUEUE: (1.0, 0.5), BUSY: (0.8, 0.4)}


@dataclass(frozen=True)
class Load:
    """One load.

    Args:
        row: what it is, in the table.
        right: the signal that is made for it; None where nothing is saturated.
        words: what each signal says.
        in_flight: requests that run while it lasts.
        one_core: whether the server gets one core, whatever the machine has.
    """

    row: str
    worker_class: str
    clients: int
    path: str
    in_flight: int
    right: str | None
    words: dict[str, str]
    workers: int = 1
    one_core: bool = False
    env: dict[str, object] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Return the requests that wait while the others run."""
        return self.clients - self.in_flight


LOADS = [
    Load(
        row="sync: 50 clients, 2 workers, each request waits",
        worker_class="sync",
        workers=2,
        clients=50,
        path=f"/wait/{SECONDS}",
        in_flight=2,
        right=BACKLOG,
        words={BACKLOG: SHOWS, QUEUED: NONE, LAG: NONE, RUN_QUEUE: QUIET, BUSY: SHOWS},
    ),
    Load(
        row="gthread: 50 clients, 2 threads, each request waits",
        worker_class="gthread",
        env={"GUNICORN_THREADS": 2},
        clients=50,
        path=f"/wait/{SECONDS}",
        in_flight=2,
        right=QUEUED,
        words={BACKLOG: QUIET, QUEUED: SHOWS, LAG: NONE, RUN_QUEUE: QUIET, BUSY: SHOWS},
    ),
    Load(
        row="gevent: a call in C blocks the hub",
        worker_class="gevent",
        clients=1,
        path=f"/block/{SECONDS}",
        in_flight=1,
        right=LAG,
        words={BACKLOG: QUIET, QUEUED: NONE, LAG: SHOWS, RUN_QUEUE: QUIET, BUSY: SHOWS},
    ),
    Load(
        row="asgi: a call in C blocks the loop",
        worker_class="asgi",
        clients=1,
        path=f"/block/{SECONDS}",
        in_flight=1,
        right=LAG,
        words={BACKLOG: QUIET, QUEUED: NONE, LAG: SHOWS, RUN_QUEUE: QUIET, BUSY: SHOWS},
    ),
    Load(
        row="sync: 4 workers compute on one core",
        worker_class="sync",
        workers=4,
        one_core=True,
        clients=4,
        path=f"/spin/{SECONDS}",
        in_flight=4,
        right=RUN_QUEUE,
        words={BACKLOG: QUIET, QUEUED: NONE, LAG: NONE, RUN_QUEUE: SHOWS, BUSY: SHOWS},
    ),
    Load(
        row="gevent: 50 requests wait for a slow dependency",
        worker_class="gevent",
        clients=50,
        path=f"/wait/{SECONDS}",
        in_flight=50,
        right=None,
        words={BACKLOG: QUIET, QUEUED: NONE, LAG: QUIET, RUN_QUEUE: QUIET, BUSY: QUIET},
    ),
]
TABLE = Table("saturation", "docs/saturation.md", ["load", *BOUNDS], [load.row for load in LOADS])


class Signals:
    """What a server's page of metrics says of its saturation, from one look to the next."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.page, self.at = server.metrics(), time.monotonic()

    def look(self) -> dict[str, float | None]:
        """Return the value of each signal; None for one that the worker class does not have."""
        time.sleep(1.0)  # a rate takes time, and the agent reads the kernel's numbers at most once a second
        before, at = self.page.sum(RUN_QUEUE_SECONDS), self.at
        self.page, self.at = self.server.metrics(), time.monotonic()
        return {
            BACKLOG: self._of("gunicorn_listen_backlog", sum),
            QUEUED: self._of("gunicorn_worker_queued_requests", sum),
            LAG: self._of("gunicorn_worker_loop_lag_max_seconds", max),
            RUN_QUEUE: (self.page.sum(RUN_QUEUE_SECONDS) - before) / (self.at - at),
            BUSY: self._of("gunicorn_worker_busy_ratio", mean),
        }

    def _of(self, name: str, join: Callable[[list[float]], float]) -> float | None:
        found = [sample.value for sample in self.page.select(name)]
        return join(found) if found else None

    def words(self) -> dict[str, str]:
        """Return what each signal says."""
        return {name: _word(name, value) for name, value in self.look().items()}

    def wait_for(self, load: Load) -> None:
        """Look until the signal that is made for a load shows it: all that wait, where they can be counted.

        The time runs from the moment that the load is seen to be there, so that a slow machine's start is not in it.
        """
        wait_until(lambda: self.server.metrics().sum(ACTIVE) == load.in_flight, 20, "the load")
        begun, seen = time.monotonic(), []
        while load.right is not None:
            values = self.look()
            value = values[load.right]
            seen.append(value)
            took = time.monotonic() - begun
            assert took <= WITHIN_SECONDS, f"{load.right} does not show it after {took:.1f} s: {seen}"
            counted = load.right in (BACKLOG, QUEUED)
            if value == load.waiting if counted else _word(load.right, value) == SHOWS:
                return

    def settle(self, expected: dict[str, str]) -> None:
        """Look until all signals say twice in a row what is expected."""
        seen = [self.words(), self.words()]
        deadline = time.monotonic() + SECONDS / 2
        while seen[-2:] != [expected, expected]:
            assert time.monotonic() < deadline, seen
            seen.append(self.words())


def _word(name: str, value: float | None) -> str:
    shows, quiet = BOUNDS[name]
    if value is None:
        return NONE
    return SHOWS if value >= shows else QUIET if value <= quiet else f"unclear: {value:.2f}"


@contextmanager
def one_core(wanted: bool) -> Iterator[None]:
    """Let what is started inside run on one core only."""
    allowed = os.sched_getaffinity(0)
    if wanted:
        os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def clients(server: Server, count: int, path: str) -> Iterator[None]:
    """Send requests, and do not read the answers."""
    with ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        yield


def blocked(server: Server) -> list[dict[str, Any]]:
    return [line for line in server.lines() if line.get("event.name") == "gunicorn.worker.loop_blocked"]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.row)
def test_the_right_signal_shows_it_and_the_others_stay_quiet(serve: Callable[..., Server], load: Load) -> None:
    app = "tests.sight.saturated_app:" + ("asgi" if load.worker_class == "asgi" else "wsgi")
    settings = {"GUNICORN_WORKER_CLASS": load.worker_class, "WEB_CONCURRENCY": load.workers, **load.env}
    with one_core(load.one_core):
        server = serve(app, GUNICORN_GRACEFUL_TIMEOUT=1, **settings)
    signals = Signals(server)
    with clients(server, load.clients, load.path):
        signals.wait_for(load)
        signals.settle(load.words)
        if load.right == LAG:
            _the_blocking_line_is_told(server)
        else:
            assert blocked(server) == []
    for name, word in load.words.items():
        TABLE.record(load.row, name, word)


def _the_blocking_line_is_told(server: Server) -> None:
    (worker,) = server.state()["workers"]
    (line,) = blocked(server)
    assert line["body"] == "event loop blocked"
    assert line["code.stacktrace"].splitlines()[-1].strip().startswith("LIBC.poll(")
    assert line["code.function.name"] == "_do"
    assert line["code.file.path"] == str(Path(__file__).with_name("saturated_app.py"))
    assert line["trace_id"] == worker["now"][0]["trace_id"]
    assert line["lag_seconds"] < SECONDS
    wait_until(lambda: server.metrics().sum("gunicorn_worker_loop_blocked_total") == 1)


def test_a_slots_counters_and_its_state_outlive_its_worker(serve: Callable[..., Server]) -> None:
    server = serve("tests.sight.saturated_app:wsgi", GUNICORN_WORKER_CLASS="sync", WEB_CONCURRENCY=1)
    assert server.get("/spin/0.5").text == "done"

    def cpu() -> float:
        return server.metrics().sum("gunicorn_worker_cpu_seconds_total", worker="1")

    before = wait_until(cpu)
    first = server.worker_pids()
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: server.worker_pids() not in (first, []), what="the next worker")
    assert cpu() >= before
    server.signal(signal.SIGTTIN)
    wait_until(lambda: len(server.worker_pids()) == 2)
    server.signal(signal.SIGTTOU)
    (left,) = wait_until(lambda: server.agent("/state?dead=1").json()["dead"])
    (alive,) = server.state()["workers"]
    assert "dead" not in server.state()
    assert left.keys() - alive.keys() == {"ended"}
    assert (left["live"], alive["live"]) == (False, True)
    wait_until(lambda: abs(server.agent("/state?dead=1").json()["dead"][0]["ended"] - time.time()) < 30)
    assert sum(each["requests"] for each in (left, alive)) == 1
    assert sum(sum(each["durations"]["counts"]) for each in (left, alive)) == 1


@contextmanager
def keeping(server: Server, count: int) -> Iterator[None]:
    """Hold connections of which each has had one answer."""
    with ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            client.sendall(b"GET /collect/2 HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = HTTPResponse(client)
            answer.begin()
            assert answer.read() == b"done"
        yield


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "asgi"])
def test_what_is_no_load_is_on_the_page(serve: Callable[..., Server], worker_class: str) -> None:
    app = "tests.sight.saturated_app:" + ("asgi" if worker_class == "asgi" else "wsgi")
    server = serve(app, GUNICORN_WORKER_CLASS=worker_class, WEB_CONCURRENCY=1, GUNICORN_KEEPALIVE=120)
    kept = "gunicorn_worker_kept_connections"

    def values(name: str) -> list[float]:
        return [sample.value for sample in server.metrics().select(name)]

    with keeping(server, 3):
        wait_until(lambda: values(kept) == [3], what="3 connections that are kept")
        assert values("gunicorn_worker_greenlets") == ([3] if worker_class == "gevent" else [])
    wait_until(lambda: values(kept) == [0], what="no connections that are kept")
    page = server.metrics()
    collected = page.by("generation", "gunicorn_worker_gc_seconds_total", worker="1")
    assert collected.keys() == {"0", "1", "2"}
    assert collected["2"] > 0, "each of the requests collected"
    switches = page.by("kind", "gunicorn_worker_context_switches_total", worker="1")
    assert switches.keys() == {"voluntary", "involuntary"}
    assert switches["voluntary"] > 0, "it has waited for requests"
    assert page.by("listener", "gunicorn_listen_drops_total") == {f"127.0.0.1:{server.port}": 0}
    assert [sample.value >= 0 for sample in page.select("gunicorn_listen_overflows_total")] == [True]
    _the_groups_limits_are_on_the_page(page, cgroup.read(cgroup.directory_of(server.pid)))


def _the_groups_limits_are_on_the_page(page: Samples, usage: cgroup.Usage) -> None:
    """Compare with what the machine has: none of it need be there."""
    known = {
        "cgroup_cpu_quota_cores": usage.quota,
        "cgroup_cpu_periods_total": usage.periods,
        "cgroup_cpu_throttled_periods_total": usage.throttled_periods,
        "cgroup_cpu_throttled_seconds_total": usage.throttled_seconds,
        "cgroup_memory_limit_bytes": usage.memory_limit,
        "cgroup_memory_used_bytes": usage.memory_used,
        "cgroup_oom_kills_total": usage.oom_kills,
    }
    assert {name for name in known if list(page.select(name))} == {name for name in known if known[name] is not None}
    for name in ("cgroup_cpu_quota_cores", "cgroup_memory_limit_bytes"):
        assert page.sum(name) == (known[name] or 0)
    found = {
        (each.labels["scope"], each.labels["resource"], each.labels["stalled"]): each.value
        for each in page.select("pressure_stalled_seconds_total")
    }
    assert found.keys() == usage.pressure.keys()
    assert all(0 <= value <= usage.pressure[labels] for labels, value in found.items()), "read a moment before"


def test_every_listener_is_seen_and_the_agents_own_is_not(serve: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    server = serve("tests.sight.saturated_app:wsgi", GUNICORN_BACKLOG=7, GUNICORN_CMD_ARGS=f"-b unix:{path}")
    listeners = wait_until(lambda: server.state()["server"]["listeners"])
    assert listeners == [{"address": f"unix:{path}", "kind": "unix", "backlog": 0, "backlog_limit": 7}]
    four, six = f"127.0.0.1:{free_port()}", f"[::1]:{free_port()}"
    server = serve("tests.sight.saturated_app:wsgi", GUNICORN_CMD_ARGS=f"--reuse-port -b {four} -b {six}")
    listeners = wait_until(lambda: len(found := server.state()["server"]["listeners"]) == 2 and found)
    assert [(each["address"], each["kind"]) for each in listeners] == [(four, "tcp"), (six, "tcp6")]
    found = server.metrics()
    for each in listeners:  # of two workers' sockets, so twice the one limit
        assert found.sum("gunicorn_listen_backlog_limit", listener=each["address"]) == each["backlog_limit"]
        assert each["backlog_limit"] == 2 * min(2048, int(Path("/proc/sys/net/core/somaxconn").read_text()))


def test_the_stacks_of_a_worker_are_asked_of_the_agent(serve: Callable[..., Server]) -> None:
    server = serve("tests.sight.saturated_app:wsgi", GUNICORN_WORKER_CLASS="gevent", WEB_CONCURRENCY=1)
    with clients(server, 1, "/spin/3"):
        wait_until(lambda: blocked(server), 10, "the line on the blocked loop")
        answer = server.agent("/workers/1/stack")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "saturated_app.py" in answer.text
    assert server.agent("/workers/99/stack").status_code == 404
    assert server.stop() == 0
    assert len(blocked(server)) == 1, "leaving is no blocked loop"


def test_the_table_in_the_docs_is_what_was_seen() -> None:
    TABLE.check()
