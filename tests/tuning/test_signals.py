"""Both readers on live servers: real gunicorn, real Prometheus with the shipped rules, real load; and `tuner advise`.

The rules' durations are shortened, as for the proof of the alerts: their minute is 20 s here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from observability.tuning import trends
from observability.tuning.model import Signals
from observability.tuning.onlooker import Onlooker
from observability.tuning.prometheus import Prometheus as Reader
from observability.tuning.reader import ReadError
from tests.prometheus import Prometheus
from tests.prove import scaling
from tests.prove.load import ask, pressing
from tests.server import ROOT, Server, wait_until

pytestmark = pytest.mark.alone

WINDOW = 20.0  # of the scaled rules
CLIENTS = 8
CLASSES: dict[str, dict[str, Any]] = {
    "sync": {},
    "gthread": {"WEB_CONCURRENCY": 1, "GUNICORN_THREADS": 2},
    "gevent": {"GUNICORN_PRELOAD": 1},
}
# How far two readers may be apart: of the larger one, and besides. They look at other moments of the same 20 s.
APART: dict[str, tuple[float, float]] = {
    "requests_per_second": (0.2, 0.5),
    "requests": (0.2, 10.0),
    "in_flight": (0.2, 0.2),
    "service_seconds": (0.2, 0.002),
    "cpu_seconds_per_request": (0.3, 0.001),
    "duration_p99": (0.5, 0.0),  # a bucket's width
    "queue_p95": (0.5, 0.01),
    "queued": (0.2, 1.0),
    "backlog": (0.2, 1.0),
    "busy": (0.1, 0.1),
    "busy_by_worker": (0.1, 0.15),
    "cpu_share": (0.3, 0.03),
    "run_queue": (0.6, 0.5),
    "throttled": (0.3, 0.05),
    "memory_share": (0.05, 0.02),
    "worker_memory_p95": (0.05, 0.0),
    "master_memory": (0.1, 5e6),
    "loop_lag_p99": (0.7, 0.01),
    "error_ratio": (0.3, 0.02),
}
# When it was, and what takes longer to tell than a test lasts; the objective is the job's, not one server's. One that
# began to look before the load came says for longer that it changes.
NOT_COMPARED = {
    "time",
    "age",
    "duration_p99_usual",
    "low_seconds",
    "quiet_peak",
    "busy_changing",
    "errors_burning",
    "servers",
}


class Running(NamedTuple):
    """What runs."""

    servers: dict[str, Server]
    prometheus: Prometheus
    reader: Reader
    onlookers: dict[str, Onlooker]

    def both(self, name: str) -> tuple[Signals, Signals]:
        """Return the signals of a server, by Prometheus and by its agent."""
        now, (seen,) = time.time(), self.onlookers[name].read(time.time())
        found = {each.server: each for each in self.reader.read(now)}
        if seen.server not in found:
            raise ReadError("Prometheus does not know it now: a scrape has failed, or it is too young")
        return found[seen.server], seen


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a condition on signals, of which there may be none for a moment, as while a worker boots."""

    def told() -> Any:
        with contextlib.suppress(ReadError):
            return condition()

    return wait_until(told, seconds, what)


class Unproxied:
    """Clients without a proxy, each of whom keeps its connection.

    One that closes it leaves gthread an end to read, which waits for a thread as a request does, and is counted so.
    """

    def __init__(self, url: str, path: str) -> None:
        self.host, self.path = url.removeprefix("http://"), path
        self.connections: dict[int, HTTPConnection] = {}

    def send(self, number: int) -> None:
        connection = self.connections.setdefault(number, HTTPConnection(self.host, timeout=20))
        try:
            connection.request("GET", self.path)
            connection.getresponse().read()
        except (OSError, HTTPException):
            connection.close()


@contextmanager
def loads(servers: dict[str, Server]) -> Iterator[None]:
    """Have clients ask each server: two slots are full of what waits, a loop is not, where one client fails."""
    with ExitStack() as running:
        sync, gthread, gevent = (servers[name].url for name in CLASSES)
        running.enter_context(pressing(CLIENTS, lambda _: ask(f"{sync}/sleep/0.2")))
        running.enter_context(pressing(CLIENTS, Unproxied(gthread, "/sleep/0.2").send))
        bad = "/status/503", "/sleep/0.05"
        running.enter_context(pressing(CLIENTS, lambda number: ask(gevent + bad[number > 0]), pause=0.05))
        yield


def config(servers: dict[str, Server], rules: Path) -> dict[str, Any]:
    targets = [f"127.0.0.1:{server.agent_port}" for server in servers.values()]
    job = {"job_name": "sightline", "static_configs": [{"targets": targets}]}
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules / "*.yml")],
        "scrape_configs": [job],
    }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a server of each kind under load, until both readers have known them for longer than a window."""
    directory = tmp_path_factory.mktemp("signals")
    source = ROOT / "monitoring/prometheus"
    scaling.rules(source / "rules", directory / "rules", source / "demo/slo.yml")
    with ExitStack() as stack:
        servers = {}
        for name, env in CLASSES.items():
            (directory / name).mkdir()
            server = Server(directory / name, GUNICORN_WORKER_CLASS=name, **{"WEB_CONCURRENCY": 2, **env})
            servers[name] = stack.enter_context(server)
        prometheus = Prometheus(directory, config=config(servers, directory / "rules"))
        stack.enter_context(prometheus)
        onlookers = {name: Onlooker(server.agent_url, WINDOW, 1.0, WINDOW) for name, server in servers.items()}
        for onlooker in onlookers.values():
            stack.enter_context(onlooker.watching())
        stack.enter_context(loads(servers))
        begun = time.monotonic()
        reader = Reader(prometheus.url, window=WINDOW, idle=WINDOW)
        with pytest.raises(ReadError, match=r"^http://127\.0\.0\.1:\d+: (knows no|does not know|has known)"):
            reader.read(time.time())
        wait_until(lambda: time.monotonic() - begun > 1.5 * WINDOW, 3 * WINDOW, "a window under load")
        yield Running(servers, prometheus, reader, onlookers)


@pytest.mark.parametrize("name", CLASSES)
def test_both_readers_agree(running: Running, name: str) -> None:
    recorded, seen = running.both(name)
    for field in (each.name for each in fields(Signals)):
        if field in NOT_COMPARED:
            continue
        one, other = getattr(recorded, field), getattr(seen, field)
        assert type(one) is type(other) or {type(one), type(other)} == {int, float}, f"{field}: {one}, {other}"
        if field not in APART:
            assert one == other, field
            continue
        share, besides = APART[field]
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [] if one is None else [(one, other)]
        for first, second in pairs:
            allowed = share * max(abs(first), abs(second)) + besides
            assert abs(first - second) <= allowed, f"{field}: {one} by Prometheus, {other} by the agent"


def test_both_say_in_the_end_that_the_load_is_steady(running: Running) -> None:
    for name in CLASSES:
        steady = lambda name=name: not any(each.busy_changing for each in running.both(name))  # noqa: E731
        eventually(steady, 3 * WINDOW, f"{name} to be as busy as a window ago")


def test_they_say_what_is_so(running: Running) -> None:
    """Clients ask again when they are answered: each is in a slot, or waits."""
    for reader in range(2):
        sync, gthread, gevent = (running.both(name)[reader] for name in CLASSES)
        for each in (sync, gthread):
            assert (each.slots * each.workers_target, each.cores) == (2, len(os.sched_getaffinity(0)))
            assert 1.5 < each.in_flight < 2.1
            assert each.in_flight + each.queued + each.backlog == pytest.approx(CLIENTS, abs=1.5)
            assert 0.17 < (each.service_seconds or 0) < 0.4  # 0.2, by two rates that do not end at the same request
            assert each.busy > 0.8
            assert each.requests == pytest.approx(each.requests_per_second * WINDOW)
        assert (sync.queue_source, gthread.queue_source, gevent.queue_source) == ("proxy", "threads", "proxy")
        assert (sync.queued, gthread.backlog) == (0, pytest.approx(0, abs=1))
        assert gthread.queue_p95 == pytest.approx(gthread.queued / gthread.requests_per_second, rel=0.3)
        assert gevent.busy < 0.8
        assert (gevent.loop_lag_p99 or 0) > 0
        assert 0.05 < gevent.error_ratio < 0.5, "one client of eight, who is answered at once"
        assert (sync.loop_lag_p99, sync.error_ratio, sync.timeouts) == (None, 0, 0)
        assert (sync.preload, gevent.preload) == (False, True)
        assert all(0.1 < each.boot_seconds < 20 for each in (sync, gthread, gevent))
        assert all(each.age < 10 and each.settled for each in (sync, gthread, gevent))
    assert [each.servers for each in running.reader.read(time.time())] == [3, 3, 3]


def test_both_know_the_most_that_there_was_while_nobody_waited(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients wait for slots all the time; where that were no waiting, both would know how many were in service."""
    for name in ("sync", "gthread"):
        assert [each.quiet_peak for each in running.both(name)] == [None, None]
    monkeypatch.setattr(trends, "QUIET_SECONDS", 3600.0)
    for name in CLASSES:
        recorded, seen = eventually(lambda name=name: peaks(running, name), 60, f"a window of {name}")
        assert recorded == pytest.approx(seen, rel=0.3)
        assert all(1.5 < peak < CLIENTS + 0.1 for peak in (recorded, seen))


def peaks(running: Running, name: str) -> tuple[float, float] | None:
    recorded, seen = (each.quiet_peak for each in running.both(name))
    return (recorded, seen) if recorded and seen else None


def test_an_objective_that_burns_is_seen_by_both(running: Running) -> None:
    """Of a job it is one; an agent knows of its own server."""
    eventually(
        lambda: all(each.errors_burning for each in running.reader.read(time.time())), 60, "the objective to burn"
    )
    burning = {name: running.both(name)[1].errors_burning for name in CLASSES}
    assert burning == {"sync": False, "gthread": False, "gevent": True}


def test_a_recorded_range_is_read_as_it_was(running: Running) -> None:
    def recorded() -> dict[float, list[Signals]]:
        end = time.time() - 5  # by when all that was scraped until then is there
        found = running.reader.range(end - 10, end, 2.0)
        assert len(found) <= 6
        whole = {at: servers for at, servers in found.items() if len(servers) == 3}  # else a scrape has failed
        return whole if len(whole) >= 3 else {}

    moments: dict[float, list[Signals]] = eventually(recorded, 30, "some moments of a known server")
    for moment, servers in moments.items():
        assert [each.server for each in servers] == sorted(each.agent_url[7:] for each in running.servers.values())
        again = {each.server: each for each in running.reader.at(moment)}
        for each in servers:
            assert again[each.server].requests_per_second == each.requests_per_second
            assert again[each.server].time == pytest.approx(each.time, abs=0.01)
    yesterday = time.time() - 86_400
    with pytest.raises(ReadError, match="has nothing of the job 'sightline' in that range"):
        running.reader.range(yesterday, yesterday + 400, 15.0)


def advise(*options: str, seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "TUNER_WINDOW_SECONDS": f"{WINDOW:g}", "NO_COLOR": "", "TERM": "xterm"}
    command = [sys.executable, "-m", "observability", "tuner", "advise", *options]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=seconds)


def test_advice_from_prometheus_from_a_range_and_from_an_agent(running: Running) -> None:
    server = running.servers["sync"].agent_url.removeprefix("http://")
    of_now = advise("--prometheus", running.prometheus.url, "--server", server)
    of_range = advise("--prometheus", running.prometheus.url, "--server", server, "--range", "15s")
    watched = advise("--agent", running.servers["sync"].agent_url, "--watch", "6s")
    for done in (of_now, of_range, watched):
        assert done.returncode in (1, 2, 3), done.stdout + done.stderr
        assert f"{server}  sync, 2 workers" in done.stdout
        assert "\n    GUNICORN_WORKER_CLASS=gthread  # now: sync\n" in done.stdout
        assert "wait for a worker, p95" in done.stdout
        assert "\x1b" not in done.stdout, "it is no terminal"
    assert (of_now.stderr, of_range.stderr) == ("", "")
    assert watched.stderr == f"watching http://{server} for 6 s\n"
    assert "  at its worst, " in of_range.stdout


def test_advice_for_a_program(running: Running) -> None:
    done = advise("--prometheus", running.prometheus.url, "--json")
    said = json.loads(done.stdout)
    assert len(said["servers"]) == 3
    assert done.returncode == said["urgency"] == max(each["decision"]["urgency"] for each in said["servers"])
    assert all(each["server"] == each["signals"]["server"] for each in said["servers"])
    advised = [line for each in said["servers"] for line in each["decision"]["advice"]]
    assert all(each["line"] == f"{each['variable']}={each['value']}" for each in advised)
    unknown = advise("--prometheus", running.prometheus.url, "--server", "nobody")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (4, "", 1)


# What follows changes the servers: it comes last.


def test_a_reload_is_seen_and_forgotten(running: Running) -> None:
    server = running.servers["sync"]
    assert not any(each.reloading for each in running.both("sync"))
    server.signal(signal.SIGHUP)
    eventually(lambda: all(each.reloading for each in running.both("sync")), 15, "both to see the reload")
    eventually(lambda: not any(each.reloading for each in running.both("sync")), 3 * WINDOW, "both to forget it")


def test_a_server_that_vanishes_while_it_is_watched(running: Running) -> None:
    """One line where it was watched, at once; of the others Prometheus goes on telling."""
    server = running.servers.pop("gevent")
    command = [sys.executable, "-m", "observability", "tuner", "advise", "--agent", server.agent_url, "--watch", "60s"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith("watching ")
        time.sleep(2)  # it has looked by then, or fails for the same reason at its first look
        server.stop()
        out, err = watching.communicate(timeout=30)
    assert (watching.returncode, out) == (4, "")
    assert err == f"{server.agent_url}/metrics: nothing answers\n"
    eventually(
        lambda: [each.servers for each in running.reader.read(time.time())] == [2, 2], 30, "Prometheus to know it gone"
    )
    onlooker = running.onlookers["gevent"]
    with pytest.raises(ReadError, match=r"nothing answers$"):
        onlooker.read(time.time() + WINDOW)
    assert onlooker.trouble.endswith("nothing answers")
