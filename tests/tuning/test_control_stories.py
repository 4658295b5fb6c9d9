"""`POST /workers` on real servers, where it takes its time: these run at once, and what takes longest comes first."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from observability.agent import control
from observability.tuning import action
from tests.server import wait_until
from tests.tuning.control_parts import (
    CLASSES,
    GOOD,
    SETTING,
    TOKEN,
    Client,
    Cut,
    Ground,
    ask,
    refusal,
    settled,
    told,
    workers,
)

pytestmark = pytest.mark.alone

AT_ONCE = 6
STORIES: dict[str, Callable[[Ground], None]] = {}


def story(*cases: tuple[str, ...]) -> Callable[[Callable[..., None]], None]:
    """Have a function be told once for each case, beside all others."""

    def add(tell: Callable[..., None]) -> None:
        for case in cases:
            STORIES["-".join([tell.__name__, *case])] = lambda ground, case=case: tell(ground, *case)

    return add


@story(())
def nothing_is_changed_during_a_reload_and_soon_after(ground: Ground) -> None:
    server = ground.start(GUNICORN_WORKER_CLASS="gthread")
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


@story(*((each,) for each in CLASSES))
def a_worker_more_and_a_worker_less(ground: Ground, worker_class: str) -> None:
    server = ground.start(GUNICORN_WORKER_CLASS=worker_class)
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


@story(())
def of_callers_at_once_exactly_one_wins(ground: Ground) -> None:
    server = ground.start()
    for expected in (2, 3):
        together = threading.Barrier(6)

        def call(_: int, expected: int = expected, together: threading.Barrier = together) -> int:
            together.wait()
            return ask(server, 1, expected).status_code

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(call, range(6))) == [200, *[409] * 5]
        settled(server, expected + 1)
    assert len(told(server, "workers changed")) == 2


@story(())
def a_change_waits_for_the_one_before(ground: Ground) -> None:
    server = ground.start(WEB_CONCURRENCY="1")
    ground.on_disk.write_text("import time; time.sleep(1.5)\n" + GOOD)
    assert ask(server, 1, 1).status_code == 200
    assert refusal(ask(server, 1, 2)) == (409, "unsettled")
    assert refusal(ask(server, -1, 2)) == (409, "unsettled")
    settled(server, 2)
    assert ask(server, -1, 2).status_code == 200


@story(())
def without_a_token_there_is_no_control(ground: Ground) -> None:
    without = ground.start(**{SETTING: ""})
    assert ask(without, 1, 2).status_code == 404
    assert without.state()["agent"]["control"] is None
    server = ground.start()
    ground.token.unlink()
    assert refusal(ask(server, 1, 2)) == (404, "off"), "to take the file away is to switch it off"
    ground.token.write_text(TOKEN)
    assert ask(server, 1, 2).status_code == 200
    assert without.agent("/metrics").status_code == server.agent("/metrics").status_code == 200


@story(())
def a_token_that_goes_during_the_check_goes_for_the_change_as_well(ground: Ground) -> None:
    server = ground.start()
    checked = ground.on_disk.with_name("checked")
    ground.on_disk.write_text(f"import time; open({str(checked)!r}, 'w').close(); time.sleep(2)\n" + GOOD)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, server, 1, 2)
        wait_until(checked.exists, what="the check")
        ground.token.unlink()
        assert refusal(asked.result(60)) == (404, "off")
    assert workers(server) == {"target": 2, "live": 2, "booted": 2}


@story(())
def a_new_token_holds_at_once(ground: Ground) -> None:
    server = ground.start()
    ground.token.write_text("another-horse-entirely")
    assert refusal(ask(server, 1, 2)) == (401, "unauthorized")
    assert wait_until(lambda: ask(server, 1, 2, "another-horse-entirely").status_code == 200)


@story(())
def a_wrong_token_is_counted_told_and_slow(ground: Ground) -> None:
    server = ground.start()
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


@story(("sync", "app"), ("gthread", "app"), ("gevent", "app"), ("gevent", "configuration"))
def a_broken_release_on_disk_is_refused_and_the_server_goes_on(ground: Ground, worker_class: str, broken: str) -> None:
    conf = ground.on_disk.with_name("served.conf.py")
    conf.write_text("import runpy\nglobals().update(runpy.run_path('gunicorn.conf.py'))\n")
    server = ground.start(GUNICORN_WORKER_CLASS=worker_class, GUNICORN_CMD_ARGS=f"-c {conf}")
    before = sorted(server.worker_pids())
    victim = ground.on_disk if broken == "app" else conf
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


@story(())
def without_the_check_a_broken_release_would_take_the_server_down(ground: Ground) -> None:
    """Show what the check is for: the same signal, sent by hand."""
    server = ground.start()
    ground.on_disk.write_text("raise LookupError('this release has no heart')\n")
    server.signal(signal.SIGTTIN)
    assert server.process is not None
    assert server.process.wait(20) == 3


@story(("", "200"), ("preload_app = True", "200"), ("preload_app = False", "422"))
def only_a_preloaded_app_needs_no_check(ground: Ground, conf: str, status: str) -> None:
    """Whatever the environment says: the configuration may say otherwise."""
    path = ground.on_disk.with_name("served.conf.py")
    path.write_text(f"import runpy\nglobals().update(runpy.run_path('gunicorn.conf.py'))\n{conf}\n")
    preload = int(not conf.endswith("True"))
    server = ground.start(GUNICORN_PRELOAD=preload, GUNICORN_CMD_ARGS=f"-c {path}")
    ground.on_disk.write_text("raise LookupError('this release has no heart')\n")
    assert ask(server, 1, 2).status_code == int(status)
    settled(server, 3 if status == "200" else 2)
    assert server.metrics().sum("gunicorn_preloaded") == (status == "200")


@story(())
def a_reload_may_preload_and_then_it_stays_so(ground: Ground) -> None:
    path = ground.on_disk.with_name("served.conf.py")
    usual = "import runpy\nglobals().update(runpy.run_path('gunicorn.conf.py'))\n"
    path.write_text(usual)
    server = ground.start(GUNICORN_CMD_ARGS=f"-c {path}")
    for reloads, conf, preloaded in ((1, "preload_app = True\n", 1), (2, "", 1)):
        assert server.metrics().sum("gunicorn_preloaded") == (reloads > 1)
        path.write_text(usual + conf)
        server.signal(signal.SIGHUP)
        wait_until(lambda reloads=reloads: server.metrics().sum("gunicorn_reloads_total") == reloads)
        assert wait_until(lambda preloaded=preloaded: server.metrics().sum("gunicorn_preloaded") == preloaded)
        settled(server, 2)


@story(())
def nothing_is_changed_as_the_server_stops(ground: Ground) -> None:
    server = ground.start(GUNICORN_WORKER_CLASS="gthread")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.get, "/sleep/3")
        wait_until(lambda: server.metrics().sum("http_server_active_requests") >= 1)
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.state()["server"]["workers_live"] == 1)
        assert refusal(ask(server, 1, 2)) == (409, "stopping")
        assert slow.result(20).status_code == 200
    assert server.process is not None
    assert server.process.wait(20) == 0


@story(())
def nothing_is_changed_during_an_upgrade(ground: Ground) -> None:
    server = ground.start()
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


@story(())
def a_master_that_takes_its_time_is_not_asked_twice(ground: Ground) -> None:
    conf = ground.on_disk.with_name("slow.conf.py")
    conf.write_text(
        "import runpy as _runpy, time as _time\n"
        "globals().update(_runpy.run_path('gunicorn.conf.py'))\n"
        "_changed = nworkers_changed\n"
        "def nworkers_changed(server, new, old):\n"
        f"    _time.sleep({control.TAKEN_SECONDS + 2} if old and new > old else 0)\n"
        "    _changed(server, new, old)\n"
    )
    server = ground.start(GUNICORN_CMD_ARGS=f"-c {conf}")
    assert refusal(ask(server, 1, 2)) == (504, "unconfirmed")
    assert refusal(ask(server, 1, 2)) == (409, "unsettled")
    settled(server, 3)
    assert len(told(server, "a change of workers is not taken yet")) == 1
    assert ask(server, -1, 3).status_code == 200


@story(*((each,) for each in CLASSES))
def no_request_fails_when_workers_come_and_go(ground: Ground, worker_class: str) -> None:
    server = ground.start(GUNICORN_WORKER_CLASS=worker_class, GUNICORN_THREADS="4", GUNICORN_KEEPALIVE="2")
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


@story(())
def the_tuner_changes_refuses_and_loses(ground: Ground) -> None:
    server = ground.start()
    hand = action.Control("", ground.token)
    where = f"127.0.0.1:{server.agent_port}"
    assert hand.change(where, 1, 2) == action.Changed(3)
    settled(server, 3)
    refused = hand.change(where, 1, 2)
    assert isinstance(refused, action.Refused)
    assert (refused.status, refused.error, refused.target) == (409, "target", 3)
    with Cut(server.agent_port, back=False) as cut:
        lost = action.Control(cut.url, ground.token).change("ignored", 1, 3)
        assert isinstance(lost, action.Unreachable)
        assert lost.unknown
        assert cut.lost == 1, "it is not asked twice"
        assert workers(server)["target"] == 3
    with Cut(server.agent_port, back=True) as cut:
        assert action.Control(cut.url, ground.token).change("ignored", 1, 3) == action.Changed(4)
        assert cut.lost == 1
    settled(server, 4)
    stranger = ground.directory / "stranger"
    stranger.write_text("a token of somebody else")
    wrong = action.Control("", stranger).change(where, 1, 4)
    assert isinstance(wrong, action.Refused)
    assert wrong.status == 401
    assert [line["workers_after"] for line in told(server, "workers changed")] == [3, 4]


@pytest.fixture(scope="module")
def told_at_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """Begin all stories that were asked for."""

    def tell(name: str) -> None:
        with Ground(tmp_path_factory.mktemp("ground")) as ground:
            STORIES[name](ground)

    asked = [item.callspec.params["name"] for item in request.session.items if item.fspath == request.node.fspath]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(tell, name) for name in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", STORIES)
def test_control(told_at_once: dict[str, Future[None]], name: str) -> None:
    told_at_once[name].result()
