"""Why a worker ended, from what is known of it; a slot that waits for its master; how the last server ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import catalogue, flight, gunicorn_log, layout, limits, oom, previous, remains, slots, stacks
from observability.exits import End, Exits, cause_of
from observability.marks import Marks
from observability.store import Store
from tests.server import ROOT, wait_until

RULES = [
    (End(aborted=True), "timeout"),  # code 0: a sync worker that obeyed SIGABRT
    (End(aborted=True, signal="SIGKILL"), "timeout"),
    (End(aborted=True, signal="SIGKILL", oom=True), "timeout"),
    (End(code=3, booted=False), "boot_failed"),
    (End(code=1, booted=False), "boot_failed"),
    (End(recycled=True, exited=True), "recycled"),
    (End(recycled=True, exited=True, reloaded=True, surplus=True), "recycled"),
    (End(signal="SIGKILL", oom=True), "oom_killed"),
    (End(signal="SIGKILL"), "killed"),
    (End(signal="SIGKILL", stopping=True), "killed"),
    (End(signal="SIGSEGV"), "crashed"),
    (End(signal="SIGSEGV", reloaded=True, surplus=True), "crashed"),
    (End(code=7), "crashed"),
    (End(code=7, stopping=True), "crashed"),
    (End(signal="SIGHUP"), "killed"),
    (End(exited=True, stopping=True, surplus=True, reloaded=True), "shutdown"),
    (End(signal="SIGTERM", stopping=True), "shutdown"),
    (End(exited=True, reloaded=True, surplus=True), "reloaded"),
    (End(signal="SIGTERM", reloaded=True), "reloaded"),
    (End(exited=True, surplus=True), "scaled_down"),
    (End(signal="SIGTERM", surplus=True), "scaled_down"),
    (End(signal="SIGINT", stopping=True), "shutdown"),  # Ctrl-C of uvicorn's workers
    (End(reloaded=True), "crashed"),  # not the reload's doing
    (End(), "crashed"),  # os._exit(0): gone without a word
    (End(exited=True), "killed"),  # an orderly end that nobody here asked for
    (End(signal="SIGTERM"), "killed"),
]


@pytest.mark.parametrize(("end", "cause"), RULES)
def test_the_first_rule_that_fits_says_the_cause(end: End, cause: str) -> None:
    assert cause_of(end) == cause


@given(
    st.builds(
        End,
        signal=st.sampled_from(["", "SIGTERM", "SIGKILL", "SIGSEGV", "SIGHUP", "signal 40"]),
        code=st.sampled_from([0, 1, 3, 255]),
    )
)
def test_every_end_has_a_cause_of_the_catalogue(end: End) -> None:
    assert cause_of(end) in catalogue.EXIT_CAUSES


@pytest.mark.parametrize(
    ("level", "message", "args", "expected"),
    [
        ("error", "Worker (pid:%s) was sent %s! Perhaps out of memory?", (7, "SIGKILL"), (7, "SIGKILL", 0)),
        ("info", "Worker (pid:%s) was sent %s!", (7, "SIGTERM"), (7, "SIGTERM", 0)),
        ("warning", "Worker (pid:%s) was sent %s!", (7, "SIGSEGV"), (7, "SIGSEGV", 0)),
        ("error", "Worker (pid:%s) exited with code %s.", (7, 3), (7, "", 3)),
        ("error", "Worker (pid:%s) is fine", (7,), None),
        ("info", "anything else %s", (7,), None),
    ],
)
def test_what_gunicorn_says_of_an_end_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, level: str, message: str, args: tuple[Any, ...], expected: object
) -> None:
    from gunicorn.config import Config

    told: list[object] = []
    monkeypatch.setattr(gunicorn_log, "on_died", [lambda *each: told.append(each)])
    getattr(gunicorn_log.Logger(Config()), level)(message, *args)
    assert told == ([expected] if expected else [])


def test_a_dead_workers_slot_waits_until_its_master_has_looked(tmp_path: Path) -> None:
    """Else a worker that boots in that moment would take the slot, and with it what the dead one was doing."""
    pid = os.fork()
    if pid == 0:
        store = Store(tmp_path)
        store.claim()
        store.slot.write_note(master=os.getppid(), requests_before=2.0)
        store.cells[layout.REQUESTS], store.cells[layout.ACTIVE] = 5.0, 1.0
        store.slot.flight.enter("GET", "/slow", "ab" * 16, time.monotonic())
        os.kill(os.getpid(), signal.SIGKILL)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    other = slots.claim(tmp_path)
    assert other.number == 2
    left = remains.bury(tmp_path, 1, pid)
    assert left is not None
    assert (left.requests, left.lost) == (3, 1)
    assert [(each["path"], each["trace_id"]) for each in left.flights] == [("/slow", "ab" * 16)]
    third = slots.claim(tmp_path)
    assert third.number == 1
    assert list(flight.read(flight.copy(third.memory))) == []
    os.waitpid(pid, 0)
    assert remains.bury(tmp_path, 1, pid) is None  # it is another worker's now
    other.close()
    third.close()


def test_a_dead_worker_without_a_master_that_could_look_frees_its_slot_at_once(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from observability.store import Store
store = Store(Path({str(tmp_path)!r}))
store.claim()
store.slot.write_note(master=1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    slot = slots.claim(tmp_path)
    assert slot.number == 1
    slot.close()


DUMP = """Fatal Python error: Aborted

Thread 0x00007f0000000001 [worker-0] (most recent call first):
  File "a.py", line 1 in waits
  File "b.py", line 2 in run

Current thread 0x00007f0000000002 (most recent call first):
  File "c.py", line 3 in burns

Extension modules: greenlet._greenlet (total: 1)

Greenlet 0x0000000000000005 (most recent call first):
  File "d.py", line 4 in sleeps
"""


def test_a_dump_is_read_by_thread_greenlet_and_task() -> None:
    found = stacks.by_ident(DUMP)
    assert found[0x7F0000000001] == '  File "a.py", line 1 in waits\n  File "b.py", line 2 in run'
    assert found[0x7F0000000002] == found[0] == '  File "c.py", line 3 in burns'
    assert found[5] == '  File "d.py", line 4 in sleeps'


@pytest.mark.parametrize("text", ["", "Thread 0xzz (most recent call first):", "\0\xff"])
def test_a_dump_that_was_cut_off_is_read_as_far_as_it_goes(text: str) -> None:
    assert stacks.by_ident(text) == {}


def test_a_process_that_does_not_take_the_signal_is_never_sent_it(tmp_path: Path) -> None:
    """Its number can stand in a note: that of another process namespace, or of a worker whose number came again."""
    with subprocess.Popen(["sleep", "60"]) as innocent:
        store = Store(tmp_path)
        store.claim()
        store.slot.write_note(pid=innocent.pid, answers_stacks=True)
        stacks.answer_of(tmp_path, 1).touch()
        assert stacks.ask(tmp_path, 1) is None
        assert innocent.poll() is None
        innocent.kill()
    store.slot.close()


def marks() -> Marks:
    return Marks(SimpleNamespace(age=1, max_requests=10))


def test_requests_that_a_worker_notes_are_read_by_its_master() -> None:
    noted = marks()
    assert noted.read_requests() is None
    pid = os.fork()
    if pid == 0:
        noted.identify(3)
        noted.write_requests(70, [{"path": "/\u2028\n", "start": 1.0}])
        os._exit(0)
    os.waitpid(pid, 0)
    assert (noted.pid, noted.slot) == (pid, 3)
    assert noted.read_requests() == (70, [{"path": "/\u2028\n", "start": 1.0}])


def test_of_requests_beyond_the_room_the_oldest_are_noted() -> None:
    noted = marks()
    noted.write_requests(20, [{"path": "x" * 3000, "start": float(number)} for number in range(20)])
    found = noted.read_requests()
    assert found is not None
    assert found[0] == 20
    assert [each["start"] for each in found[1]] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_oldest_workers_are_the_surplus_whatever_is_wanted_later(tmp_path: Path) -> None:
    exits = Exits(tmp_path)
    server = SimpleNamespace(WORKERS={pid: SimpleNamespace(age=pid) for pid in (11, 12, 13)})
    exits.want(server, 2)
    exits.want(server, 3)  # TTIN, before the one that TTOU sent away is gone
    assert exits._surplus == {11}


def test_only_a_rise_of_just_now_is_a_workers_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, now = [5], [1000.0]
    monkeypatch.setattr(limits, "oom_kills", lambda: counted[0])
    monkeypatch.setattr(oom.time, "monotonic", lambda: now[0])
    watch, account = oom.Watch(tmp_path), oom.Account(tmp_path)
    assert not account.is_one_more()
    counted[0] = 7
    watch.look()
    assert account.is_one_more()
    assert account.is_one_more()
    assert not account.is_one_more()  # two rises are two kills, and no third
    counted[0] = 8  # somebody else of the group
    watch.look()
    now[0] += 10
    assert not account.is_one_more()
    counted[0] = 9
    assert account.is_one_more()  # the agent has not looked yet


def test_without_an_agent_what_came_before_a_fork_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = [5]
    monkeypatch.setattr(limits, "oom_kills", lambda: counted[0])
    account = oom.Account(tmp_path)
    counted[0] = 6
    account.renew()
    assert not account.is_one_more()
    counted[0] = 7
    assert account.is_one_more()


def test_kills_for_want_of_memory_are_read_from_whichever_cgroup_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_cgroup_directory", lambda controller="": tmp_path / (controller or "v2"))
    vmstat = tmp_path / "vmstat"
    assert limits.oom_kills(vmstat) == 0
    vmstat.write_text("pgfault 3\noom_kill 9\n")
    assert limits.oom_kills(vmstat) == 9
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("under_oom 0\noom_kill 4\n")
    assert limits.oom_kills(vmstat) == 4
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert limits.oom_kills(vmstat) == 2


def served(directory: Path, end: object = None, **note: object) -> None:
    """Leave a state directory behind as a master and a worker do that are killed together."""
    pid = os.fork()
    if pid == 0:
        (directory / slots.STAMP).write_text(f"{layout.VERSION}\n")
        master, worker = slots.claim(directory, "master"), slots.claim(directory)
        master.begin()
        worker.begin()
        master.write_note(worker_class="sync", **({"end": end} if end else {}))
        worker.write_note(**note)
        worker.flight.enter("GET", "/slow", "ab" * 16, time.monotonic())
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_server_that_was_killed_is_told_from_one_that_could_not_boot(tmp_path: Path) -> None:
    assert previous.read(tmp_path) is None
    served(tmp_path)
    found = previous.read(tmp_path)
    assert found is not None
    assert found["outcome"] == "killed"
    assert [each["path"] for each in found["in_flight"]] == ["/slow"]
    served(tmp_path, boot_error="RuntimeError: no")
    found = previous.read(tmp_path)
    assert found is not None
    assert found["outcome"] == "halted"
    assert [each["error"] for each in found["boot_errors"]] == ["RuntimeError: no"]


def test_what_a_master_noted_stands_and_outlives_its_slots(tmp_path: Path) -> None:
    served(tmp_path, end={"time": time.time(), "outcome": "clean", "reason": "", "status": 0})
    found = previous.keep(tmp_path)
    assert found is not None
    assert found["outcome"] == "clean"
    slots.empty(tmp_path)
    assert previous.read(tmp_path) == found
    served(tmp_path)
    later = previous.keep(tmp_path)
    assert later is not None
    assert later["outcome"] == "killed"
    slots.empty(tmp_path)
    assert previous.read(tmp_path) == later


def test_reading_the_last_end_leaves_no_file_open(tmp_path: Path) -> None:
    served(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    previous.keep(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"time": "yesterday"}'])
def test_a_torn_note_of_the_last_end_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / previous.FILE).write_text(text)
    assert previous.read(tmp_path) is None


def test_nothing_is_said_of_a_server_that_lives(tmp_path: Path) -> None:
    slots.prepare(tmp_path)
    slots.empty(tmp_path)
    slot = slots.claim(tmp_path, "master")
    slot.begin()
    assert previous.read(tmp_path) is None
    slot.close()
