"""Hostile bodies: each is refused with a problem document that names the field, and none makes the service fail."""

import io
import json
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

PROBLEM = "application/problem+json"
DEEP = 100_000


def _post(client: FlaskClient, data: bytes, content_type: str = "application/json", **headers: str) -> TestResponse:
    return client.post("/todos", data=data, content_type=content_type, headers=headers)


@pytest.mark.parametrize(
    ("todo", "pointers"),
    [
        ({}, ["#/title"]),
        ({"title": ""}, ["#/title"]),
        ({"title": "t" * 201}, ["#/title"]),
        ({"title": None}, ["#/title"]),
        ({"title": 1}, ["#/title"]),
        ({"title": "a\0b"}, ["#/title"]),
        ({"title": "t", "notes": "n" * 10_001}, ["#/notes"]),
        ({"title": "t", "notes": "\0"}, ["#/notes"]),
        ({"title": "t", "done": 1}, ["#/done"]),
        ({"title": "t", "done": "true"}, ["#/done"]),
        ({"title": "t", "owner": 1}, ["#/owner"]),
        ({"title": "t", "a/b~c": 1}, ["#/a~1b~0c"]),
        ({"title": "t", "id": 5}, ["#/id"]),
        ({"title": [[["deep"]]], "x": {}, "done": []}, ["#/x", "#/title", "#/done"]),
        ([], ["#"]),
        ("text", ["#"]),
        (None, ["#"]),
        (1, ["#"]),
    ],
)
def test_what_is_wrong_is_named(any_client: FlaskClient, todo: object, pointers: list[str]) -> None:
    """All wrong fields are named at once, under create and replace alike."""
    where = any_client.post("/todos", json={"title": "kept"}).headers["Location"]
    for method, url in (("POST", "/todos"), ("PUT", where)):
        answer = any_client.open(url, method=method, data=json.dumps(todo), content_type="application/json")
        assert (answer.status_code, answer.content_type) == (422, PROBLEM)
        assert sorted(error["pointer"] for error in answer.json["errors"]) == sorted(pointers)
        assert all(error["detail"] for error in answer.json["errors"])
        assert set(answer.json) == {"type", "title", "status", "detail", "instance", "errors"}
    assert any_client.get(where).json["title"] == "kept"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"title": "\xff"}', 400),
        (b'{"\xff": 1}', 400),
        (b'{"title": "\\ud800"}', 400),
        ('{"title": "t"}'.encode("utf-16"), 400),
        (b'{"title": NaN}', 400),
        (b'{"title": "t", "done": NaN}', 400),
        (b'{"title": "t"} x', 400),
        (b"[" * DEEP, 400),
        (b'{"title": ' * 10_000, 400),
        (b'{"title": "t", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400),
        (b"9" * DEEP, 400),
        (b'{"title": "t", "done": ' + b"9" * DEEP + b"}", 400),
        (b'{"title": "t", "done": 1e999999}', 400),
        (b'{"title": "a", "title": "b"}', 422),
        (b'{"title": 1, "title": "b"}', 422),
        (b'{"title": "t", "x": 1, "x": 2}', 422),
    ],
)
def test_what_cannot_be_read_is_refused(client: FlaskClient, data: bytes, status: int) -> None:
    answer = _post(client, data)
    assert answer.content_type == PROBLEM
    assert answer.status_code == answer.json["status"] == status
    if b'"title": "a"' in data:
        assert answer.json["errors"] == [{"pointer": "#/title", "detail": "is given more than once"}]


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/xml", "application/json; charset=utf-16", "application/x-www-form-urlencoded"],
)
def test_another_media_type_is_refused(client: FlaskClient, content_type: str) -> None:
    answer = _post(client, b'{"title": "t"}', content_type)
    assert (answer.status_code, answer.content_type) == (415, PROBLEM)


def test_a_content_encoding_is_refused(client: FlaskClient) -> None:
    answer = _post(client, b'{"title": "t"}', **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")


def test_charset_utf8_is_taken(client: FlaskClient) -> None:
    assert _post(client, b'{"title": "t"}', "application/json; charset=UTF-8").status_code == 201


def test_the_body_is_limited(make: Callable[..., FlaskClient]) -> None:
    """One byte over the limit is refused, whether its length is declared or it comes in chunks."""
    client = make(max_body=1024)
    fits = b'{"title": "t"}'.ljust(1024)
    assert _post(client, fits).status_code == 201
    assert _post(client, fits + b" ").status_code == 413
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    for body, status in ((fits, 201), (fits + b" ", 413), (fits * 100, 413)):
        answer = client.post(
            "/todos", input_stream=io.BytesIO(body), content_type="application/json", environ_overrides=chunked
        )
        assert answer.status_code == status
        assert status == 201 or answer.content_type == PROBLEM


def test_an_unknown_path_and_method_are_problems_too(client: FlaskClient) -> None:
    for path in ("/nowhere", "/todos/", "/todos/1/2", "/n%00%FF", "/static/x", "/faults", "/faults/crash"):
        answer = client.get(path)
        assert (answer.status_code, answer.content_type) == (404, PROBLEM)
    answer = client.patch("/todos/1")
    assert (answer.status_code, answer.content_type) == (405, PROBLEM)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}


def test_the_instance_is_a_uri(client: FlaskClient) -> None:
    assert client.get("/größe%20x").json["instance"] == "/gr%C3%B6%C3%9Fe%20x"


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_names = st.sampled_from(["title", "notes", "done", "id", "x"]) | st.text(max_size=5)
_todos = st.dictionaries(_names, _values, max_size=5).map(lambda todo: json.dumps(todo).encode())
_ascii_or_not = st.dictionaries(_names, _values, max_size=5).map(
    lambda todo: json.dumps(todo, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
_pairs = st.lists(st.tuples(_names, _values), max_size=4).map(
    lambda pairs: ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()
)
_titled = st.text(max_size=250).map(lambda title: json.dumps({"title": title}).encode())
_bodies = st.one_of(st.binary(max_size=200), _todos, _ascii_or_not, _pairs, _titled)
_spoilt = st.tuples(_bodies, st.integers(0, 300), st.binary(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=_bodies | _spoilt, content_type=st.sampled_from(["application/json"] * 8 + ["text/plain", "a/b;c=\xe9"]))
def test_no_body_makes_the_service_fail(any_client: FlaskClient, data: bytes, content_type: str) -> None:
    """Whatever is sent is created, or refused as the client's fault with a problem document."""
    answer = _post(any_client, data, content_type)
    assert answer.status_code in {201, 400, 413, 415, 422}, (data, answer.text)
    if answer.status_code == 201:
        assert any_client.get(answer.headers["Location"]).json == answer.json
    else:
        assert answer.content_type == PROBLEM
        assert answer.json["status"] == answer.status_code
