"""Faults on purpose: what each does, that none goes beyond its maximum, and that production has none."""

import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from flask.testing import FlaskClient

from app import faults
from tests.server import Server, wait_until

Serve = Callable[..., Server]
NAMES = ["sleep", "cpu", "block", "fail", "leak", "crash", "hold"]


@pytest.fixture
def client(make: Callable[..., FlaskClient]) -> FlaskClient:
    return make(faults=True)


@pytest.fixture(autouse=True)
def _freed() -> None:
    faults.free()


def test_they_are_off_by_default(make: Callable[..., FlaskClient]) -> None:
    client = make()
    assert {client.get(f"/faults{name}").status_code for name in ("", *(f"/{name}" for name in NAMES))} == {404}


@pytest.mark.parametrize("environment", ["production", "Production", "prod"])
def test_production_refuses_them_and_says_so(
    make: Callable[..., FlaskClient], capfd: pytest.CaptureFixture[str], environment: str
) -> None:
    client = make(faults=True, environment=environment)
    assert client.get("/faults").status_code == 404
    assert client.get("/faults/sleep").status_code == 404
    warnings = [line for line in capfd.readouterr().out.splitlines() if "faults.refused" in line]
    assert len(warnings) == 1
    assert "WARN" in warnings[0]


def test_the_list_names_every_fault_with_its_limits(client: FlaskClient) -> None:
    listed = {each["fault"]: each for each in client.get("/faults").json["faults"]}
    assert sorted(listed) == sorted(NAMES)
    assert all(each["about"] and each["path"] == f"/faults/{name}" for name, each in listed.items())
    assert listed["sleep"]["parameters"]["seconds"]["maximum"] == faults.MAX_SLEEP_SECONDS


@pytest.mark.parametrize(
    ("fault", "parameter", "value"),
    [
        ("sleep", "seconds", faults.MAX_SLEEP_SECONDS + 0.1),
        ("sleep", "seconds", "nan"),
        ("sleep", "seconds", "inf"),
        ("sleep", "seconds", -1),
        ("sleep", "second", 1),
        ("cpu", "seconds", faults.MAX_CPU_SECONDS + 1),
        ("block", "seconds", faults.MAX_BLOCK_SECONDS + 1),
        ("block", "gil", "perhaps"),
        ("hold", "seconds", faults.MAX_HOLD_SECONDS + 1),
        ("fail", "rate", 1.01),
        ("leak", "mib", faults.MAX_LEAK_MIB + 1),
        ("leak", "mib", 0),
        ("crash", "code", faults.MAX_EXIT_CODE + 1),
        ("crash", "how", "melt"),
    ],
)
def test_none_goes_beyond_its_maximum(client: FlaskClient, fault: str, parameter: str, value: object) -> None:
    answer = client.post(f"/faults/{fault}", query_string={parameter: value})
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


def ran() -> float:
    """Return for how many seconds this thread had a CPU, or was ready to run and had none: proc(5), schedstat."""
    return time.thread_time() + int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


@pytest.mark.parametrize("fault", ["sleep", "block", "block?gil=1", "cpu", "hold"])
def test_what_takes_time_says_how_long_it_took(client: FlaskClient, fault: str) -> None:
    joint = "&" if "?" in fault else "?"
    before = ran()
    answer = client.get(f"/faults/{fault}{joint}seconds=0.2")
    assert answer.status_code == 200
    assert answer.json["fault"] in fault
    assert answer.json["did"]["seconds"] >= 0.2
    assert (ran() - before >= 0.1) == (fault == "cpu")


def test_fail_fails_at_its_rate(client: FlaskClient) -> None:
    statuses = [client.get("/faults/fail?rate=0.5").status_code for _ in range(60)]
    assert set(statuses) == {200, 500}  # all equal once in 2**59
    assert {client.get("/faults/fail?rate=0").status_code for _ in range(20)} == {200}
    assert {client.get("/faults/fail?rate=1").status_code for _ in range(20)} == {500}


def test_leak_keeps_memory_up_to_its_bound_and_frees_it(client: FlaskClient) -> None:
    def resident() -> int:
        return psutil.Process().memory_info().rss // 2**20

    before = resident()
    for total in (64, 128, 192, 256):
        assert client.post("/faults/leak?mib=64").json["did"]["total_mib"] == total
    assert resident() - before > 200
    refused = client.post("/faults/leak?mib=1")
    assert refused.status_code == 400
    assert [error["parameter"] for error in refused.json["errors"]] == ["mib"]
    assert client.delete("/faults/leak").json["did"]["freed_mib"] == 256
    assert resident() - before < 100
    assert client.post("/faults/leak?mib=1").status_code == 200


def _faulty(serve: Serve, **env: object) -> Server:
    return serve("app:create_app()", FAULTS_ENABLED=1, WEB_CONCURRENCY=1, **env)


def _dies(server: Server, query: str) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{server.url}/faults/crash?{query}", timeout=20)


def test_crash_ends_one_worker_and_the_server_lives_on(serve: Serve) -> None:
    """Each way to die takes the worker at once, is logged before, and a new worker takes over."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    server = _faulty(serve, GUNICORN_WORKER_CLASS="sync")
    for query in ("how=exit&code=7", "how=segv", "how=kill"):
        (dead,) = server.worker_pids()
        _dies(server, query)
        wait_until(lambda dead=dead: server.worker_pids() and dead not in server.worker_pids(), 20, "a new worker")
        wait_until(lambda: server.get("/healthz").status_code == 200, 20, "an answer")
    assert [line["how"] for line in server.lines() if line.get("body") == "fault.crash"] == ["exit", "segv", "kill"]
    assert server.process is not None
    assert server.process.poll() is None


def test_under_gevent_sleep_yields_and_block_does_not(serve: Serve) -> None:
    """While one request sleeps, another is answered; while one blocks, it is not."""
    server = _faulty(serve, GUNICORN_WORKER_CLASS="gevent")

    def answered_during(fault: str) -> bool:
        ended = threading.Event()

        def inject() -> None:
            requests.post(f"{server.url}/faults/{fault}?seconds=3", timeout=20)
            ended.set()

        thread = threading.Thread(target=inject)
        thread.start()
        wait_until(lambda: server.agent("/state").json()["workers"][0]["in_flight"], 3, "the fault's start")
        server.get("/healthz")
        early = not ended.wait(0.5)
        thread.join(20)
        return early

    assert answered_during("sleep")
    assert not answered_during("block")


def _chunks(server: Server, *parts: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(
            b"POST /todos HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts)
        )
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.recv(65536):
            answer += more
        return answer


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_a_real_server_keeps_the_promises(serve: Serve, worker_class: str) -> None:
    """Preloaded or not, in chunks or not: todos are kept, over-long and broken bodies are refused."""
    preload = int(worker_class != "sync")
    server = serve(
        "app:create_app()", GUNICORN_WORKER_CLASS=worker_class, GUNICORN_PRELOAD=preload, MAX_BODY_BYTES=1024
    )
    created = requests.post(f"{server.url}/todos", json={"title": "t"}, timeout=10)
    assert created.status_code == 201
    where = server.url + created.headers["Location"]
    for number in range(30):  # whichever worker answers
        assert requests.put(where, json={"title": str(number)}, timeout=10).status_code == 200
        assert requests.get(where, timeout=10).json()["title"] == str(number)

    body = b'{"title": "t"}'
    assert b" 201 " in _chunks(server, _chunk(body), b"0\r\n\r\n")[:20]
    assert b" 413 " in _chunks(server, _chunk(body), *[_chunk(b" " * 500)] * 3, b"0\r\n\r\n")[:20]
    for broken in (b"zz\r\n", b"ffffffffffffffff\r\nx", _chunk(body), b"5\r\n"):
        assert _chunks(server, broken)[9:12] in (b"400", b""), broken
    assert not [line for line in server.lines() if line["severity_text"] == "ERROR"]


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_a_preloaded_app_shares_no_connection_over_the_fork(serve: Serve, worker_class: str, postgres) -> None:
    """Two workers under load, each with its own pool on one PostgreSQL, agree with no error."""
    server = serve(
        "app:create_app()",
        GUNICORN_WORKER_CLASS=worker_class,
        GUNICORN_PRELOAD=1,
        DATABASE_URL=postgres.url,
        DATABASE_POOL_SIZE=2,
        DATABASE_POOL_OVERFLOW=0,
    )
    statuses: list[int] = []

    def load() -> None:
        for _ in range(25):  # no kept connection: one that idles on a busy machine is closed under the next POST
            made = requests.post(f"{server.url}/todos", json={"title": "t"}, timeout=20)
            read = requests.get(server.url + made.headers["Location"], timeout=20)
            assert read.json() == made.json()
            statuses.extend((made.status_code, read.status_code))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses.count(201) == statuses.count(200) == 200
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.get("/todos").status_code == 200, 20, "an answer after the reload")
