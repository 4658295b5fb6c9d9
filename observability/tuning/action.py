"""One worker more or less, asked of a server's agent, which does it only where that is safe.

Nothing is asked twice. The agent compares and sets, so what was lost on the way there changed nothing, and where an
answer is lost on the way back the target says what became of it: it is read again, and no second change is sent.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

from observability.tuning import asking
from observability.tuning.reader import ReadError

T = TypeVar("T")
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 45.0  # the agent checks the configuration first, for at most 30 s
STATE_SECONDS = 5.0
_MOST_BYTES = 64 * 1024  # of an answer
_TOKEN_BYTES = 4096
_SURELY_REFUSED = frozenset({503})  # besides 4xx: the agent has no token that it could compare


@dataclass(frozen=True)
class Changed:
    """The master wants so many workers now."""

    target: int


@dataclass(frozen=True)
class Refused:
    """Nothing was done.

    Args:
        status: of the HTTP answer.
        error: the agent's word for it: target, unsettled, reloading, broken ... (docs/control.md).
        reason: one sentence.
        target: workers that are wanted, where the agent said so.
    """

    status: int
    error: str
    reason: str
    target: int | None = None


@dataclass(frozen=True)
class Unreachable:
    """Nobody answered, or nothing of use.

    Args:
        reason: one sentence.
        unknown: whether it may have been done nevertheless, now or soon: look at the target before the next step.
    """

    reason: str
    unknown: bool = False


class _Taken(msgspec.Struct):
    target: int


class _Told(msgspec.Struct):
    error: str = ""
    detail: str = ""
    target: int | None = None


class _Server(msgspec.Struct):
    workers_target: int | None = None


class _State(msgspec.Struct):
    server: _Server


class _LostError(RuntimeError):
    """No answer that says whether it was done; the message says what came instead."""


class _Bearer(AuthBase):
    """Sets the token itself: else a password in the URL, or in ~/.netrc, would take its place."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, asked: Any) -> Any:
        asked.headers["Authorization"] = f"Bearer {self.token}"
        return asked


class Control:
    """The tuner's hand on its servers.

    Args:
        url: the agent's address; empty for each server's own.
        token_file: the file with the agents' token, read each time.
        answer_seconds: how long an answer is waited for.
    """

    def __init__(self, url: str, token_file: Path, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.token_file = token_file
        self.answer_seconds = answer_seconds

    def change(self, server: str, step: int, expected: int) -> Changed | Refused | Unreachable:
        """Ask for one worker more or less, once.

        Args:
            server: what Prometheus calls the instance: the agent's host and port.
            step: 1 or -1.
            expected: workers that are wanted now, as far as one knows.
        """
        url = self.url or f"http://{server}"
        try:
            token = _read_token(self.token_file)
        except (OSError, ValueError) as error:
            return Unreachable(f"{self.token_file}: {getattr(error, 'strerror', None) or error}")
        try:
            return self._ask(url, token, step, expected)
        except _LostError as error:
            return self._read_again(url, expected + step, str(error))

    def _ask(self, url: str, token: str, step: int, expected: int) -> Changed | Refused | Unreachable:
        try:
            with requests.Session() as session:
                session.trust_env = False  # a token goes straight to the agent, and no proxy sees it
                answer = session.post(
                    f"{url}/workers",
                    json={"change": step, "expected": expected},
                    auth=_Bearer(token),
                    headers={"Accept-Encoding": "identity"},  # what is not packed cannot unpack to more than the bound
                    timeout=(CONNECT_SECONDS, self.answer_seconds),
                    allow_redirects=False,
                    stream=True,
                )
                return _outcome(answer.status_code, _body(answer, self.answer_seconds), expected + step)
        except (HTTPError, OSError, ValueError) as error:  # what requests raises is an OSError
            if _never_left(error):
                return Unreachable(_said(error))
            raise _LostError(_said(error)) from None

    def _read_again(self, url: str, wanted: int, reason: str) -> Changed | Unreachable:
        """Say what became of a change whose answer was lost; where it is not seen, it may still be on its way."""
        try:
            status, body = asking.ask(f"{url}/state", seconds=STATE_SECONDS)
        except ReadError:
            status, body = 0, b""
        state = _decoded(body, _State) if status == 200 else None
        if state is not None and state.server.workers_target == wanted:
            return Changed(wanted)
        return Unreachable(reason, unknown=True)


def _read_token(path: Path) -> str:
    with path.open("rb") as file:
        token = file.read(_TOKEN_BYTES + 1).strip()
    if not token or len(token) > _TOKEN_BYTES or not token.isascii() or not token.decode().isprintable():
        raise ValueError("it holds no token on one line")
    return token.decode()


def _body(answer: requests.Response, seconds: float) -> bytes:
    """Read an answer's body, bounded in size and time.

    Raises:
        ValueError: it is too long, or comes too slowly.
    """
    body, deadline = b"", time.monotonic() + seconds
    while part := answer.raw.read1(16 * 1024, decode_content=False):  # what has come, however little
        body += part
        if len(body) > _MOST_BYTES or time.monotonic() > deadline:
            raise ValueError("the answer is too long, or too slow")
    return body


def _outcome(status: int, body: bytes, wanted: int) -> Changed | Refused:
    """Read what an answer says.

    Raises:
        _LostError: it does not say whether anything was done.
    """
    if status == 200:
        if (taken := _decoded(body, _Taken)) is not None and taken.target == wanted:
            return Changed(wanted)
        raise _LostError("the answer is not an agent's")
    told = _decoded(body, _Told) or _Told()
    if 400 <= status < 500 or (status in _SURELY_REFUSED and told.error):
        return Refused(status, told.error or str(status), told.detail or f"it answered {status}", told.target)
    raise _LostError(told.detail or f"it answered {status}")


def _decoded(body: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _never_left(error: Exception) -> bool:
    """Tell whether a request surely was not sent: there was nobody to send it to, or it made no sense."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def _said(error: Exception) -> str:
    if isinstance(error, requests.Timeout | TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError | HTTPError):
        return "nothing answers" if _never_left(error) else "the connection broke before an answer came"
    return str(error)[:200]
