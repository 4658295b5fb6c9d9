"""The telemetry is in trouble, and the server goes on: its directory, its disk, its output, its agent's clients."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.server import ROOT, Server, wait_until


def serves(server: Server) -> bool:
    return server.get("/").status_code == 200 and server.process is not None and server.process.poll() is None


@pytest.mark.parametrize("trouble", ["removed", "a file instead", "not to be written"])
def test_a_state_directory_that_becomes_unusable_halts_nothing(serve: Callable[..., Server], trouble: str) -> None:
    server = serve()
    victim = server.worker_pids()[0]
    shutil.rmtree(server.state_directory)
    if trouble == "a file instead":
        server.state_directory.write_text("")
    elif trouble == "not to be written":
        server.state_directory.symlink_to("/proc/self")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(server.children()) == 3, what="the worker's successor")
    for _ in range(5):
        assert serves(server)
    if trouble != "removed":
        wait_until(lambda: [line for line in server.lines() if line.get("hook") == "post_fork"])
    assert server.agent("/livez").status_code == 200  # the telemetry's trouble is no reason to restart the server
    assert server.agent("/metrics").status_code == 200


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a memory file system of a size."""
    with contextlib.ExitStack() as mounted:

        def mount(size: str) -> Path:
            directory = tmp_path / "tiny"
            directory.mkdir()
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], capture_output=True, check=False
            )
            if done.returncode:
                pytest.skip("only root may mount")
            mounted.callback(subprocess.run, ["umount", "--lazy", directory], check=True)
            return directory

        yield mount


@pytest.mark.parametrize("size", ["16k", "200k", "330k"])
@pytest.mark.parametrize("worker_class", ["sync", "gevent"])
def test_a_full_disk_is_counted_and_kills_nobody(
    serve: Callable[..., Server], tiny: Callable[[str], Path], size: str, worker_class: str, tmp_path: Path
) -> None:
    """Boot on a disk that has no room for a slot, for one, or for few series; then ask for ever more series."""
    directory = tiny(size)
    server = Server(
        tmp_path, GUNICORN_WORKER_CLASS=worker_class, OBSERVABILITY_DIR=directory / "state", WEB_CONCURRENCY=1
    )
    server.state_directory = directory / "state"
    server.start()
    try:
        wait_until(lambda: serves(server))
        before = {child.pid for child in server.children()}
        for number in range(400):
            assert server.get(f"/count/kind-{number}").status_code == 200
        assert {child.pid for child in server.children()} == before  # nobody died of SIGBUS
        assert server.agent("/livez").status_code == 200
        assert server.agent("/readyz").status_code == 200
        if size == "330k":
            assert server.metrics().sum("observability_store_refused_total") > 0
        server.signal(signal.SIGKILL, min(before - {server_agent(server)}))
        wait_until(lambda: any(line.get("cause") == "killed" for line in server.lines()), what="the end in the log")
    finally:
        assert server.stop() == 0


def server_agent(server: Server) -> int:
    return int(server.state()["agent"]["pid"])


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_standard_descriptor_lets_no_line_into_a_slot_file(tmp_path: Path, closed: str) -> None:
    server = Server(tmp_path)
    gunicorn = Path(sys.executable).with_name("gunicorn")
    server.process = subprocess.Popen(
        ["sh", "-c", f"exec '{gunicorn}' '{server.app}' {closed}>&-"], cwd=ROOT, env=server.env
    )
    try:
        server.wait_ready()
        for _ in range(5):
            server.get("/")
        wait_until(lambda: server.metrics().sum("gunicorn_worker_requests_total") == 5)
        wait_until(lambda: server.metrics().sum("observability_store_corrupt_files") == 0)
        if closed == "1":
            assert server.metrics().sum("observability_log_lines_dropped_total") >= 5
    finally:
        server.stop()


def test_clients_that_hold_the_agents_connections_lose_them(serve: Callable[..., Server]) -> None:
    server = serve()
    clients = [socket.create_connection(("127.0.0.1", server.agent_port)) for _ in range(300)]
    for client in clients:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
    begun = time.monotonic()
    assert server.agent("/livez").status_code == 200
    for client in clients:
        client.settimeout(20)
        while client.recv(1000):
            client.sendall(b"X: y\r\n")  # dripping on does not prolong it
    assert time.monotonic() - begun < 20


def test_the_agent_holds_nothing_of_the_masters(serve: Callable[..., Server]) -> None:
    server = serve()
    agent = psutil.Process(server.state()["agent"]["pid"])
    listening = {each.laddr.port for each in agent.net_connections() if each.status == psutil.CONN_LISTEN}
    assert listening == {server.agent_port}
    assert not [each.path for each in agent.open_files() if "slot" in each.path and each.mode != "r"]


def test_a_counter_of_a_workers_own_children_is_no_live_worker(serve: Callable[..., Server]) -> None:
    server = serve(GUNICORN_WORKER_CLASS="sync")
    assert server.get("/fork").text == "forked"
    found = server.metrics()
    assert found.sum("probe_things_total", kind="forked") == 1
    assert found.by("state", "gunicorn_workers") == {"target": 2, "live": 2, "booted": 2}
