"""Beyond gunicorn: `flask run`, and an agent that runs beside a server as a sidecar."""

import os
import subprocess
import sys
from pathlib import Path

import requests

from tests.server import ROOT, free_port, wait_until


def test_flask_run_claims_a_slot_and_a_sidecar_agent_shows_it(tmp_path: Path) -> None:
    port, agent_port = free_port(), free_port()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OBSERVABILITY_DIR": str(tmp_path / "state"),
        "OBSERVABILITY_AGENT_PORT": str(agent_port),
    }
    python = [sys.executable, "-m"]
    flask = [*python, "flask", "--app", "tests.probe_app:create_app", "run", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        running = [
            subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
            for command in (flask, [*python, "observability", "agent"])
        ]
    try:
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/items/1", timeout=5).ok)
        agent = f"http://127.0.0.1:{agent_port}"
        wait_until(
            lambda: 'gunicorn_worker_requests_total{worker="1"} 1.0' in requests.get(f"{agent}/metrics", timeout=5).text
        )
        text = requests.get(f"{agent}/metrics", timeout=5).text
        assert 'http_route="/items/<int:number>"' in text
        (worker,) = requests.get(f"{agent}/state", timeout=5).json()["workers"]
        assert worker["pid"] == running[0].pid
        answer = requests.get(f"{agent}/livez", timeout=5)
        assert (answer.status_code, answer.text) == (503, "no master\n")
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(10) for process in running]
    assert codes[1] == 0
