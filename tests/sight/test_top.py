"""`python -m observability top` over a real server: what it shows is true, and it outlives the server."""

import contextlib
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from observability.top.source import Source
from tests.server import ROOT, Server, free_port, wait_until

SLOW = 3


def top(server: Server, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "observability", "top", "--once", "--interval", "0.3", *options],
        cwd=ROOT,
        env=server.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask_slowly(server: Server) -> None:
    """Have requests in flight that end with the server only."""

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):
            server.get("/sleep/120", timeout=120)

    for _ in range(SLOW):
        threading.Thread(target=ask, daemon=True).start()
    wait_until(lambda: sum(len(worker["now"]) for worker in server.state()["workers"]) == SLOW, what="slow requests")


def start(serve: Callable[..., Server]) -> Server:
    server = serve(GUNICORN_WORKER_CLASS="gthread", GUNICORN_THREADS=4, GUNICORN_GRACEFUL_TIMEOUT=1)
    for _ in range(5):
        server.get("/")
    server.get("/fail")
    ask_slowly(server)
    return server


def in_flight(text: str) -> set[tuple[str, str]]:
    """Return slot and trace id of the requests in the second table."""
    return set(re.findall(r"^ +(\d+) +\S+  ([0-9a-f]{32})  GET +/sleep/120$", text, re.MULTILINE))


def of(state: dict[str, Any]) -> set[tuple[str, str]]:
    return {(str(worker["slot"]), each["trace_id"]) for worker in state["workers"] for each in worker["now"]}


def test_once_shows_the_truth_with_and_without_the_agent(serve: Callable[..., Server]) -> None:
    server = start(serve)
    state = server.state()
    for options in ([], ["--url", server.agent_url], ["--directory", str(server.state_directory)]):
        shown = top(server, *options)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"master {server.pid}  class gthread" in shown.stdout
        assert "workers 2/2\n" in shown.stdout
        assert in_flight(shown.stdout) == of(state)
        for worker in state["workers"]:
            row = rf"^ +{worker['slot']} +{worker['pid']}  gthread +\S+ +{worker['in_flight']}/4 "
            assert re.search(row, shown.stdout, re.MULTILINE), shown.stdout
        assert "!! " not in shown.stdout.splitlines()[0], "no banner"


def test_it_goes_on_while_the_agent_is_started_again_and_asks_for_stacks(serve: Callable[..., Server]) -> None:
    server = start(serve)
    source = Source(server.agent_url, server.state_directory)
    before = wait_until(lambda: (first := source.poll()).trouble == "" and first, what="the agent's answer")
    assert before.alive
    os.kill(server.state()["agent"]["pid"], signal.SIGKILL)
    assert source.poll().alive, "by the new agent, or by the directory"
    wait_until(lambda: source.poll().trouble == "", what="the new agent")
    slot = next(worker.slot for worker in before.state.workers if worker.now)
    assert "in sleep" in wait_until(lambda: "in sleep" in (text := source.stack(slot)) and text, what="a stack")
    assert "in sleep" in Source("", server.state_directory).stack(slot)
    assert source.stack(99).startswith("No stack")


def test_after_everything_was_killed_it_shows_what_was_in_flight(serve: Callable[..., Server]) -> None:
    server = start(serve)
    state = server.state()
    for pid in [server.pid, *[child.pid for child in server.children()]]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(20)
    wait_until(lambda: not any(psutil.pid_exists(worker["pid"]) for worker in state["workers"]))
    for options in ([], ["--directory", str(server.state_directory)]):
        shown = top(server, *options)
        assert shown.returncode == 1
        assert shown.stdout.startswith("!! THE SERVER IS DEAD")
        assert in_flight(shown.stdout) == of(state)
        for worker in state["workers"]:
            row = rf"^ +{worker['slot']} +{worker['pid']}  gthread +{worker['requests']} +{worker['errors']} +"
            assert re.search(row + str(worker["in_flight"]), shown.stdout, re.MULTILINE), shown.stdout
    asked = top(server, "--url", server.agent_url)
    assert (asked.returncode, asked.stdout) == (
        2,
        f"!! NO SERVER TO BE SEEN. {server.agent_url}: nothing answers - trying again\n",
    )


def test_after_an_orderly_end_it_says_since_when(serve: Callable[..., Server]) -> None:
    server = start(serve)
    assert server.stop() == 0
    shown = top(server)
    assert shown.returncode == 1
    assert re.match(r"!! THE SERVER IS DEAD since \S+ \S+ \(\S+ ago\): clean", shown.stdout)


@pytest.mark.parametrize("agent", ["gone", "silent"])
def test_in_a_terminal_it_starts_and_leaves_whatever_the_agent_does(tmp_path: Path, agent: str) -> None:
    """An agent that takes connections and never answers must not hold up a person who wants to leave."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1] if agent == "silent" else free_port()
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "observability", "top", "--url", f"http://127.0.0.1:{port}"]
        env = Server(tmp_path).env | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "20"}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            drawn = read_until(ours, b"sort" if agent == "silent" else b"NO SERVER TO BE SEEN")
            assert b"\x1b[?1049h" in drawn, "the alternate screen: the terminal is as before afterwards"
            os.write(ours, b"q")
            read_until(ours, b"\x1b[?1049l")
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def read_until(fd: int, wanted: bytes, seconds: float = 30.0) -> bytes:
    """Read what a terminal is told until something comes, and return all of it."""
    found, deadline = b"", time.monotonic() + seconds
    while wanted not in found:
        left = deadline - time.monotonic()
        assert left > 0, found[-2000:]
        if select.select([fd], [], [], left)[0]:
            found += os.read(fd, 65536)
    return found
