"""`POST /workers` on real servers: one worker more or less, where that is safe, and nothing else ever."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from observability.agent import check_config, control, guard
from observability.agent.refused import Refused
from observability.agent.view import View
from observability.tuning import action
from tests.asking import Asking
from tests.server import ROOT, Server, free_port, wait_until
from tests.tuning.control_parts import GOOD, SETTING, TOKEN, Ground, ask, refusal, send, settled, told, workers

Shared = tuple[Ground, Server]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with Ground(tmp_path) as ground:
        yield ground


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with Ground(tmp_path_factory.mktemp("shared")) as ground:
        yield ground, ground.start()


@pytest.fixture
def shared(_shared: Shared) -> Shared:
    """Give a server for tests that change nothing, or put back what they changed, with the good app on disk."""
    _shared[0].on_disk.write_text(GOOD)
    return _shared


@pytest.mark.parametrize("expected", [1, 3, 0, 1024])
def test_whoever_expects_another_target_changes_nothing(shared: Shared, expected: int) -> None:
    _, server = shared
    answer = ask(server, 1, expected)
    assert refusal(answer) == (409, "target")
    assert (answer.json()["target"], answer.json()["live"]) == (2, 2), "it says what is so"
    assert workers(server) == {"target": 2, "live": 2, "booted": 2}


def test_the_last_worker_stays(ground: Ground) -> None:
    server = ground.start(WEB_CONCURRENCY="1")
    assert refusal(ask(server, -1, 1)) == (409, "limit")
    assert server.get("/").status_code == 200


def seen(**differently: Any) -> control.Seen:
    return control.Seen(**{"target": 4, "live": 4, "booted": 4} | differently)


@pytest.mark.parametrize(
    ("found", "step", "expected"),
    [
        (seen(), 1, None),
        (seen(reloaded=control.RELOAD_SECONDS), 1, None),
        (seen(reloaded=control.RELOAD_SECONDS - 0.1), 1, "reloading"),
        (seen(masters=0), 1, "unseen"),
        (seen(target=None), 1, "unseen"),
        (seen(masters=2), -1, "upgrading"),
        (seen(stopping="is gone"), -1, "stopping"),
        (seen(target=3), 1, "target"),
        (seen(live=5), 1, "unsettled"),
        (seen(live=3, booted=3), -1, "unsettled"),
        (seen(booted=3), 1, "unsettled"),
        (seen(changing=5), 1, "unsettled"),
    ],
)
def test_what_stands_in_the_way(found: control.Seen, step: Any, expected: str | None) -> None:
    refused = control.obstacle(found, control.Change(step, 4))
    assert (refused.error if refused else None) == expected


def test_there_is_a_hard_bound() -> None:
    most = control.MOST_WORKERS
    at_most = control.Seen(target=most, live=most, booted=most)
    refused = control.obstacle(at_most, control.Change(1, most))
    assert refused is not None
    assert refused.error == "limit"
    assert control.obstacle(at_most, control.Change(-1, most)) is None


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer \xff"]
)
def test_only_the_whole_token_is_right(ground: Ground, header: str) -> None:
    with pytest.raises(Refused) as refused:
        guard.Guard(ground.token).admit("10.0.0.1", header)
    assert refused.value.status == 401
    guard.Guard(ground.token).admit("10.0.0.1", f"bearer  {TOKEN} ")


def test_one_address_does_not_keep_another_waiting_and_only_so_many_are_remembered(ground: Ground) -> None:
    found = guard.Guard(ground.token)
    for number in range(guard._MOST_ADDRESSES + 10):
        with pytest.raises(Refused):
            found.admit(f"address {number}", "Bearer wrong")
    assert len(found._waits) == guard._MOST_ADDRESSES
    found.admit("10.0.0.1", f"Bearer {TOKEN}")
    with pytest.raises(Refused) as refused:
        found.admit(f"address {number}", f"Bearer {TOKEN}")
    assert refused.value.status == 429
    assert found.unauthorized == guard._MOST_ADDRESSES + 11


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"x" * 5000, None])
def test_a_token_file_of_no_use_lets_nobody_in(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "odd"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises(Refused) as refused:
        guard.Guard(path).admit("10.0.0.1", f"Bearer {(content or b'').strip().decode()}")
    assert (refused.value.status, refused.value.error) == (503, "no_token")


def test_a_token_that_all_may_read_is_one_warning(ground: Ground) -> None:
    ground.token.chmod(0o644)
    server = ground.start()
    for _ in range(3):
        assert refusal(ask(server, 1, 7)) == (409, "target")
    assert len(told(server, "anybody on this machine may read the control token")) == 1
    assert stat.S_IMODE(ground.token.stat().st_mode) == 0o644, "it is read, and left as it is"


def test_only_exact_json_is_taken(shared: Shared) -> None:
    _, server = shared
    good = {"change": 1, "expected": 2}
    for body in (
        *({"change": change, "expected": 2} for change in (0, 2, -2, "1", 1.5, None, True, [1])),
        *({"change": 1, "expected": expected} for expected in (-1, "2", 2.5, None, True, 10**9, 10**400, {})),
        *({}, [], "text", {"change": 1}, {"expected": 2}, {**good, "force": True}),
    ):
        assert refusal(send(server, body)) == (400, "malformed"), body
    for raw, content_type, status in (
        (b'{"change": 1, "expected": 2', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"", "application/json", 400),
        (b"[" * 900, "application/json", 400),
        (b'{"change": 1, "expected": 2}' + b" " * 2000, "application/json", 413),
        (iter([b'{"change": 1, "expected": 2}', b" " * 2000]), "application/json", 413),
        (b"change=1&expected=2", "application/x-www-form-urlencoded", 415),
        (b'{"change": 1, "expected": 2}', "text/plain", 415),
    ):
        answer = requests.post(
            f"{server.agent_url}/workers",
            data=raw,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type},
            timeout=20,
        )
        assert refusal(answer) == (status, "malformed"), raw
    assert requests.get(f"{server.agent_url}/workers", timeout=5).status_code == 405
    assert workers(server) == {"target": 2, "live": 2, "booted": 2}
    assert told(server, "workers changed") == []


def files(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir()}


def test_a_check_leaves_the_running_server_alone(ground: Ground) -> None:
    """It finds what the master was started with, and neither the state directory nor the port nor a hook is touched."""
    conf = ground.on_disk.with_name("served.conf.py")
    conf.write_text(
        "import runpy\nglobals().update(runpy.run_path('gunicorn.conf.py'))\nraw_env = ['ADDED_BY_CONF=yes']\n"
    )
    server = ground.start(GUNICORN_CMD_ARGS=f"-c {conf}", OWN="as it was")
    report = ground.directory / "report.py"
    ground.on_disk.write_text(
        "import json, os, sys\n"
        f"with open({str(report)!r}, 'w') as file:\n"
        "    json.dump({'env': dict(os.environ), 'argv': sys.argv, 'cwd': os.getcwd(), 'path': sys.path[:3]}, file)\n"
        "raise SystemExit(7)\n"
    )
    before = files(server.state_directory), server.metrics(), sorted(each.pid for each in server.children())
    assert refusal(ask(server, 1, 2)) == (422, "broken")
    found = json.loads(report.read_text())
    assert found["argv"][1:] == ["--check-config", "on_disk:create_app()"]
    assert found["cwd"] == str(ROOT)
    env = found["env"]
    assert (env["OWN"], env["ADDED_BY_CONF"], env["PYTHONPATH"]) == ("as it was", "yes", server.env["PYTHONPATH"])
    assert env["OBSERVABILITY_DIR"] != str(server.state_directory)
    assert not Path(env["OBSERVABILITY_DIR"]).exists(), "nothing is left of it"
    after = files(server.state_directory), server.metrics(), sorted(each.pid for each in server.children())
    assert after[0] == before[0], "no slot is claimed, no file made or replaced"
    assert after[2] == before[2], "no agent is started"
    for name in ("observability_agent_starts_total", "gunicorn_workers", "gunicorn_worker_exits_total"):
        assert after[1].sum(name) == before[1].sum(name)
    assert len(told(server, "settings")) == 1, "no server has started"


def test_a_check_that_hangs_is_ended_for_good(shared: Shared, tmp_path: Path) -> None:
    """With what it has started, though that holds its output open, and though it prints without end."""
    ground, server = shared
    pids = tmp_path / "pids"
    ground.on_disk.write_text(
        "import os, subprocess, sys, time\n"
        f"open({str(pids)!r}, 'w').write(f\"{{os.getpid()}} {{subprocess.Popen(['sleep', '600']).pid}}\")\n"
        "while True: print('x' * 65536, file=sys.stderr)\n"
    )
    for seconds in (1.5, 10, 60):  # on a busy machine it takes longer to begin
        assert check_config.check(server.pid, seconds) == f"it took longer than {seconds:g} s"
        if pids.exists():
            break
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not psutil.pid_exists(pid), what="the end of its processes")


def test_a_child_that_a_good_app_leaves_is_not_waited_for(shared: Shared, tmp_path: Path) -> None:
    ground, server = shared
    pid = tmp_path / "pid"
    ground.on_disk.write_text(
        f"import subprocess\nopen({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n" + GOOD
    )
    assert check_config.check(server.pid, 20) == ""
    wait_until(lambda: not psutil.pid_exists(int(pid.read_text())))


@pytest.mark.alone
def test_the_agent_answers_all_others_during_a_check_however_long(ground: Ground) -> None:
    """Longer than any other connection may last, here."""
    server = ground.start()
    ground.on_disk.write_text("import time; time.sleep(11)\n" + GOOD)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, 1, 2)
        with Asking(server.agent_port) as asking:
            wait_until(lambda: refusal(ask(server, 1, 2)) == (409, "busy"))
            time.sleep(1)
        asking.check()
        ground.on_disk.write_text(GOOD)  # the check has read it: the worker that follows need not sleep
        assert answer.result(60).status_code == 200


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python3", "/v/bin/gunicorn", "app:app"], ["python3", "/v/bin/gunicorn", "--check-config", "app:app"]),
        (["py", "-m", "gunicorn", "--", "a:b"], ["py", "-m", "gunicorn", "--check-config", "--", "a:b"]),
        (["gunicorn: master [app:app]"], None),
        (["python3", "serve.py"], None),
        ([""], None),
    ],
)
def test_only_gunicorn_itself_is_run(command: list[str], expected: list[str] | None) -> None:
    if expected:
        assert check_config.checking(command) == expected
    else:
        with pytest.raises(check_config.UncheckedError, match="not gunicorn's"):
            check_config.checking(command)


def test_nothing_is_changed_while_the_master_stands_still(shared: Shared) -> None:
    _, server = shared
    server.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED)
        assert refusal(ask(server, -1, 2)) == (409, "stopping")
    finally:
        server.signal(signal.SIGCONT)
    assert wait_until(lambda: ask(server, -1, 2).status_code == 200)
    settled(server, 1)
    assert ask(server, 1, 1).status_code == 200
    settled(server, 2)


def test_no_signal_goes_to_a_process_that_is_not_the_master(ground: Ground) -> None:
    """A pid may be another process's by now, and these signals stop one that does not expect them."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            hand = control.Control(View(ground.directory, master=stranger.pid), ground.token)
            with pytest.raises(Refused, match="is gone"):
                hand._signal(control.Change(-1, 2), "10.0.0.1")
            assert psutil.Process(stranger.pid).status() != psutil.STATUS_STOPPED
        finally:
            stranger.kill()
    parent = control.Control(View(ground.directory, master=os.getppid()), ground.token)
    assert parent._is_ours()
    parent._started = "1"
    assert not parent._is_ours(), "the same number, and another process"


def test_a_sidecar_changes_nothing(ground: Ground) -> None:
    port = free_port()
    env = {**os.environ, "OBSERVABILITY_DIR": str(ground.directory), "OBSERVABILITY_AGENT_PORT": str(port)}
    env[SETTING] = str(ground.token)
    command = [sys.executable, "-m", "observability", "agent"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as sidecar:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: requests.get(url, timeout=2))
            asked = requests.post(f"{url}/workers", json={"change": 1, "expected": 1}, timeout=5)
            assert asked.status_code == 404
        finally:
            sidecar.terminate()
        assert sidecar.stdout is not None
        assert "a sidecar changes no workers" in sidecar.stdout.read()


def test_a_server_that_is_gone_is_unreachable(ground: Ground) -> None:
    assert action.Control("", ground.token).change(f"127.0.0.1:{free_port()}", 1, 2) == action.Unreachable(
        "nothing answers"
    )
