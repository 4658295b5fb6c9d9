"""A request's line from its kind's text says the same as one that is put together whole."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability import events, logs, request_lines
from observability.request import Meter, Request
from observability.settings import Settings
from observability.store import Store

texts = st.text(max_size=40) | st.sampled_from(
    ["", "/a%sb%d{}", '"}\n{"', "\x7f\x9b31m\u202e", "\ud800", "https://u:hunter2@h/", "x" * 5000, "/\\\\"]
)


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Meter:
    logs.configure(Settings())
    return Meter(Store(tmp_path_factory.mktemp("state")))


def written(write: Any, *args: Any) -> dict[str, Any]:
    """Return the one line that is written, without its time."""
    found: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "put", lambda _level, data: found.append(data))
        write(*args)
    (data,) = found
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    assert len(data) <= events.output.longest
    line: dict[str, Any] = orjson.loads(data)
    assert next(iter(line)) == "timestamp"
    assert line.pop("timestamp")
    return line


@settings(max_examples=200, deadline=None)
@given(
    path=texts,
    client=texts,
    agent=texts,
    route=st.sampled_from(["/todos/<id>", "/100%", '/"quoted"', "/ü/<x>"]),
    status=st.sampled_from([200, 404]),
    duration=st.floats(0, 1e5),
    queued=st.none() | st.floats(0, 3600),
    cpu=st.none() | st.floats(0, 100),
    sent=st.integers(0, 2**50),
)
def test_both_say_the_same(
    meter: Meter,
    path: str,
    client: str,
    agent: str,
    route: str,
    status: int,
    duration: float,
    queued: float | None,
    cpu: float | None,
    sent: int,
) -> None:
    environ = {"REQUEST_METHOD": "GET", "REMOTE_ADDR": client, "HTTP_USER_AGENT": agent}
    request = Request(meter, environ, path)
    request.abandon()
    request.route, request.status, request.sent, request.queued = route, status, sent, queued
    line = request_lines.Line("http", "", plain=True)
    whole = written(request_lines.write, request, "http", "", duration, cpu)
    for _ in range(2):  # the text is made at the first, and used at the second
        assert written(line.write, request, duration, cpu) == whole


def test_what_the_process_learns_of_itself_is_in_the_next_line(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "process", events.process)
    request = Request(meter, {"REQUEST_METHOD": "GET"}, "/")
    request.abandon()
    request.route, request.status = "/", 200
    line = request_lines.Line("http", "", plain=True)
    assert written(line.write, request, 0.1, None).get("worker") != 777
    logs.bind_process(worker=777)
    assert written(line.write, request, 0.1, None)["worker"] == 777


def test_what_the_app_adds_is_in_the_line_and_takes_nothing_away(meter: Meter) -> None:
    request = Request(meter, {"REQUEST_METHOD": "GET"}, "/")
    request.abandon()
    request.route, request.status = "/", 200
    request.fields = {"todo_id": 3, "url.path": "not this", "password": "hunter2"}
    line = written(request_lines.Line("http", "", plain=True).write, request, 0.1, None)
    assert (line["todo_id"], line["url.path"]) == (3, "/")
    assert "hunter2" not in str(line)


def test_texts_of_clients_are_kept_within_bounds() -> None:
    for number in range(3000):
        request_lines.quoted(f"/{number}")
    request_lines.quoted("x" * 10_000)
    assert len(request_lines._quoted) <= 1024
    assert max(map(len, request_lines._quoted)) <= 128


def test_a_level_above_info_writes_none(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "threshold", events.NUMBERS["warning"])
    monkeypatch.setattr(events, "put", lambda *_: pytest.fail("a line"))
    request = Request(meter, {"REQUEST_METHOD": "GET"}, "/")
    request.abandon()
    request.route, request.status = "/", 200
    request_lines.Line("http", "", plain=True).write(request, 0.1, None)
