"""One question over HTTP, whose answer is bounded in time and in size, whoever answers."""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, TimeoutError

from observability.settings import masked
from observability.tuning.reader import ReadError

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 10.0
MOST_BYTES = 16 * 1024 * 1024
_CHUNK = 64 * 1024


def named(url: str) -> str:
    """Return an address as it may be shown: without its password, and not at all where nobody knows what is in it."""
    try:
        return masked(url)
    except ValueError:
        return "the address"


class _Held(HTTPAdapter):
    """Knows the connections that it opens, so that a deadline can end them.

    A timeout of requests is for each piece of an answer: one that drips would last for ever.
    """

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make connections that are remembered."""
        super().init_poolmanager(*arguments, **options)
        kinds = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {scheme: self._held(kind) for scheme, kind in kinds.items()}

    def _held(self, pool: Any) -> Any:
        held = self.sockets

        def connect(connection: Any) -> None:
            pool.ConnectionCls.connect(connection)
            held.append(connection.sock)

        connection_class = type("Held", (pool.ConnectionCls,), {"connect": connect})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection_class})

    def cut(self) -> None:
        """End the connections, whoever waits for them."""
        for each in self.sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # of a TLS connection too, without its farewell


def ask(
    url: str, form: Mapping[str, str] | None = None, seconds: float = ANSWER_SECONDS, most: int = MOST_BYTES
) -> tuple[int, bytes]:
    """Ask once; return the status and the body.

    A proxy of the environment stands between only where the answer comes from another machine.

    Args:
        url: with http or https, a user and a password where they are needed.
        form: what is posted; None to get.
        seconds: until the whole answer has to be there.
        most: bytes that it may have.

    Raises:
        ReadError: there is no such answer.
    """
    held = _Held()
    late = threading.Event()

    def over() -> None:
        late.set()
        held.cut()

    deadline = threading.Timer(seconds, over)
    deadline.daemon = True
    deadline.start()
    try:
        with requests.Session() as session:
            session.trust_env = not _is_loopback(urlsplit(url).hostname or "")
            for scheme in ("http://", "https://"):
                session.mount(scheme, held)
            answer = _answer(session, url, form, seconds, most)
        if late.is_set():  # an answer without a length ends where it was cut
            raise requests.Timeout
        return answer
    except (HTTPError, OSError, ValueError) as error:  # what requests raises is an OSError
        raise ReadError(f"{named(url)}: {_why(error, late.is_set(), seconds)}") from None
    finally:
        deadline.cancel()


def _answer(
    session: requests.Session, url: str, form: Mapping[str, str] | None, seconds: float, most: int
) -> tuple[int, bytes]:
    with session.request(
        "GET" if form is None else "POST",
        url,
        data=form,
        timeout=(min(CONNECT_SECONDS, seconds), seconds),
        allow_redirects=False,
        stream=True,
        headers={"Accept-Encoding": "identity"},  # what is not packed cannot unpack to more than `most`
    ) as response:
        body = bytearray()
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > most:
                raise ValueError(f"answers more than {most >> 20} MiB")
        return response.status_code, bytes(body)


def _why(error: Exception, late: bool, seconds: float) -> str:
    if late or isinstance(error, requests.Timeout | TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate, or its TLS, is not accepted"
    if isinstance(error, requests.ConnectionError):
        return "nothing answers"
    if isinstance(error, requests.RequestException):
        return "it is no address that can be asked"
    return str(error) if isinstance(error, ValueError) else "the answer breaks off"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
