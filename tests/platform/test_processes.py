"""Background processes: what is ended, and what is left alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.processes import Processes, Service, identity


@pytest.fixture
def processes(tmp_path):
    """Give a place for records; what a test leaves running is ended."""
    made = Processes(tmp_path)
    yield made
    for name in made.names():
        made.stop(name)


def start(processes: Processes, code: str, tmp_path: Path, stop_seconds: float = 10) -> int:
    """Start a Python program, and return its id once it has said that it is ready."""
    processes.start(Service("it", [sys.executable, "-uc", code], dict(os.environ), stop_seconds=stop_seconds), tmp_path)
    deadline = time.monotonic() + 30
    while "ready" not in processes.log("it").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = processes.pid("it")
    assert pid is not None
    return pid


def test_stop_asks_first(processes, tmp_path):
    code = (
        "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(print('asked'))); print('ready'); time.sleep(60)"
    )
    pid = start(processes, code, tmp_path)
    assert processes.stop("it")
    assert identity(pid) is None
    assert "asked" in processes.log("it").read_text()
    assert processes.names() == []


def test_stop_kills_what_does_not_listen_and_its_children(processes, tmp_path):
    code = (
        "import os,signal,time; signal.signal(15, signal.SIG_IGN); child = os.fork(); "
        "print(f'child {child} ready') if child else None; time.sleep(60)"
    )
    pid = start(processes, code, tmp_path, stop_seconds=0.5)
    child = int(processes.log("it").read_text().split()[1])
    assert identity(child)
    assert processes.stop("it")
    assert identity(pid) is None
    assert identity(child) is None


def test_an_id_that_was_used_again_is_left_alone(processes, tmp_path):
    pid = start(processes, "import time; print('ready'); time.sleep(60)", tmp_path)
    record = processes.records / "it.json"
    genuine = record.read_text()
    record.write_text(json.dumps(json.loads(genuine) | {"identity": "another-boot 1", "token": "another"}))
    assert processes.pid("it") is None
    assert not processes.stop("it")
    assert identity(pid)
    record.write_text(genuine)
    assert processes.stop("it")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_a_damaged_record_names_nothing(processes, text):
    processes.records.mkdir(parents=True)
    (processes.records / "it.json").write_text(text)
    assert processes.pid("it") is None
    assert not processes.stop("it")
    assert processes.names() == []


def test_a_zombie_is_not_running():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert identity(child.pid) is None
    child.wait()
