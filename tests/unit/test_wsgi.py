"""The middleware around any WSGI application: nothing it does may change an answer."""

import contextlib
import contextvars
import gc
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

import observability
from observability import context, exposition, layout, runtime
from observability.page import Page
from observability.scrape import Scraper
from observability.store import OVERFLOW, Store
from observability.wsgi import Middleware, WSGIRequest

DURATION = "http_server_request_duration_seconds"
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@pytest.fixture(params=["any server", "gunicorn"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("OBSERVABILITY_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OBSERVABILITY_MAX_LABEL_SETS", "10")
    made = Store(tmp_path / "state")
    made.claims_lazily = request.param == "any server"
    made.claim()
    yield made
    made.slot.close()
    assert context.current.get() is None, "what comes next is not the request that was"


def environ(**more: str) -> dict[str, Any]:
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1", **more}


class Answer:
    """Runs an app as a WSGI server would, and keeps what it was told."""

    def __init__(self, app: Any, most: int | None = None, **more: str) -> None:
        self.status = ""
        self.body = b""
        body = app(environ(**more), self._start)
        try:
            for number, chunk in enumerate(body):
                if number == most:
                    break  # the client left
                self.body += chunk
        finally:
            if hasattr(body, "close"):
                body.close()

    def _start(self, status: str, _headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info:
            self.exc_info = exc_info
        self.status = status
        return self._write

    def _write(self, data: bytes) -> None:
        self.body += data


def page(store: Store) -> Page:
    assert store._directory is not None
    return Scraper(store._directory).scrape()[0]


def requests(store: Store) -> list[tuple[str, str, str, float]]:
    """Return method, status, error type and count of every series of the duration."""
    found = []
    for labels, points in page(store)[DURATION].children.items():
        known = dict(labels)
        count = sum(point.value for (suffix, _), point in points.items() if suffix == "_bucket")
        found.append((known["http_request_method"], known["http_response_status_code"], known["error_type"], count))
    return sorted(found)


def plain(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a", b"b"]


def test_an_answer_passes_through_and_is_counted(store: Store, lines: list[dict[str, Any]]) -> None:
    answer = Answer(Middleware(plain, store))
    assert (answer.status, answer.body) == ("200 OK", b"ab")
    assert requests(store) == [("GET", "200", "", 1)]
    assert lines[0]["http.response.body.size"] == 2
    assert store.cells[layout.ACTIVE] == store.cells[layout.STARTS] == 0
    assert context.current.get() is None


def test_an_exception_passes_through_unchanged(store: Store, lines: list[dict[str, Any]]) -> None:
    raised = KeyError("mine")

    def failing(*_: Any) -> Iterable[bytes]:
        raise raised

    with pytest.raises(KeyError) as caught:
        Answer(Middleware(failing, store))
    assert caught.value is raised
    assert requests(store) == [("GET", "500", "KeyError", 1)]


def test_even_the_end_of_the_process_is_recorded(store: Store, lines: list[dict[str, Any]]) -> None:
    def leaving(*_: Any) -> Iterable[bytes]:
        sys.exit(1)  # what gunicorn's abort does in the middle of a request

    with pytest.raises(SystemExit):
        Answer(Middleware(leaving, store))
    assert requests(store) == [("GET", "500", "SystemExit", 1)]
    assert lines[0]["error.type"] == "SystemExit"


def test_a_second_start_with_exc_info_wins_and_the_error_is_passed_on(
    store: Store, lines: list[dict[str, Any]]
) -> None:
    def recovering(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError("late")
        except ValueError:
            start_response("502 Bad Gateway", [], sys.exc_info())
        return [b"sorry"]

    answer = Answer(Middleware(recovering, store))
    assert answer.status == "502 Bad Gateway"
    assert answer.exc_info[0] is ValueError
    assert requests(store) == [("GET", "502", "502", 1)]


def test_the_write_callable_still_writes(store: Store, lines: list[dict[str, Any]]) -> None:
    def writing(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])(b"hello")
        return []

    assert Answer(Middleware(writing, store)).body == b"hello"
    assert lines[0]["http.response.body.size"] == 5


def test_a_generator_that_the_server_closes_early_is_closed_and_recorded(
    store: Store, lines: list[dict[str, Any]]
) -> None:
    closed = []

    def streaming(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            for _ in range(10):
                yield b"x"
        finally:
            closed.append(True)

    Answer(Middleware(streaming, store), most=2)
    assert closed == [True]
    assert requests(store) == [("GET", "200", "client_disconnected", 1)]


def test_a_body_that_fails_at_its_close_is_an_error_and_finished_once(
    store: Store, lines: list[dict[str, Any]]
) -> None:
    class Closing(list[bytes]):
        def close(self) -> None:
            raise RuntimeError("at the end")

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Closing([b"x"])

    body = Middleware(app, store)(environ(), lambda *_: None)
    list(body)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="at the end"):
            body.close()  # type: ignore[attr-defined]
    assert requests(store) == [("GET", "200", "RuntimeError", 1)]


@pytest.mark.parametrize("where", ["begin", "finish"])
def test_telemetry_that_fails_changes_no_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]], where: str
) -> None:
    failures: list[str] = []
    monkeypatch.setattr(runtime, "failed", lambda place, _error: failures.append(place))
    middleware = Middleware(plain, store)
    Answer(middleware)
    if where == "begin":
        monkeypatch.setattr("observability.traces.begin", lambda *_: 1 / 0)
    else:
        monkeypatch.setattr(middleware, "kind", lambda _labels: 1 / 0)
    answer = Answer(middleware)
    assert (answer.status, answer.body) == ("200 OK", b"ab")
    assert failures == ["request"]
    monkeypatch.undo()
    Answer(middleware)
    assert store.cells[layout.ACTIVE] == store.cells[layout.STARTS] == 0


def test_label_sets_beyond_the_most_share_one_series(store: Store, lines: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(f"{environ['QUERY_STRING']} X", [])
        return []

    middleware = Middleware(app, store)
    for status in range(200, 230):
        Answer(middleware, QUERY_STRING=str(status))
    found = requests(store)
    assert sum(count for *_, count in found) == 30
    assert (OVERFLOW, OVERFLOW, OVERFLOW, 20) in found
    assert len(found) == 11


@pytest.mark.parametrize("method", ["BREW", "get", "", "A" * 10_000, 'X"}\n'])
def test_an_unknown_method_never_becomes_a_label(store: Store, lines: list[dict[str, Any]], method: str) -> None:
    Answer(Middleware(plain, store), REQUEST_METHOD=method)
    assert requests(store) == [("_OTHER", "200", "", 1)]


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "²", "9" * 30])
def test_a_senseless_content_length_does_no_harm(store: Store, lines: list[dict[str, Any]], length: str) -> None:
    assert Answer(Middleware(plain, store), CONTENT_LENGTH=length).body == b"ab"
    assert requests(store) == [("GET", "200", "", 1)]
    assert store.cells[layout.ACTIVE] == 0


def test_a_path_in_utf_8_is_shown_as_such(store: Store, lines: list[dict[str, Any]]) -> None:
    Answer(Middleware(plain, store), PATH_INFO="/grüße".encode().decode("latin-1"))
    assert lines[0]["url.path"] == "/grüße"


def test_instrumenting_twice_measures_once(store: Store, lines: list[dict[str, Any]]) -> None:
    app = flask.Flask("twice")
    app.add_url_rule("/", view_func=lambda: "hi")
    observability.instrument(app)
    observability.instrument(app)
    assert isinstance(app.wsgi_app, Middleware)
    assert not isinstance(app.wsgi_app.app, Middleware)
    Answer(Middleware(Middleware(plain, store), store))
    assert requests(store) == [("GET", "200", "", 1)]


def test_flask_errors_are_named_though_flask_answers_them(store: Store, lines: list[dict[str, Any]]) -> None:
    app = flask.Flask("failing")

    @app.get("/<name>")
    def fail(name: str) -> str:
        raise LookupError(name)

    observability.instrument(app)
    app.wsgi_app.store = store  # type: ignore[attr-defined]
    assert Answer(app, PATH_INFO="/x").status.startswith("500")
    assert requests(store) == [("GET", "500", "LookupError", 1)]
    assert lines[0]["http.route"] == "/<name>"


def test_flask_in_testing_mode_raises_and_the_route_is_known_all_the_same(
    store: Store, lines: list[dict[str, Any]]
) -> None:
    app = flask.Flask("testing")
    app.testing = True

    @app.get("/<name>")
    def fail(name: str) -> str:
        raise LookupError(name)

    observability.instrument(app)
    app.wsgi_app.store = store  # type: ignore[attr-defined]
    with pytest.raises(LookupError):
        Answer(app, PATH_INFO="/x")
    assert lines[0]["http.route"] == "/<name>"


def test_a_timed_out_flask_request_has_its_route(store: Store, lines: list[dict[str, Any]]) -> None:
    app = flask.Flask("stuck")

    @app.get("/<name>")
    def stuck(name: str) -> str:
        sys.exit(1)  # what gunicorn's abort does in the middle of a request

    observability.instrument(app)
    app.wsgi_app.store = store  # type: ignore[attr-defined]
    for path in ("/x", "/x/y/z"):
        with contextlib.suppress(SystemExit):
            Answer(app, PATH_INFO=path, SERVER_NAME="localhost", SERVER_PORT="80")
    assert [line["http.route"] for line in lines] == ["/<name>", ""]


def test_annotate_reaches_the_line_and_cannot_replace_its_own_fields(store: Store, lines: list[dict[str, Any]]) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        observability.annotate(tenant="acme", **{"http.route": "forged"})
        start_response("200 OK", [])
        return []

    Answer(Middleware(app, store))
    assert lines[0]["tenant"] == "acme"
    assert lines[0]["http.route"] == ""


def test_a_handler_that_forks_leaves_its_parents_numbers_alone(store: Store, lines: list[dict[str, Any]]) -> None:
    def forking(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        pid = os.fork()
        if pid == 0:
            store.after_fork()
        else:
            os.waitpid(pid, 0)
        start_response("200 OK", [])
        return [b"parent" if pid else b"child"]

    pid_before = os.getpid()
    answer = Answer(Middleware(forking, store))
    if os.getpid() != pid_before:
        os._exit(0)  # the child: it has gone through the same middleware
    assert answer.body == b"parent"
    assert requests(store) == [("GET", "200", "", 1)]
    assert store.cells[layout.ACTIVE] == 0


def test_a_stream_that_fails_before_its_first_byte_is_the_500_that_the_client_gets(
    store: Store, lines: list[dict[str, Any]]
) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        raise RuntimeError("early")
        yield b""

    with pytest.raises(RuntimeError):
        Answer(Middleware(app, store))
    assert requests(store) == [("GET", "500", "RuntimeError", 1)]


def test_a_monstrous_content_length_spoils_no_sum(store: Store, lines: list[dict[str, Any]]) -> None:
    Answer(Middleware(plain, store), CONTENT_LENGTH="9" * 400)
    Answer(Middleware(plain, store), CONTENT_LENGTH="12")
    name = "http_server_request_body_size_bytes"
    ((_, points),) = page(store)[name].children.items()
    assert points["_sum", float("inf")].value == 12


def test_a_status_without_a_number_fails_no_request(store: Store, lines: list[dict[str, Any]]) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("OK", [("Content-Length", "9" * 5000)])
        return [b"x"]

    assert Answer(Middleware(app, store)).body == b"x"
    assert store.cells[layout.REQUESTS] == 1


def test_a_request_made_inside_a_request_gives_the_context_back(store: Store, lines: list[dict[str, Any]]) -> None:
    inner = Middleware(plain, store)

    def outer(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        Answer(inner)
        observability.annotate(after="inner")
        start_response("200 OK", [])
        return []

    Answer(Middleware(outer, store))
    assert [line.get("after") for line in lines] == [None, "inner"]


def test_a_body_that_is_never_closed_leaves_no_request_behind(store: Store, lines: list[dict[str, Any]]) -> None:
    store.claims_lazily = True  # a server that may be any
    body = iter(Middleware(plain, store)(environ(), lambda *_: None))
    assert context.current.get() is None
    next(body)
    assert context.current.get() is None


class Noted:
    """Cells that note in which order they are written."""

    def __init__(self, cells: Any) -> None:
        self.cells = cells
        self.written: list[int] = []

    def __getitem__(self, place: int) -> float:
        return float(self.cells[place])

    def __setitem__(self, place: int, value: float) -> None:
        self.written.append(place)
        self.cells[place] = value


def test_a_request_begins_by_its_start_so_that_a_reader_between_finds_too_little_and_not_too_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Answer(Middleware(plain, store))  # settles
    cells = Noted(store.cells)
    monkeypatch.setattr(store, "cells", cells)
    Answer(Middleware(plain, store))
    assert cells.written[:2] == [layout.STARTS, layout.ACTIVE]
    assert cells.written[2] == cells.written[-1] == layout.SEQUENCE, "its end is seen whole, or not at all"


def test_under_gunicorn_a_request_is_the_current_one_until_its_body_is_closed(store: Store) -> None:
    store.claims_lazily = False
    body = Middleware(plain, store)(environ(), lambda *_: None)
    assert context.current.get() is body
    chunks = iter(body)
    next(chunks)
    assert context.current.get() is body, "also between the chunks: what the server logs is the request's"
    assert list(chunks) == [b"b"]
    body.close()  # type: ignore[attr-defined]
    assert context.current.get() is None
    body.close()  # type: ignore[attr-defined]
    assert context.current.get() is None


def test_a_body_that_is_closed_elsewhere_is_counted_all_the_same(store: Store) -> None:
    def begin() -> Any:
        body = Middleware(plain, store)(environ(), lambda *_: None)
        return body, list(body)

    body, chunks = contextvars.copy_context().run(begin)
    body.close()
    assert chunks == [b"a", b"b"]
    assert context.current.get() is None
    assert requests(store) == [("GET", "200", "", 1)]


def test_a_stream_runs_in_its_requests_context_to_the_end(store: Store, lines: list[dict[str, Any]]) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(3):
            observability.annotate(last=number)
            yield b"x"

    Answer(Middleware(app, store))
    assert lines[0]["last"] == 2


class BrokenIteration:
    closed = False

    def __iter__(self) -> Iterator[bytes]:
        raise LookupError("no iterator")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("body", [None, 7, BrokenIteration()])
def test_a_body_that_is_none_is_an_error_and_not_in_flight_for_ever(store: Store, lines: Any, body: Any) -> None:
    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    with pytest.raises((TypeError, LookupError)):
        Answer(Middleware(app, store))
    assert [(status, count) for _, status, _, count in requests(store)] == [("500", 1)]
    assert store.cells[layout.ACTIVE] == 0
    assert getattr(body, "closed", True)


@pytest.mark.parametrize("chunk", ["text", None, 7])
def test_a_body_of_the_wrong_kind_is_the_apps_error_and_is_passed_on(store: Store, lines: Any, chunk: Any) -> None:
    """The server refuses it; who left was not the client."""

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [chunk]

    body = Middleware(app, store)(environ(), lambda *_: lambda _data: None)
    assert next(iter(body)) is chunk
    body.close()  # type: ignore[attr-defined]
    assert [(status, error) for _, status, error, _ in requests(store)] == [("500", "TypeError")]


def test_headers_that_can_be_read_once_reach_the_server(store: Store, lines: Any) -> None:
    seen: list[Any] = []

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", (pair for pair in [("X-Of", "the app"), ("Content-Length", "2")]))
        return [b"ok"]

    body = Middleware(app, store)(environ(), lambda _status, headers: seen.extend(headers))
    assert list(body) == [b"ok"]
    body.close()  # type: ignore[attr-defined]
    assert seen == [("X-Of", "the app"), ("Content-Length", "2")]


def test_a_nonsense_status_and_length_are_no_failure_of_ours(store: Store, lines: Any) -> None:
    def app(_environ: Any, start_response: Any) -> Any:
        start_response("abc", [("Content-Length", "many")])
        return [b"ok"]

    Answer(Middleware(app, store))
    assert [status for _, status, _, _ in requests(store)] == ["500"]


def test_a_bucket_gets_one_exemplar_a_second_at_most(store: Store, tmp_path: Path) -> None:
    kind = Middleware(plain, store).kind(("GET", "/", 200, "http", ""))
    request = WSGIRequest(Middleware(plain, store), environ(), "/")
    request.abandon()

    def shown(at: float, trace: str) -> str:
        request.start, request.trace_id = at, trace
        kind.show(request, kind.duration[1], 0.001)
        page = exposition.write(Scraper(tmp_path / "state").scrape(exemplars=True)[0], exposition.OPENMETRICS)
        (found,) = re.findall(r'trace_id="(\w+)"', page.decode())
        return str(found)

    assert [shown(7.0, "aa"), shown(7.9, "bb"), shown(8.5, "cc"), shown(9.0, "dd")] == ["aa", "aa", "cc", "cc"]


def test_a_request_is_freed_as_it_ends_and_a_file_without_a_start_is_none_that_runs_for_ever(
    store: Store, lines: list[dict[str, Any]]
) -> None:
    class File:
        """As gunicorn's: its close is the file's own."""

        def __init__(self) -> None:
            self.close = list[int]().clear

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

    class Keeping:
        """As PEP 3333 shows an application class: it keeps what it is given."""

        def __init__(self, _environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
            self.start = start_response

        def __iter__(self) -> Iterator[bytes]:
            self.start("200 OK", [])
            yield b"x"

    seen: list[weakref.ref[Any]] = []

    def noting(app: Any) -> Any:
        def noted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            seen.append(weakref.ref(context.current.get()))  # type: ignore[arg-type]
            return app(environ, start_response)

        return noted

    gc.disable()
    try:
        Answer(Middleware(noting(Keeping), store))
        Answer(Middleware(noting(lambda *_: File()), store), **{"wsgi.file_wrapper": File})  # type: ignore[arg-type]
        assert [each() for each in seen] == [None, None]
    finally:
        gc.enable()
    assert store.cells[layout.ACTIVE] == 0


@pytest.mark.parametrize(("client", "shown"), [(None, None), (7, 7), ("x" * 200, "x" * 200)])
def test_a_client_that_is_no_text_costs_no_line(
    store: Store, lines: list[dict[str, Any]], client: object, shown: object
) -> None:
    app = flask.Flask("app")
    app.add_url_rule("/", view_func=lambda: "x")
    observability.instrument(app)
    Answer(app, REMOTE_ADDR=client)  # type: ignore[arg-type]
    assert [line["client.address"] for line in lines] == [shown]
