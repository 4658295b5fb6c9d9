"""What a worker that hangs was doing: seen while it hangs, and told after it was killed for it."""

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests

from observability import stacks
from tests.server import Server, wait_until
from tests.sight.test_causes import APPS, CLASSES, causes, lines

each_class = pytest.mark.parametrize("worker_class", CLASSES)
VICTIM, CULPRIT = "a" * 32, "b" * 32
INSIDE = {"sleep": ("in sleep", "in _do"), "burn": ("in burn", "in _do"), "hold": ("in hold", "in _do")}


def send(server: Server, path: str, trace_id: str) -> None:
    """Send a request of a known trace, and do not wait for its answer."""

    def work() -> None:
        with contextlib.suppress(requests.RequestException):  # the worker is killed under it
            server.get(path, timeout=40, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-00"})

    threading.Thread(target=work, daemon=True).start()


def now(server: Server) -> list[dict[str, Any]]:
    return [flight for worker in server.state()["workers"] for flight in worker["now"]]


def timed_out(server: Server) -> dict[str, dict[str, Any]]:
    return {line["trace_id"]: line for line in lines(server, "http.server.request.timeout")}


@each_class
def test_requests_in_flight_are_seen_live_and_with_their_stack(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(APPS[worker_class], GUNICORN_WORKER_CLASS=worker_class, WEB_CONCURRENCY=1)
    send(server, "/sleep/6", VICTIM)
    (flight,) = wait_until(lambda: now(server), 10)
    assert (flight["method"], flight["path"], flight["trace_id"]) == ("GET", "/sleep/6", VICTIM)
    before = flight["age_seconds"]
    wait_until(lambda: now(server)[0]["age_seconds"] > before + 0.3, 10)
    assert 0.3 < server.metrics().sum("gunicorn_worker_oldest_request_age_seconds", worker="1") < 60
    stack = stacks.by_ident(stacks.ask(server.state_directory, 1) or "")
    assert any(place in stack.get(flight["ident"], "") for place in INSIDE["sleep"]), stack
    assert stacks.ask(server.state_directory, 2) is None
    wait_until(lambda: not now(server), 20)
    assert server.get("/sleep/0").status_code == 200  # it was asked, and is well
    assert not causes(server)


@each_class
def test_a_killed_worker_leaves_a_line_for_each_request_with_its_stack(
    serve: Callable[..., Server], worker_class: str
) -> None:
    server = serve(
        APPS[worker_class],
        GUNICORN_WORKER_CLASS=worker_class,
        WEB_CONCURRENCY=1,
        GUNICORN_TIMEOUT=4,
        GUNICORN_GRACEFUL_TIMEOUT=2,
        GUNICORN_THREADS=4,
    )
    alone = worker_class == "sync"
    if not alone:
        send(server, "/sleep/30", VICTIM)
        wait_until(lambda: len(now(server)) == 1, 10)
    send(server, "/hold", CULPRIT)
    wait_until(lambda: causes(server)["timeout"] == 1, 30)
    wait_until(lambda: CULPRIT in timed_out(server), 10)
    told = timed_out(server)
    assert set(told) == {CULPRIT} if alone else {CULPRIT, VICTIM}
    line = told[CULPRIT]
    assert line["severity_text"] == "ERROR"
    assert line["url.path"] == "/hold"
    assert line["age_seconds"] >= 2
    assert any(place in line["code.stacktrace"] for place in INSIDE["hold"]), line
    assert line["stack_of"] == ("request" if worker_class in ("sync", "gthread") else "worker")
    if worker_class == "gthread":
        assert "in sleep" in told[VICTIM]["code.stacktrace"]
    (ended,) = lines(server)
    assert {each["trace_id"] for each in ended["requests_in_flight"]} == set(told)


@pytest.mark.parametrize("worker_class", ["sync", "gevent", "asgi"])
def test_a_worker_that_is_busy_in_python_says_more(serve: Callable[..., Server], worker_class: str) -> None:
    server = serve(
        APPS[worker_class],
        GUNICORN_WORKER_CLASS=worker_class,
        WEB_CONCURRENCY=1,
        GUNICORN_TIMEOUT=4,
        GUNICORN_GRACEFUL_TIMEOUT=2,
    )
    if worker_class == "gevent":
        send(server, "/sleep/30", VICTIM)
        wait_until(lambda: len(now(server)) == 1, 10)
    hostile = worker_class == "gevent"  # a line separator of Unicode's, which is none of JSON's
    send(server, "/burn/60%E2%80%A8" if hostile else "/burn/60", CULPRIT)
    wait_until(lambda: CULPRIT in timed_out(server), 30)
    told = timed_out(server)
    assert any(place in told[CULPRIT]["code.stacktrace"].splitlines()[0] for place in INSIDE["burn"]), told
    if worker_class != "asgi":  # its signal handlers run on the loop, which is blocked
        assert told[CULPRIT]["http.route"] == "/burn/<seconds>"
        assert told[CULPRIT]["stack_of"] == "request"
    if worker_class == "gevent":
        assert "in sleep" in told[VICTIM]["code.stacktrace"]
        assert told[VICTIM]["http.route"] == "/sleep/<seconds>"
    assert server.get("/sleep/0").status_code == 200


@each_class
def test_a_worker_that_leaves_is_not_killed_by_who_asks(
    serve: Callable[..., Server], worker_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_SHARED_SECONDS", 0.0)  # each ask is a signal, so that one falls into the end
    server = serve(APPS[worker_class], GUNICORN_WORKER_CLASS=worker_class)
    leave = threading.Event()

    def ask() -> None:
        while not leave.is_set():
            for slot in range(1, 5):
                stacks.ask(server.state_directory, slot)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(1, 4):
            server.signal(signal.SIGHUP)
            wait_until(lambda: causes(server).total() >= 2 * number, 30, "the old workers' end")  # noqa: B023
            server.wait_ready()
    finally:
        leave.set()
        asking.join(20)
    assert causes(server) == {"reloaded": 6}


def test_a_signal_that_asks_for_stacks_reaches_no_process_that_does_not_take_it(serve: Callable[..., Server]) -> None:
    server = serve()
    server.signal(signal.SIGSTOP)  # the master: its workers go on
    assert "most recent call first" in str(stacks.ask(server.state_directory, 1))
    server.signal(signal.SIGCONT)
    assert stacks.ask(server.state_directory, 77) is None
    assert stacks.ask(server.directory / "nowhere", 1) is None
