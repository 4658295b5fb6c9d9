"""`POST /workers` on real servers: one worker more or less, where that is safe, and nothing else ever."""

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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

TOKEN = "correct-horse-battery"
each_class = pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
GOOD = "from tests.probe_app import create_app\n"
SETTING = "OBSERVABILITY_CONTROL_TOKEN_FILE"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """Give the file of an app that a test can change under a server: `app="on_disk:create_app()"`."""
    directory = tmp_path / "release"
    directory.mkdir()
    (directory / "on_disk.py").write_text(GOOD)
    return directory / "on_disk.py"


@pytest.fixture
def start(serve: Callable[..., Server], token: Path, on_disk: Path) -> Callable[..., Server]:
    """Start a server that takes changes, of the app on disk."""

    def start(app: str = "on_disk:create_app()", **env: Any) -> Server:
        search = f"{on_disk.parent}{os.pathsep}{ROOT}"
        return serve(app, **{SETTING: token, "PYTHONPATH": search, "GUNICORN_WORKER_CLASS": "sync"} | env)

    return start


def ask(server: Server, step: object, expected: object, token: str = TOKEN) -> requests.Response:
    return send(server, {"change": step, "expected": expected}, token)


def send(server: Server, body: object, token: str = TOKEN) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{server.agent_url}/workers", json=body, headers=headers, timeout=60)


def refusal(answer: requests.Response) -> tuple[int, str]:
    assert set(answer.json()) >= {"error", "detail"}
    return answer.status_code, answer.json()["error"]


def workers(server: Server) -> dict[str, float]:
    return server.metrics().by("state", "gunicorn_workers")


def settled(server: Server, count: int) -> None:
    def booted() -> bool:
        found = server.state()
        alive = [worker["booted"] for worker in found["workers"]]
        return alive == [True] * count and found["server"]["workers_target"] == count

    wait_until(booted, what=f"{count} booted workers")


def told(server: Server, body: str) -> list[dict[str, Any]]:
    return [line for line in server.lines() if line["body"] == body]


# What it does


@each_class
def test_a_worker_more_and_a_worker_less(start: Callable[..., Server], worker_class: str) -> None:
    server = start(GUNICORN_WORKER_CLASS=worker_class)
    oldest = min(server.state()["workers"], key=lambda worker: worker["slot"])["pid"]
    up = ask(server, 1, 2)
    assert (up.status_code, up.json()) == (200, {"target": 3})
    assert workers(server)["target"] == 3, "it is seen at once"
    settled(server, 3)
    down = ask(server, -1, 3)
    assert (down.status_code, down.json()) == (200, {"target": 2})
    assert workers(server)["target"] == 2
    settled(server, 2)
    assert oldest not in server.worker_pids(), "gunicorn removes the oldest"
    lines = told(server, "workers changed")
    assert [(each["workers_before"], each["workers_after"], each["signal"]) for each in lines] == [
        (2, 3, "SIGTTIN"),
        (3, 2, "SIGTTOU"),
    ]
    assert {(each["client.address"], each["role"]) for each in lines} == {("127.0.0.1", "agent")}
    assert server.state()["agent"]["control"] == {"changes": 2, "unauthorized": 0}
    assert TOKEN not in server.log_path.read_text()


@pytest.mark.parametrize("expected", [1, 3, 0, 1024])
def test_whoever_expects_another_target_changes_nothing(start: Callable[..., Server], expected: int) -> None:
    server = start()
    answer = ask(server, 1, expected)
    assert refusal(answer) == (409, "target")
    assert (answer.json()["target"], answer.json()["live"]) == (2, 2), "it says what is so"
    assert workers(server) == {"target": 2, "live": 2}


def test_of_callers_at_once_exactly_one_wins(start: Callable[..., Server]) -> None:
    server = start()
    for expected in (2, 3):
        together = threading.Barrier(6)

        def call(_: int, expected: int = expected, together: threading.Barrier = together) -> int:
            together.wait()
            return ask(server, 1, expected).status_code

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(call, range(6))) == [200, *[409] * 5]
        settled(server, expected + 1)
    assert len(told(server, "workers changed")) == 2


def test_a_change_waits_for_the_one_before(start: Callable[..., Server], on_disk: Path) -> None:
    server = start(WEB_CONCURRENCY="1")
    on_disk.write_text("import time; time.sleep(1.5)\n" + GOOD)
    assert ask(server, 1, 1).status_code == 200
    assert refusal(ask(server, 1, 2)) == (409, "unsettled")
    assert refusal(ask(server, -1, 2)) == (409, "unsettled")
    settled(server, 2)
    assert ask(server, -1, 2).status_code == 200


def test_the_last_worker_stays(start: Callable[..., Server]) -> None:
    server = start(WEB_CONCURRENCY="1")
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


# Who may


def test_without_a_token_there_is_no_control(start: Callable[..., Server], token: Path) -> None:
    without = start(**{SETTING: ""})
    assert ask(without, 1, 2).status_code == 404
    assert without.state()["agent"]["control"] is None
    server = start()
    token.unlink()
    assert refusal(ask(server, 1, 2)) == (404, "off"), "to take the file away is to switch it off"
    token.write_text(TOKEN)
    assert ask(server, 1, 2).status_code == 200
    assert without.agent("/metrics").status_code == server.agent("/metrics").status_code == 200


def test_a_new_token_holds_at_once(start: Callable[..., Server], token: Path) -> None:
    server = start()
    token.write_text("another-horse-entirely")
    assert refusal(ask(server, 1, 2)) == (401, "unauthorized")
    assert wait_until(lambda: ask(server, 1, 2, "another-horse-entirely").status_code == 200)


def test_a_wrong_token_is_counted_told_and_slow(start: Callable[..., Server]) -> None:
    server = start()
    first = ask(server, 1, 2, "wrong")
    assert refusal(first) == (401, "unauthorized")
    assert first.headers["WWW-Authenticate"] == "Bearer"
    begun, tried, last = time.monotonic(), 0, first
    while time.monotonic() - begun < 2.5:
        last = ask(server, 1, 2, "wrong")
        tried += last.status_code == 401
    assert tried <= 2, "after 1 s, and not again before 2 more"
    assert last.status_code == 429
    assert 1 <= int(last.headers["Retry-After"]) <= 3
    assert ask(server, 1, 2).status_code == 429, "nor is a right one looked at then"
    assert workers(server)["target"] == 2
    assert server.state()["agent"]["control"]["unauthorized"] > 3
    warnings = told(server, "a change of workers was asked for without the right token")
    assert [line["client.address"] for line in warnings] == ["127.0.0.1"], "one line for all of them"
    wait_until(lambda: ask(server, 1, 2).status_code == 200)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer \xff"]
)
def test_only_the_whole_token_is_right(token: Path, header: str) -> None:
    with pytest.raises(Refused) as refused:
        guard.Guard(token).admit("10.0.0.1", header)
    assert refused.value.status == 401
    guard.Guard(token).admit("10.0.0.1", f"bearer  {TOKEN} ")


def test_one_address_does_not_keep_another_waiting_and_only_so_many_are_remembered(token: Path) -> None:
    found = guard.Guard(token)
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


def test_a_token_that_all_may_read_is_one_warning(start: Callable[..., Server], token: Path) -> None:
    token.chmod(0o644)
    server = start()
    for _ in range(3):
        assert refusal(ask(server, 1, 7)) == (409, "target")
    assert len(told(server, "anybody on this machine may read the control token")) == 1
    assert stat.S_IMODE(token.stat().st_mode) == 0o644, "it is read, and left as it is"


# What it takes


def test_only_exact_json_is_taken(start: Callable[..., Server]) -> None:
    server = start()
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
    assert workers(server) == {"target": 2, "live": 2}
    assert told(server, "workers changed") == []


# What is on disk


@pytest.mark.parametrize(
    ("worker_class", "broken"),
    [("sync", "app"), ("gthread", "app"), ("gevent", "app"), ("gevent", "configuration")],
)
def test_a_broken_release_on_disk_is_refused_and_the_server_goes_on(
    start: Callable[..., Server], on_disk: Path, worker_class: str, broken: str
) -> None:
    conf = on_disk.with_name("served.conf.py")
    conf.write_text("import runpy\nglobals().update(runpy.run_path('gunicorn.conf.py'))\n")
    server = start(GUNICORN_WORKER_CLASS=worker_class, GUNICORN_CMD_ARGS=f"-c {conf}")
    before = sorted(server.worker_pids())
    victim = on_disk if broken == "app" else conf
    good = victim.read_text()
    victim.write_text("raise LookupError('this release has no heart')\n")
    answer = ask(server, 1, 2)
    assert refusal(answer) == (422, "broken")
    assert answer.json()["detail"].endswith("LookupError: this release has no heart"), "the error's last line"
    assert len(told(server, "no worker is added, since it could not boot")) == 1
    assert sorted(server.worker_pids()) == before
    assert server.get("/").status_code == 200
    assert ask(server, -1, 2).status_code == 200, "one less boots nothing"
    settled(server, 1)
    victim.write_text(good)
    assert ask(server, 1, 1).status_code == 200
    settled(server, 2)


def test_without_the_check_a_broken_release_would_take_the_server_down(
    start: Callable[..., Server], on_disk: Path
) -> None:
    """Show what the check is for: the same signal, sent by hand."""
    server = start()
    on_disk.write_text("raise LookupError('this release has no heart')\n")
    server.signal(signal.SIGTTIN)
    assert server.process is not None
    assert server.process.wait(20) == 3


def test_a_preloaded_app_needs_no_check(start: Callable[..., Server], on_disk: Path) -> None:
    server = start(GUNICORN_PRELOAD="1")
    on_disk.write_text("raise LookupError('this release has no heart')\n")
    assert ask(server, 1, 2).status_code == 200
    settled(server, 3)


def files(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir()}


def test_a_check_leaves_the_running_server_alone(start: Callable[..., Server], on_disk: Path, tmp_path: Path) -> None:
    """It finds what the master was started with, and neither the state directory nor the port nor a hook is touched."""
    conf = on_disk.with_name("served.conf.py")
    conf.write_text(
        "import runpy\nglobals().update(runpy.run_path('gunicorn.conf.py'))\nraw_env = ['ADDED_BY_CONF=yes']\n"
    )
    server = start(GUNICORN_CMD_ARGS=f"-c {conf}", OWN="as it was")
    report = tmp_path / "report.py"
    on_disk.write_text(
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


def test_a_check_that_hangs_is_ended_for_good(start: Callable[..., Server], on_disk: Path, tmp_path: Path) -> None:
    """With what it has started, though that holds its output open, and though it prints without end."""
    server = start()
    pids = tmp_path / "pids"
    on_disk.write_text(
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


def test_a_child_that_a_good_app_leaves_is_not_waited_for(
    start: Callable[..., Server], on_disk: Path, tmp_path: Path
) -> None:
    server = start()
    pid = tmp_path / "pid"
    on_disk.write_text(
        f"import subprocess\nopen({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n" + GOOD
    )
    assert check_config.check(server.pid, 20) == ""
    wait_until(lambda: not psutil.pid_exists(int(pid.read_text())))


def test_the_agent_answers_all_others_during_a_check_however_long(start: Callable[..., Server], on_disk: Path) -> None:
    """Longer than any other connection may last, here."""
    server = start()
    on_disk.write_text("import time; time.sleep(11)\n" + GOOD)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, 1, 2)
        with Asking(server.agent_port) as asking:
            wait_until(lambda: refusal(ask(server, 1, 2)) == (409, "busy"))
            time.sleep(1)
        asking.check()
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


# When it is not the time


def test_nothing_is_changed_during_a_reload_and_soon_after(start: Callable[..., Server]) -> None:
    server = start(GUNICORN_WORKER_CLASS="gthread")
    assert ask(server, 1, 2).status_code == 200
    settled(server, 3)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.get, "/sleep/4")
        wait_until(lambda: server.metrics().sum("http_server_active_requests") >= 1)
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.metrics().sum("gunicorn_reloads_total") == 1)
        assert refusal(ask(server, 1, 3)) == (409, "target"), "a reload forgets what was added"
        assert refusal(ask(server, 1, 2)) == (409, "reloading"), "and old workers still finish"
        assert slow.result(20).status_code == 200
    settled(server, 2)
    os.kill(server.state()["agent"]["pid"], signal.SIGKILL)  # a new agent does not know when that reload was
    wait_until(lambda: server.metrics().sum("observability_agent_starts_total") == 2)
    assert refusal(ask(server, 1, 2)) == (409, "reloading")
    done = wait_until(lambda: ask(server, 1, 2).status_code == 200, control.RELOAD_SECONDS + 10)
    assert done


def test_nothing_is_changed_as_the_server_stops(start: Callable[..., Server]) -> None:
    server = start(GUNICORN_WORKER_CLASS="gthread")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.get, "/sleep/3")
        wait_until(lambda: server.metrics().sum("http_server_active_requests") >= 1)
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.state()["server"]["workers_live"] == 1)
        assert refusal(ask(server, 1, 2)) == (409, "stopping")
        assert slow.result(20).status_code == 200
    assert server.process is not None
    assert server.process.wait(20) == 0


def test_nothing_is_changed_while_the_master_stands_still(start: Callable[..., Server]) -> None:
    server = start()
    server.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED)
        assert refusal(ask(server, -1, 2)) == (409, "stopping")
    finally:
        server.signal(signal.SIGCONT)
    assert wait_until(lambda: ask(server, -1, 2).status_code == 200)


def test_no_signal_goes_to_a_process_that_is_not_the_master(tmp_path: Path, token: Path) -> None:
    """A pid may be another process's by now, and these signals stop one that does not expect them."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            hand = control.Control(View(tmp_path, master=stranger.pid), token)
            with pytest.raises(Refused, match="is gone"):
                hand._signal(control.Change(-1, 2), "10.0.0.1")
            assert psutil.Process(stranger.pid).status() != psutil.STATUS_STOPPED
        finally:
            stranger.kill()
    parent = control.Control(View(tmp_path, master=os.getppid()), token)
    assert parent._is_ours()
    parent._started = "1"
    assert not parent._is_ours(), "the same number, and another process"


def test_nothing_is_changed_during_an_upgrade(start: Callable[..., Server]) -> None:
    server = start()
    server.signal(signal.SIGUSR2)
    wait_until(lambda: len(server.state()["masters"]) == 2)
    new = next(iter(server.upgraded()))
    assert refusal(ask(server, 1, 2)) == (409, "upgrading")
    assert refusal(ask(server, 1, 4)) == (409, "upgrading")
    server.signal(signal.SIGTERM)
    wait_until(lambda: [master["pid"] for master in server.state()["masters"]] == [new])
    settled(server, 2)
    assert wait_until(lambda: ask(server, 1, 2).status_code == 200, what="the new master to be asked")
    settled(server, 3)


def test_a_master_that_takes_its_time_is_not_asked_twice(start: Callable[..., Server], on_disk: Path) -> None:
    conf = on_disk.with_name("slow.conf.py")
    conf.write_text(
        "import runpy as _runpy, time as _time\n"
        "globals().update(_runpy.run_path('gunicorn.conf.py'))\n"
        "_changed = nworkers_changed\n"
        "def nworkers_changed(server, new, old):\n"
        f"    _time.sleep({control.TAKEN_SECONDS + 2} if old and new > old else 0)\n"
        "    _changed(server, new, old)\n"
    )
    server = start(GUNICORN_CMD_ARGS=f"-c {conf}")
    assert refusal(ask(server, 1, 2)) == (504, "unconfirmed")
    assert refusal(ask(server, 1, 2)) == (409, "unsettled")
    settled(server, 3)
    assert len(told(server, "a change of workers is not taken yet")) == 1
    assert ask(server, -1, 3).status_code == 200


def test_a_sidecar_changes_nothing(token: Path, tmp_path: Path) -> None:
    port = free_port()
    env = {**os.environ, "OBSERVABILITY_DIR": str(tmp_path), "OBSERVABILITY_AGENT_PORT": str(port), SETTING: str(token)}
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


# Load under the change


class Client(threading.Thread):
    """Sends requests until it is told to stop, on a connection that it keeps or on a new one each."""

    def __init__(self, port: int, keeps: bool, over: threading.Event) -> None:
        super().__init__()
        self.port, self.keeps, self.over = port, keeps, over
        self.answered, self.failures = 0, list[str]()

    def run(self) -> None:
        connection = self._connect()
        while not self.over.is_set():
            try:
                connection.request("GET", "/sleep/0.01")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failures.append(str(answer.status))
                if self.keeps and not answer.will_close:
                    continue
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            connection.close()
            connection = self._connect()
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)


@each_class
def test_no_request_fails_when_workers_come_and_go(start: Callable[..., Server], worker_class: str) -> None:
    server = start(GUNICORN_WORKER_CLASS=worker_class, GUNICORN_THREADS="4", GUNICORN_KEEPALIVE="2")
    over = threading.Event()
    clients = [Client(server.port, keeps, over) for keeps in (True, False) * 4]
    for client in clients:
        client.start()
    try:
        for step, expected in ((1, 2), (-1, 3), (1, 2), (-1, 3)):
            assert ask(server, step, expected).status_code == 200
            settled(server, expected + step)
    finally:
        over.set()
        for client in clients:
            client.join(30)
    assert [client.failures for client in clients] == [[]] * len(clients)
    assert all(client.answered >= 10 for client in clients)


# The tuner's side


class Cut:
    """Stands before an agent, and loses what it says to the first who asks: on the way there, or back."""

    def __init__(self, to: int, back: bool) -> None:
        self.to, self.back, self.lost = to, back, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Cut":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client:
                    self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        asked = client.recv(65536)
        posts = asked.startswith(b"POST")
        while posts and b"expected" not in asked:
            asked += client.recv(65536)
        if posts and not self.back:
            self.lost += 1
            return
        with socket.create_connection(("127.0.0.1", self.to)) as agent:
            agent.sendall(asked.replace(b"keep-alive", b"close"))
            answer = b"".join(iter(lambda: agent.recv(65536), b""))
        if posts:
            self.lost += 1
            assert answer.startswith(b"HTTP/1.1 200"), answer
        else:
            client.sendall(answer)


def test_the_tuner_changes_refuses_and_loses(start: Callable[..., Server], token: Path, tmp_path: Path) -> None:
    server = start()
    hand = action.Control("", token)
    where = f"127.0.0.1:{server.agent_port}"
    assert hand.change(where, 1, 2) == action.Changed(3)
    settled(server, 3)
    refused = hand.change(where, 1, 2)
    assert isinstance(refused, action.Refused)
    assert (refused.status, refused.error, refused.target) == (409, "target", 3)
    with Cut(server.agent_port, back=False) as cut:
        lost = action.Control(cut.url, token).change("ignored", 1, 3)
        assert isinstance(lost, action.Unreachable)
        assert lost.unknown
        assert cut.lost == 1, "it is not asked twice"
        assert workers(server)["target"] == 3
    with Cut(server.agent_port, back=True) as cut:
        assert action.Control(cut.url, token).change("ignored", 1, 3) == action.Changed(4)
        assert cut.lost == 1
    settled(server, 4)
    stranger = tmp_path / "stranger"
    stranger.write_text("a token of somebody else")
    wrong = action.Control("", stranger).change(where, 1, 4)
    assert isinstance(wrong, action.Refused)
    assert wrong.status == 401
    assert [line["workers_after"] for line in told(server, "workers changed")] == [3, 4]


def test_a_server_that_is_gone_is_unreachable(token: Path) -> None:
    assert action.Control("", token).change(f"127.0.0.1:{free_port()}", 1, 2) == action.Unreachable("nothing answers")
