"""The tuner's hand: what it sends, and what it makes of each answer, of none, and of one that is no agent's."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from observability.tuning.action import Changed, Control, Refused, Unreachable

TOKEN = "correct-horse-battery"


class Agent(ThreadingHTTPServer):
    """Answers as a test says, and remembers what it was sent."""

    daemon_threads = True
    answer: Callable[[Any], None]
    target: object = 2

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.where = f"127.0.0.1:{self.server_address[1]}"

    def says(self, status: int, body: object, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(data)

        self.answer = answer

    @property
    def asked(self) -> list[str]:
        return [path for path, _, _ in self.got]


class _Handler(BaseHTTPRequestHandler):
    server: Agent

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        with contextlib.suppress(OSError):
            self.server.answer(self)

    def do_GET(self) -> None:
        self.server.got.append((self.path, dict(self.headers), None))
        body = json.dumps({"server": {"workers_target": self.server.target}, "workers": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def test_it_asks_once_with_the_token_and_what_it_expects(agent: Agent, token: Path) -> None:
    agent.says(200, {"target": 3})
    assert Control("", token).change(agent.where, 1, 2) == Changed(3)
    ((path, headers, body),) = agent.got
    assert (path, body) == ("/workers", {"change": 1, "expected": 2})
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["Content-Type"] == "application/json"


def test_an_address_of_ones_own_comes_first_and_its_password_stays_away_from_the_token(
    agent: Agent, token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does ~/.netrc or a proxy of the environment get between."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    agent.says(200, {"target": 1})
    assert Control(f"http://user:word@{agent.where}/", token).change("elsewhere:9101", -1, 2) == Changed(1)
    assert agent.got[0][1]["Authorization"] == f"Bearer {TOKEN}"


def test_the_token_is_read_each_time(agent: Agent, token: Path) -> None:
    hand = Control("", token)
    for secret in ("first-token", "second-token"):
        token.write_text(secret)
        agent.says(200, {"target": 3})
        assert hand.change(agent.where, 1, 2) == Changed(3)
    assert [headers["Authorization"] for _, headers, _ in agent.got] == ["Bearer first-token", "Bearer second-token"]


@pytest.mark.parametrize("content", [None, b"", b"\n", b"a\nb", b"\xff\xfe", b"x" * 5000, "tök".encode()])
def test_without_a_token_nobody_is_asked(agent: Agent, token: Path, content: bytes | None) -> None:
    if content is None:
        token.unlink()
    else:
        token.write_bytes(content)
    outcome = Control("", token).change(agent.where, 1, 2)
    assert isinstance(outcome, Unreachable)
    assert str(token) in outcome.reason
    assert not outcome.unknown
    assert agent.got == []


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (409, {"error": "target", "detail": "why", "target": 3, "live": 3}, Refused(409, "target", "why", 3)),
        (409, {"error": "unseen", "detail": "why", "target": None}, Refused(409, "unseen", "why", None)),
        (422, {"error": "broken", "detail": "why"}, Refused(422, "broken", "why")),
        (401, {"error": "unauthorized", "detail": "why"}, Refused(401, "unauthorized", "why")),
        (429, {"error": "wait", "detail": "why", "seconds": 1.5}, Refused(429, "wait", "why")),
        (503, {"error": "no_token", "detail": "why"}, Refused(503, "no_token", "why")),
        (404, b"<html>not found", Refused(404, "404", "it answered 404")),
        (403, {"error": 7}, Refused(403, "403", "it answered 403")),
        (409, b"[" * 5000, Refused(409, "409", "it answered 409")),
    ],
)
def test_what_is_refused_was_not_done(agent: Agent, token: Path, status: int, body: object, expected: Refused) -> None:
    agent.target = 3
    agent.says(status, body)
    assert Control("", token).change(agent.where, 1, 2) == expected
    assert agent.asked == ["/workers"], "there is no doubt, so nothing is read again"


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def _half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"target": ')
    handler.close_connection = True


def _late(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(2)
    _cut(handler)


def _dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        time.sleep(0.1)


LOST = {
    "cut": _cut,
    "half": _half,
    "late": _late,
    "dripping": _dripping,
    "server error": (500, b"oops"),
    "unconfirmed": (504, {"error": "unconfirmed", "detail": "the master was told"}),
    "a gateway": (503, b"<html>"),
    "no agent": (200, b"welcome"),
    "another number": (200, {"target": 7}),
    "endless": (200, b"x" * 100_000),
    "elsewhere": (307, b""),
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize(("target", "done"), [(3, True), (2, False), (7, False), (None, False), ("three", False)])
def test_of_a_lost_answer_the_target_says_what_became(
    agent: Agent, token: Path, how: str, target: object, done: bool
) -> None:
    answer = LOST[how]
    if callable(answer):
        agent.answer = answer
    else:
        agent.says(*answer, **({"Location": f"http://{agent.where}/workers"} if how == "elsewhere" else {}))
    agent.target = target
    begun = time.monotonic()
    outcome = Control("", token, answer_seconds=0.5).change(agent.where, 1, 2)
    assert time.monotonic() - begun < 5
    assert agent.asked == ["/workers", "/state"], "it is not asked twice, and the token goes nowhere else"
    assert "Authorization" not in agent.got[1][1]
    if done:
        assert outcome == Changed(3)
    else:
        assert isinstance(outcome, Unreachable)
        assert outcome.unknown
        assert outcome.reason


@pytest.mark.parametrize("where", ["127.0.0.1:1", "nowhere.invalid:9101", "", "::::", "127.0.0.1:99999", "[bad"])
def test_where_nobody_can_be_asked_nothing_was_done(token: Path, where: str) -> None:
    outcome = Control("", token).change(where, 1, 2)
    assert isinstance(outcome, Unreachable)
    assert not outcome.unknown
    assert outcome.reason
