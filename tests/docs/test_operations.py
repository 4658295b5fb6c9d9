"""The commands of docs/operations.md do what the page says, run as they stand there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ROOT, Server, wait_until

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)
UPGRADE, SIDECAR = BLOCKS
COUNT = "http_server_request_duration_seconds_count"


def environ(server: Server) -> dict[str, str]:
    """Return a shell's environment in which `python` is the tests' own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), server.env["PATH"]])
    return server.env | {"PATH": path, "OLD": str(server.pid)}


def run(server: Server, line: str) -> str:
    """Run one line of the page, with this server's port."""
    line = line.replace(":9101", f":{server.agent_port}")
    return subprocess.run(["sh", "-c", line], env=environ(server), capture_output=True, text=True, check=True).stdout


@pytest.fixture
def sidecar(tmp_path):
    """Give a server without an agent of its own, and the page's agent beside it."""
    server = Server(tmp_path, OBSERVABILITY_AGENT=0)
    server.start()
    command = ["sh", "-c", f"exec {SIDECAR.strip()}"]
    with (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, cwd=ROOT, env=environ(server), stdout=log, stderr=log)
    try:
        wait_until(lambda: server.agent("/readyz").ok, 30, "the sidecar")
        server.wait_ready()
        yield server
    finally:
        agent.terminate()
        server.stop()
        assert agent.wait(10) == 0


def test_a_sidecar_answers_as_the_agent_does_and_stays_when_the_server_leaves(sidecar):
    assert sidecar.get("/items/1").status_code == 200
    wait_until(lambda: sidecar.metrics().sum(COUNT) == 1)
    assert sidecar.agent("/livez").text == "ok\n"
    sidecar.signal(signal.SIGTERM)
    assert sidecar.process.wait(20) == 0
    answer = sidecar.agent("/livez")
    assert (answer.status_code, answer.text) == (503, "no master\n")
    assert sidecar.metrics().sum(COUNT) == 1, "the slot files stay until the next start"


def test_an_upgrade_line_by_line(serve):
    server = serve()
    server.get("/")
    begin, look, end = UPGRADE.strip().splitlines()
    run(server, begin)
    wait_until(lambda: len(server.state()["masters"]) == 2, 30, "two masters")
    wait_until(lambda: len(server.state()["workers"]) == 4, 30, "both sets")
    assert '"upgraded_from":' + str(server.pid) in run(server, look).replace(" ", "")
    (new,) = server.upgraded()
    run(server, end)
    try:
        assert server.process.wait(20) == 0
        wait_until(lambda: [master["pid"] for master in server.state()["masters"]] == [new])
        server.get("/")
        wait_until(lambda: server.metrics().sum(COUNT) == 2, what="the count to go on")
    finally:
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{new}").exists() or _zombie(new), 20, "the new master's end")


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
