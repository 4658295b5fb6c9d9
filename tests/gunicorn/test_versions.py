"""Every supported gunicorn does what is relied on: a server's whole life is seen, under each worker class.

`versions/` pins the supported releases beside the installed one, a file each. To add one, for example 27.0.0:

    echo gunicorn==27.0.0 | .venv/bin/uv pip compile --universal --no-deps --generate-hashes --no-header \
        --no-emit-index-url - -o tests/gunicorn/versions/27.0.0.txt
"""

import ast
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.server import ROOT, Server, wait_until

CLASSES = ["sync", "gthread", "gevent"]
COUNT = "http_server_request_duration_seconds_count"
PINS = {path.stem: path for path in (Path(__file__).parent / "versions").glob("*.txt")}
INSTALLED = importlib.metadata.version("gunicorn")
OTHERS = sorted(PINS.keys() - {INSTALLED}, key=Version)

# Asked three times in a server's life, before and after a reload and an upgrade.
ROUND = Counter({("/items/<int:number>", "200"): 10, ("/", "200"): 4, ("", "404"): 1, ("/fail", "500"): 1})
PATHS = ["/items/7"] * 10 + ["/"] * 4 + ["/no/such/path", "/fail"]

# gunicorn's statements that we rely on and that it promises to nobody: file, statement, who of us relies on it.
# A release that says one differently is not supported before that has been looked at.
PRIVATE = [
    (
        "arbiter.py",
        "self.log.debug('Reaped unknown child process (pid:%s, status:%s)', wpid, status)",
        "gunicorn_log.Logger.debug: the agent is started again",
    ),
    ("arbiter.py", "environ['GUNICORN_PID'] = str(master_pid)", "hooks.on_starting: a binary upgrade is told apart"),
    ("arbiter.py", "master_pid = os.getpid()", "hooks._open_directory: the pid is the old master's"),
    ("arbiter.py", "worker.pid = os.getpid()", "hooks.worker_exit: whether it runs in the worker"),
    ("arbiter.py", "msg = 'Worker (pid:%s) was sent %s!'", "gunicorn_log._tell_died: which signal"),
    ("arbiter.py", "msg += ' Perhaps out of memory?'", "gunicorn_log.Logger.error: left out"),
    ("arbiter.py", "self.log.error('Worker (pid:%s) exited with code %s.', wpid, exitcode)", "the same: which code"),
    ("arbiter.py", "log_level('Handling signal: %s', signame)", "gunicorn_log.Logger.info: the server is to end"),
    ("arbiter.py", "worker.aborted = True", "exits.Exits.ended: a timeout"),
    ("workers/base.py", "msg = 'Invalid request from ip={ip}: {error}'", "gunicorn_log.Logger.warning: counted"),
    ("workers/base.py", "self.log.warning(msg.format(ip=addr[0], error=str(exc)))", "the same, and as a warning"),
    ("workers/base.py", "self.tmp = WorkerTmp(cfg)", "hooks.post_fork: the heartbeat's descriptor"),
    ("workers/base.py", "self.tmp.notify()", "the same: it is what beats"),
    ("workers/workertmp.py", "new_time = time.monotonic()", "agent.worker.heartbeat_age: which clock"),
    ("workers/workertmp.py", "os.utime(self._tmp.fileno(), (new_time, new_time))", "the same: where it is written"),
    ("workers/workertmp.py", "return self._tmp.fileno()", "hooks.post_fork: the descriptor is that file's"),
    ("workers/gthread.py", "self.tpool = self.get_thread_pool()", "probes.inside.Gthread.queued"),
    (
        "workers/gthread.py",
        "return futures.ThreadPoolExecutor(max_workers=self.cfg.threads)",
        "the same: it has a queue",
    ),
    ("workers/gthread.py", "self.keepalived_conns = deque()", "probes.inside.Gthread.kept"),
    ("workers/gthread.py", "self.pending_conns = deque()", "the same"),
    ("workers/ggevent.py", "servers = []", "probes.inside.Gevent.find_pools: a local name of `run`"),
    ("workers/ggevent.py", "servers.append(server)", "the same"),
    (
        "workers/ggevent.py",
        "server = StreamServer(s, handle=hfun, spawn=pool, **ssl_args)",
        "the same: each has a pool",
    ),
    ("workers/gasgi.py", "self.nr_conns = 0", "probes.inside.Asgi.connections"),
    ("workers/gasgi.py", "self.loop = asyncio.new_event_loop()", "probes.start: the loop is there before it runs"),
    ("workers/gtornado.py", "self.ioloop = IOLoop.instance()", "the same: it is the current one"),
    ("workers/base.py", "self.cfg.post_worker_init(self)", "probes.start: hooks run where `run` will"),
]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the directory of a release, installed when first asked for."""
    found = {INSTALLED: Path(str(importlib.metadata.distribution("gunicorn").locate_file("")))}

    def directory(version: str) -> Path:
        if version not in found:
            target = tmp_path_factory.mktemp(f"gunicorn-{version}")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            command += ["--disable-pip-version-check", "--target", str(target), "-r", str(PINS[version])]
            pip = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert pip.returncode == 0, pip.stderr
            found[version] = target
        return found[version]

    return directory


def test_the_releases_tested_are_those_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (allowed,) = [each.specifier for each in map(Requirement, project["dependencies"]) if each.name == "gunicorn"]
    tested = sorted({*PINS, INSTALLED}, key=Version)
    assert all(allowed.contains(version) for version in tested)
    assert f">={Version(tested[0]).major}.{Version(tested[0]).minor}" in str(allowed).split(",")
    assert tested[-1] == INSTALLED  # production runs the newest


def _statements(source: str) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)}


@pytest.mark.parametrize("version", [*OTHERS, INSTALLED])
def test_what_we_rely_on_in_private_is_there(installed: Callable[[str], Path], version: str) -> None:
    package = installed(version) / "gunicorn"
    statements = {file: _statements((package / file).read_text()) for file, _, _ in PRIVATE}
    assert [each for each in PRIVATE if ast.unparse(ast.parse(each[1])) not in statements[each[0]]] == []


@pytest.mark.parametrize("worker_class", CLASSES)
@pytest.mark.parametrize("version", OTHERS)
def test_a_servers_whole_life_is_seen(
    installed: Callable[[str], Path], tmp_path: Path, version: str, worker_class: str
) -> None:
    server = Server(tmp_path, path=installed(version), GUNICORN_WORKER_CLASS=worker_class)
    with server:
        _it_is_this_release(server, version)
        _each_worker_has_its_slot_and_a_heartbeat(server)
        _requests_are_counted_and_logged(server, rounds=1)
        _what_cannot_be_parsed_is_counted(server)
        _a_killed_agent_is_started_again(server)
        _a_second_server_is_refused(server)
        _a_reload_keeps_the_counts(server)
        new = _an_upgrade_is_handed_over(server)
        try:
            _it_is_this_release(server, version)
        finally:
            agent = server.state()["agent"]["pid"]
            os.kill(new, signal.SIGTERM)
        wait_until(lambda: not psutil.pid_exists(new) and not psutil.pid_exists(agent), what="the new server's end")


def _it_is_this_release(server: Server, version: str) -> None:
    assert [sample.labels["version"] for sample in server.metrics().select("gunicorn_info")] == [version]


def _each_worker_has_its_slot_and_a_heartbeat(server: Server) -> None:
    workers = server.state()["workers"]
    assert sorted(worker["slot"] for worker in workers) == [1, 2]
    assert {worker["worker_class"] for worker in workers} == {server.env["GUNICORN_WORKER_CLASS"]}
    ages = server.metrics().by("worker", "gunicorn_worker_heartbeat_age_seconds")
    assert ages.keys() == {"1", "2"}
    assert all(0 <= age < 30 for age in ages.values())  # an age by another clock would be years


def _requests_are_counted_and_logged(server: Server, rounds: int) -> None:
    """Ask one round more, and check the sums of all rounds until now."""
    expected = Counter({key: count * rounds for key, count in ROUND.items()})
    for path in PATHS:
        server.get(path)
    wait_until(lambda: server.metrics().sum(COUNT) >= expected.total(), what="all requests to be counted")
    found = server.metrics()
    counts = Counter[tuple[str, str]]()
    for sample in found.select(COUNT):
        counts[sample.labels["http_route"], sample.labels["http_response_status_code"]] += int(sample.value)
    assert +counts == expected
    assert found.sum("gunicorn_worker_requests_total") == expected.total()
    wait_until(lambda: len(server.requests_logged()) >= expected.total(), what="the lines of all requests")
    lines = [(line.get("http.route", ""), str(line["http.response.status_code"])) for line in server.requests_logged()]
    assert Counter(lines) == expected
    assert not [line for line in server.lines() if "GET /" in str(line["body"]) and "event.name" not in line]


def _what_cannot_be_parsed_is_counted(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in client.recv(1000)
    wait_until(lambda: server.metrics().sum("gunicorn_invalid_requests_total") == 1)


def _a_killed_agent_is_started_again(server: Server) -> None:
    first = server.state()["agent"]["pid"]
    os.kill(first, signal.SIGKILL)
    assert server.agent("/livez").status_code == 200  # waits in the backlog of the socket that the master holds
    assert server.state()["agent"]["pid"] != first
    wait_until(lambda: server.metrics().sum("observability_agent_starts_total") == 2)


def _a_second_server_is_refused(server: Server) -> None:
    """Check that what a hook raises on purpose ends gunicorn with one line."""
    command = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", server.app]
    second = subprocess.run(command, cwd=ROOT, env=server.env, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    said = second.stdout + second.stderr
    assert f"which the server with pid {server.pid} uses" in said
    assert "Traceback" not in said


def _a_reload_keeps_the_counts(server: Server) -> None:
    before = set(server.worker_pids())
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(server.worker_pids()) == 2 and not before & set(server.worker_pids()), 30, "the reload")
    wait_until(lambda: server.metrics().sum("gunicorn_reloads_total") == 1)
    _requests_are_counted_and_logged(server, rounds=2)


def _an_upgrade_is_handed_over(server: Server) -> int:
    """Replace the server by USR2, and return the new master's pid."""
    assert server.process is not None
    old_agent = server.state()["agent"]["pid"]
    server.signal(signal.SIGUSR2)
    wait_until(lambda: sum(worker["booted"] for worker in server.state()["workers"]) == 4, 30, "both sets of workers")
    assert sorted(worker["slot"] for worker in server.state()["workers"]) == [1, 2, 3, 4]
    (new,) = server.upgraded()
    server.signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert not psutil.pid_exists(old_agent)
    assert [master["pid"] for master in server.state()["masters"]] == [new]
    assert psutil.Process(server.state()["agent"]["pid"]).ppid() == new
    _requests_are_counted_and_logged(server, rounds=3)
    return new
