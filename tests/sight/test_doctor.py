"""`python -m observability doctor`: silent on a well server, and a word of advice on each that is not."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from observability import doctor
from observability.doctor import OK, PROBLEM, WARNING, Finding
from tests.otlp import Receiver
from tests.server import ROOT, Server, free_port, wait_until


def examine(server: Server, **env: object) -> dict[str, list[Finding]]:
    """Return what is found, by check."""
    found: dict[str, list[Finding]] = {}
    for each in doctor.diagnose(server.env | {key: str(value) for key, value in env.items()}):
        found.setdefault(each.check, []).append(each)
    return found


def run(server: Server, *options: str, **env: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "observability", "doctor", *options],
        cwd=ROOT,
        env=server.env | {key: str(value) for key, value in env.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def memory() -> Iterator[Path]:
    """Give a directory in memory, as a state directory should be."""
    base = Path("/dev/shm")
    if not base.is_dir():
        pytest.skip("no /dev/shm here")
    directory = Path(tempfile.mkdtemp(dir=base, prefix="sightline-test-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def absent(tmp_path: Path) -> Server:
    """Give a server that was never started."""
    return Server(tmp_path)


def test_a_well_server_has_no_finding(tmp_path: Path, memory: Path) -> None:
    with Receiver() as receiver:
        env = {"OBSERVABILITY_DIR": memory / "state", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        with Server(tmp_path, **env) as server:
            for _ in range(3):
                server.get("/", headers={"X-Request-Start": f"t={time.time() - 0.05:.3f}"})
            wait_until(lambda: server.metrics().sum("http_server_request_queue_seconds_count") == 3)
            shown = run(server, "--json")
            found = json.loads(shown.stdout)
            assert [each for each in found["checks"] if each["level"] != OK] == []
            assert (found["worst"], shown.returncode, shown.stderr) == (OK, 0, "")
            names = {"gunicorn", "python", "settings", "worker class", "state directory", "server", "workers", "agent"}
            assert names | {"last end", "traces", "queue time"} == {each["check"] for each in found["checks"]}
            plain = run(server)
            assert plain.returncode == 0
            assert {line.split()[0] for line in plain.stdout.splitlines()} == {OK}


def test_without_a_server(absent: Server) -> None:
    shown = run(absent)
    assert shown.returncode == 1
    assert f"no master lives over {absent.state_directory}\n" in shown.stdout
    found = examine(absent)
    assert [each.level for each in found["server"]] == [PROBLEM]
    assert [each.level for each in found["state directory"]] == [WARNING], "the server will make it"
    assert [each.level for each in found["agent"]] == [WARNING]
    assert "workers" not in found


def test_settings_that_make_no_sense_end_the_examination(absent: Server) -> None:
    shown = run(absent, "--json", WEB_CONCURRENCY="many")
    assert shown.returncode == 1
    (finding,) = [each for each in json.loads(shown.stdout)["checks"] if each["check"] == "settings"]
    assert finding["says"] == "WEB_CONCURRENCY is 'many', but takes a whole number from 1 to 1024"


def test_a_misspelt_variable_and_a_worker_class_that_is_not_there(absent: Server, monkeypatch) -> None:
    found = examine(absent, OBSERVABILITY_SLOW_SECOND=1, GUNICORN_CMD_ARGS="")
    assert [(each.level, each.says, each.do) for each in found["settings"]] == [
        (WARNING, "nothing reads OBSERVABILITY_SLOW_SECOND", "is it OBSERVABILITY_SLOW_SECONDS?")
    ]
    monkeypatch.setitem(sys.modules, "gunicorn.workers.gthread", None)  # as if it could not be imported
    assert [each.level for each in examine(absent, GUNICORN_WORKER_CLASS="gthread")["worker class"]] == [PROBLEM]


def test_versions_are_those_of_the_project(monkeypatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    assert required["gunicorn"] == doctor.GUNICORN
    assert SpecifierSet(project["requires-python"]) == doctor.PYTHON
    monkeypatch.setattr(doctor.metadata, "version", lambda _: "99.0")
    assert [each.level for each in doctor._versions()] == [WARNING, OK]


def test_a_directory_that_is_foreign(absent: Server, tmp_path: Path) -> None:
    absent.state_directory.write_text("")
    assert [each.says for each in examine(absent)["state directory"]] == [f"{absent.state_directory} is no directory"]
    absent.state_directory.unlink()
    absent.state_directory.mkdir(mode=0o755)
    absent.state_directory.chmod(0o755)
    (absent.state_directory / "worker-1.slot").write_text("foreign")
    says = "\n".join(f"{each.level}: {each.says}" for each in examine(absent)["state directory"])
    assert "warning: worker-1.slot cannot be read and is left out" in says
    assert "can be read by others" in says
    assert "holds slots of another release" in says


def test_a_directory_of_somebody_else(absent: Server, monkeypatch) -> None:
    absent.state_directory.mkdir(mode=0o700)
    owner = absent.state_directory.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    first = examine(absent)["state directory"][0]
    assert (first.level, f"belongs to user {owner}" in first.says) == (PROBLEM, True)


@pytest.mark.parametrize(("size", "level"), [("64k", PROBLEM), ("600k", WARNING)])
def test_a_directory_without_room(absent: Server, size: str, level: str) -> None:
    absent.state_directory.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", absent.state_directory]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        assert [each.level for each in examine(absent)["state directory"]] == [level]
    finally:
        subprocess.run(["umount", "--lazy", absent.state_directory], check=True)


def test_a_server_that_could_not_boot(tmp_path: Path) -> None:
    server = Server(tmp_path, "tests.no_such_app:app", WEB_CONCURRENCY=1)
    server.start()
    server.process.wait(30)
    shown = run(server)
    assert shown.returncode == 1
    assert "no_such_app" in shown.stdout, "the error itself"
    ends = examine(server)["last end"]
    assert [each.level for each in ends] == [PROBLEM, PROBLEM]
    assert ends[0].says.startswith("halted")
    assert "could not boot" in ends[1].says


def test_a_server_that_was_killed_and_its_successor(serve: Callable[..., Server]) -> None:
    server = serve(WEB_CONCURRENCY=1)
    pids = [server.pid, *[child.pid for child in server.children()]]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(20)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert [each.level for each in examine(server)["last end"]] == [WARNING]
    server.start()
    server.wait_ready()
    found = examine(server)
    assert [each.level for each in found["server"]] == [OK]
    assert found["last end"][0].says.startswith("killed")


def test_an_agent_that_is_missing_or_another(serve: Callable[..., Server]) -> None:
    server = serve(WEB_CONCURRENCY=1)
    closed = free_port()
    assert [each.level for each in examine(server, OBSERVABILITY_AGENT_PORT=closed)["agent"]] == [PROBLEM]
    off = examine(server, OBSERVABILITY_AGENT_PORT=closed, OBSERVABILITY_AGENT=0)["agent"]
    assert [(each.level, "OBSERVABILITY_AGENT is 0" in each.do) for each in off] == [(WARNING, True)]
    other = examine(server, OBSERVABILITY_AGENT_PORT=server.port)["agent"]
    assert [(each.level, "something else answers" in each.says) for each in other] == [(PROBLEM, True)]
    server.get("/")
    wait_until(lambda: server.state()["workers"][0]["requests"] > 1)
    queue = examine(server)["queue time"]
    assert [(each.level, "can be believed" in each.says) for each in queue] == [(WARNING, True)]


def test_a_worker_that_hangs(serve: Callable[..., Server]) -> None:
    """The master is held too: it would end the worker as soon as its heartbeat is too old."""
    server = serve(WEB_CONCURRENCY=1, GUNICORN_TIMEOUT=3)
    held = [psutil.Process(pid) for pid in (server.pid, *server.worker_pids())]
    try:
        for process in held:
            process.suspend()
        found = wait_until(lambda: [each for each in examine(server)["workers"] if each.level == PROBLEM])
        assert "slot 1 has not beaten for" in found[0].says
        assert found[0].do == f"curl {server.agent_url}/workers/1/stack"
    finally:
        for process in held:
            process.resume()


def test_a_receiver_that_is_not_well(absent: Server) -> None:
    gone = examine(absent, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://me:secret@127.0.0.1:{free_port()}")["traces"]
    assert [each.level for each in gone] == [PROBLEM]
    assert "cannot be reached" in gone[0].says
    assert "secret" not in gone[0].says
    with Receiver() as receiver:
        wrong = examine(absent, OTEL_EXPORTER_OTLP_ENDPOINT=f"{receiver.endpoint}/elsewhere")["traces"]
        assert [(each.level, "answers 404" in each.says) for each in wrong] == [(PROBLEM, True)]
        well = examine(absent, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)["traces"]
        assert [each.level for each in well] == [OK]
        assert (receiver.requests, receiver.spans) == (1, []), "an empty message"


def test_a_check_that_fails_is_a_finding(absent: Server, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("torn")

    monkeypatch.setattr(doctor.previous, "read", fail)
    absent.state_directory.mkdir()
    assert [(each.level, "torn" in each.says) for each in examine(absent)["last end"]] == [(WARNING, True)]
