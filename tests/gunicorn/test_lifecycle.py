"""What happens to the server happens to its telemetry: boots, reloads, upgrades, crashes, ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.asking import Asking
from tests.server import ROOT, Server, free_port, wait_until

CLASSES = ["sync", "gthread", "gevent"]
each_class = pytest.mark.parametrize("worker_class", CLASSES)
COUNT = "http_server_request_duration_seconds_count"


def agent_pid(server: Server) -> int:
    return int(server.state()["agent"]["pid"])


def masters(server: Server) -> list[int]:
    return [master["pid"] for master in server.state()["masters"]]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def block(server: Server, path: str, count: int) -> list[socket.socket]:
    """Send requests and do not wait for their answers."""
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        clients.append(client)
    return clients


@pytest.mark.alone
@each_class
def test_the_agent_answers_while_every_worker_is_blocked(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(GUNICORN_WORKER_CLASS=worker_class, GUNICORN_THREADS=2)
    clients = block(server, "/burn/3", 8)
    time.sleep(0.5)
    with Asking(server.agent_port) as asking:
        time.sleep(1.5)
        assert server.metrics().sum("http_server_active_requests") >= 2
        assert server.agent("/livez").status_code == 200
    asking.check()
    for client in clients:
        client.close()


@pytest.mark.alone
@each_class
def test_a_reload_keeps_the_counts_and_the_agent(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(GUNICORN_WORKER_CLASS=worker_class)
    for _ in range(10):
        server.get("/")
    before, agent = server.worker_pids(), agent_pid(server)
    with Asking(server.agent_port) as asking:
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(server.worker_pids()) == 2 and not set(before) & set(server.worker_pids()), 30)
        time.sleep(0.3)
    asking.check()
    for _ in range(5):
        server.get("/")
    wait_until(lambda: server.metrics().sum(COUNT) == 15, what="all requests: each is counted after its response")
    found = server.metrics()
    assert found.sum("gunicorn_reloads_total") == 1
    assert agent_pid(server) == agent
    assert server.agent("/readyz").status_code == 200


@pytest.mark.alone
@each_class
def test_a_binary_upgrade_shares_the_directory_and_hands_the_agent_over(
    serve: Callable[..., Server], worker_class: str
) -> None:
    server = serve(GUNICORN_WORKER_CLASS=worker_class)
    for _ in range(10):
        server.get("/")
    with Asking(server.agent_port) as asking:
        server.signal(signal.SIGUSR2)
        wait_until(lambda: len(masters(server)) == 2, 30, "two masters")
        wait_until(lambda: sum(each["booted"] for each in server.state()["workers"]) == 4, 30, "both sets of workers")
        slots = [worker["slot"] for worker in server.state()["workers"]]
        assert sorted(slots) == [1, 2, 3, 4]
        (new,) = [pid for pid in masters(server) if pid != server.pid]
        server.signal(signal.SIGTERM)
        assert server.process is not None
        server.process.wait(20)
        wait_until(lambda: masters(server) == [new])
        time.sleep(0.3)
    asking.check()
    try:
        for _ in range(5):
            server.get("/")
        wait_until(lambda: server.metrics().sum(COUNT) == 15)
        assert psutil.Process(agent_pid(server)).ppid() == new
        assert server.agent("/livez").status_code == 200
    finally:
        agent = agent_pid(server)
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: gone(new) and gone(agent))


def test_an_upgrade_that_is_taken_back_leaves_the_old_server_as_it_was(serve: Callable[..., Server]) -> None:
    server = serve()
    server.get("/")
    agent = agent_pid(server)
    server.signal(signal.SIGUSR2)
    wait_until(lambda: len(masters(server)) == 2, 30)
    (new,) = [pid for pid in masters(server) if pid != server.pid]
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: masters(server) == [server.pid], 30)
    server.get("/")
    wait_until(lambda: agent_pid(server) == agent)
    wait_until(lambda: server.metrics().sum(COUNT) == 2)
    wait_until(lambda: server.metrics().sum("gunicorn_workers", state="live") == 2)


@pytest.mark.alone
@each_class
def test_the_agent_answers_while_the_server_drains(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(GUNICORN_WORKER_CLASS=worker_class, GUNICORN_GRACEFUL_TIMEOUT=10)
    clients = block(server, "/sleep/3", 2)
    wait_until(lambda: server.metrics().sum("http_server_active_requests") == 2)
    with Asking(server.agent_port) as asking:
        server.signal(signal.SIGTERM)
        time.sleep(1.5)
        assert server.agent("/livez").status_code == 200
        wait_until(lambda: server.metrics().sum("http_server_active_requests") == 2)
    asking.check()
    assert all(b"slept" in client.makefile("rb").read() for client in clients)
    assert server.process is not None
    assert server.process.wait(10) == 0


def test_a_killed_agent_is_started_again_and_misses_no_scrape(serve: Callable[..., Server]) -> None:
    server = serve()
    first = agent_pid(server)
    os.kill(first, signal.SIGKILL)
    answer = server.agent("/metrics")  # waits in the backlog of the socket that the master holds
    assert answer.status_code == 200
    assert agent_pid(server) != first
    wait_until(lambda: server.metrics().sum("observability_agent_starts_total") == 2)


def test_an_agent_that_keeps_dying_is_started_ever_more_slowly(serve: Callable[..., Server]) -> None:
    server = serve()
    for _ in range(3):
        os.kill(agent_pid(server), signal.SIGKILL)
        server.agent("/livez")
    delays = [line["delay_seconds"] for line in server.lines() if "agent died" in str(line["body"])]
    assert delays == [0.5, 1.0, 2.0]
    assert server.get("/").status_code == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_the_agent_leaves_with_the_master_however_it_dies(serve: Callable[..., Server], how: signal.Signals) -> None:
    server = serve()
    agent, workers = agent_pid(server), server.worker_pids()
    server.signal(how)
    assert server.process is not None
    server.process.wait(20)
    wait_until(lambda: gone(agent), 5, "the agent's end")
    wait_until(lambda: all(map(gone, workers)), 10, "the workers' end")


def test_a_server_starts_at_once_after_its_master_was_killed(serve: Callable[..., Server]) -> None:
    server = serve()
    server.get("/")
    server.signal(signal.SIGKILL)
    assert server.process is not None
    server.process.wait(5)
    wait_until(lambda: not _listens(server.port), 10, "the old workers' end")
    server.start()
    server.wait_ready()
    wait_until(lambda: server.agent("/livez").status_code == 200)
    assert server.metrics().sum(COUNT) == 0  # a new server begins anew


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_agent_waits_for_a_port_that_is_taken(serve: Callable[..., Server], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(tmp_path)
        server.agent_port = taken.getsockname()[1]
        server.agent_url = f"http://127.0.0.1:{server.agent_port}"
        server.env["OBSERVABILITY_AGENT_PORT"] = str(server.agent_port)
        server.start()
        try:
            wait_until(lambda: server.get("/").status_code == 200)
            said = wait_until(lambda: [line for line in server.lines() if "cannot listen" in str(line["body"])])
            assert f"OBSERVABILITY_AGENT_PORT is {server.agent_port}" in said[0]["reason"]
            taken.close()
            wait_until(lambda: server.agent("/livez").status_code == 200)
        finally:
            server.stop()


@pytest.mark.parametrize("worker_class", CLASSES)
def test_liveness_is_lost_when_no_heartbeat_is_fresh_and_readiness_counts_workers(
    serve: Callable[..., Server], worker_class: str
) -> None:
    server = serve(GUNICORN_WORKER_CLASS=worker_class, OBSERVABILITY_READY_WORKERS=2, GUNICORN_TIMEOUT=2)
    assert server.agent("/livez").status_code == server.agent("/readyz").status_code == 200
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGSTOP)  # no heartbeat, and alive until gunicorn kills it
    os.kill(server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: server.agent("/livez").status_code == 503, 10)
        assert "heartbeat" in server.agent("/livez").text
        assert server.agent("/readyz").status_code == 503
    finally:
        os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: server.agent("/readyz").status_code == 200, 30, "new workers")


HOOKS = [
    "nworkers_changed",
    "on_starting",
    "when_ready",
    "on_reload",
    "pre_exec",
    "post_fork",
    "post_worker_init",
    "worker_exit",
    "child_exit",
    "on_exit",
]
# without the first three there is no agent, or no slot; the last two run in a process that is about to end
UNCOUNTED = ("on_starting", "when_ready", "post_fork", "pre_exec", "on_exit")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_fails_inside_leaves_the_server_running(tmp_path: Path, hook: str) -> None:
    server = Server(tmp_path, BROKEN_HOOK=hook, GUNICORN_CMD_ARGS="-c tests/gunicorn/broken.conf.py")
    server.start()
    try:
        wait_until(lambda: server.get("/").status_code == 200, 30)
        if hook != "on_exit":  # reload: every hook but the first and the last has run then, or runs now
            server.signal(signal.SIGHUP)
        if hook == "pre_exec":
            server.signal(signal.SIGUSR2)
        if hook != "on_exit":
            wait_until(lambda: _failures(server, hook), 20, f"the failure of {hook} in the log")
        time.sleep(0.5)
        assert server.get("/").status_code == 200
        assert server.process is not None
        assert server.process.poll() is None
        if hook not in UNCOUNTED:
            wait_until(lambda: server.metrics().sum("observability_hook_failures_total", hook=hook) >= 1)
    finally:
        assert server.stop() == 0
    assert _failures(server, hook)


def _failures(server: Server, hook: str) -> list[object]:
    return [line for line in server.lines() if line.get("hook") == hook and "broken on purpose" in str(line)]


def refused(**env: object) -> str:
    """Boot with these settings, and return what is printed by the server that refuses."""
    port = free_port()
    full = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "GUNICORN_BIND": f"127.0.0.1:{port}",
        "OBSERVABILITY_AGENT_PORT": str(free_port()),
        **{key: str(value) for key, value in env.items()},
    }
    command = [str(Path(sys.executable).with_name("gunicorn")), "tests.probe_app:create_app()"]
    ended = subprocess.run(command, cwd=ROOT, env=full, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode != 0
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("GUNICORN_TIMEOUT", "soon"), ("OBSERVABILITY_AGENT_PORT", "0"), ("OBSERVABILITY_LOG_FORMAT", "xml")],
)
def test_a_senseless_setting_stops_the_boot_with_one_line(variable: str, value: str) -> None:
    lines = refused(**{variable: value}).strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{variable} is '{value}', but takes ")


def test_a_directory_in_use_stops_the_second_server(serve: Callable[..., Server]) -> None:
    server = serve()
    said = refused(OBSERVABILITY_DIR=server.state_directory)
    assert f"OBSERVABILITY_DIR is {server.state_directory}, which the server with pid {server.pid} uses" in said
    assert "Traceback" not in said
    assert len(server.state()["workers"]) == 2


def test_it_works_with_no_flags_and_no_settings_but_ports(tmp_path: Path) -> None:
    with Server(tmp_path, app="app:create_app()") as server:
        assert server.get("/healthz").status_code == 200
        assert server.state()["workers"][0]["worker_class"] == "gevent"
        wait_until(lambda: server.metrics().sum("gunicorn_workers", state="target") == 2)


def test_preload_under_gevent_serves_and_claims_slots(serve: Callable[..., Server]) -> None:
    server = serve(GUNICORN_PRELOAD=1)
    for _ in range(6):
        server.get("/count/preloaded")
    wait_until(lambda: server.metrics().sum("probe_things_total", kind="preloaded") == 6)
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.metrics().sum("gunicorn_reloads_total") == 1)
    wait_until(lambda: len(server.worker_pids()) == 2)
    server.get("/count/preloaded")
    wait_until(lambda: server.metrics().sum("probe_things_total", kind="preloaded") == 7)


def test_ttin_and_ttou_move_the_target_and_the_live_count(serve: Callable[..., Server]) -> None:
    server = serve()
    server.signal(signal.SIGTTIN)
    wait_until(lambda: server.metrics().by("state", "gunicorn_workers") == {"target": 3, "live": 3, "booted": 3})
    server.signal(signal.SIGTTOU)
    wait_until(lambda: server.metrics().by("state", "gunicorn_workers") == {"target": 2, "live": 2, "booted": 2})


def test_what_is_alerted_on_by_its_increase_is_shown_before_the_first(serve: Callable[..., Server]) -> None:
    """A counter that appears as 1 has not increased, as Prometheus sees it."""
    metrics = serve().metrics()
    assert metrics.by("level", "log_messages_total").keys() == {"debug", "info", "warning", "error", "critical"}
    assert metrics.sum("log_messages_total", level="error") == 0
    assert metrics.by("outcome", "observability_spans_total") == {"exported": 0, "dropped": 0}
    assert [each.value for each in metrics.select("observability_log_lines_dropped_total")] == [0]
    assert set(metrics.by("cause", "gunicorn_worker_exits_total").values()) == {0}
