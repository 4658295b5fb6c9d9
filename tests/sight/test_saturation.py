"""Loads that each saturate one thing: the signal made for it shows it within seconds, and the others stay quiet."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, free_port, wait_until
from tests.sight.tables import Table

SECONDS = 20  # a load lasts longer than it is looked at
SHOWS, QUIET, NONE = "**shows it**", "quiet", "none"
BACKLOG, QUEUED, LAG, RUN_QUEUE, BUSY = "listen backlog", "queued requests", "loop lag", "run-queue wait", "busy ratio"
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
    """What a server's state says of its saturation, from one look to the next."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.state = server.state()

    def look(self) -> dict[str, float | None]:
        """Return the value of each signal; None for one that the worker class does not have."""
        time.sleep(1.0)  # a rate takes time, and the agent reads the kernel's numbers at most once a second
        before, self.state = self.state, self.server.state()
        workers = self.state["workers"]
        waited = _sum(workers, "run_queue_seconds") - _sum(before["workers"], "run_queue_seconds")
        return {
            BACKLOG: sum(each["backlog"] for each in self.state["server"]["listeners"]),
            QUEUED: _of(workers, "queued", sum),
            LAG: _of(workers, "lag_seconds", max),
            RUN_QUEUE: waited / (self.state["time"] - before["time"]),
            BUSY: self.state["server"]["busy_ratio"],
        }

    def words(self) -> dict[str, str]:
        """Return what each signal says."""
        return {name: _word(name, value) for name, value in self.look().items()}

    def settle(self, expected: dict[str, str]) -> None:
        """Look until all signals say twice in a row what is expected."""
        seen = [self.words(), self.words()]
        deadline = time.monotonic() + SECONDS / 2
        while seen[-2:] != [expected, expected]:
            assert time.monotonic() < deadline, seen
            seen.append(self.words())


def _sum(workers: list[dict[str, Any]], key: str) -> float:
    return float(sum(each[key] for each in workers))


def _of(workers: list[dict[str, Any]], key: str, join: Callable[[list[float]], float]) -> float | None:
    found = [each[key] for each in workers if each[key] is not None]
    return join(found) if found else None


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
        wait_until(lambda: _sum(server.state()["workers"], "in_flight") == load.in_flight, 10, "the load")
        right = load.right
        if right is not None:
            wait_until(lambda: signals.words()[right] == SHOWS, 10, f"{right} to show it")
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
