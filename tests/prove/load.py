"""Requests to a server: a steady background, and clients that press on. All stop with their block."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

PATIENCE_SECONDS = 15  # of a client in the background, about a user's
THREADS = 8  # so many requests of the background may hang before it falls behind


def ask(url: str, method: str = "GET", timeout: float = 60.0, connection: HTTPConnection | None = None) -> int:
    """Send one request as a proxy would pass it on, and return its status; 0 where no answer came.

    Args:
        url: what is asked for.
        method: POST sends a todo.
        timeout: seconds until it is given up.
        connection: one to keep, instead of one of its own.
    """
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    body = b'{"title": "A todo among others"}' if method == "POST" else None
    headers = {"Content-Type": "application/json", "X-Request-Start": f"t={time.time():.3f}"}
    own = connection or HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        own.request(method, target, body, headers)
        with own.getresponse() as answer:
            answer.read()
            return answer.status
    except (OSError, HTTPException):
        own.close()
        return 0
    finally:
        if connection is None:
            own.close()


class Traffic:
    """A steady background of requests; it goes on though some of them hang.

    Args:
        url: the server's.
        sample: methods and paths, in turn.
        rate: requests a second.
    """

    def __init__(self, url: str, sample: Sequence[tuple[str, str]], rate: float) -> None:
        self.rate = rate
        self.statuses: dict[int, int] = {}
        self._url = url
        self._sample = itertools.cycle(sample)
        self._lock = threading.Lock()
        self._due = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> "Traffic":
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS + 5)

    @contextmanager
    def at(self, rate: float) -> Iterator[None]:
        """Send so many a second while the block runs; 0 is none."""
        before, self.rate = self.rate, rate
        try:
            yield
        finally:
            self.rate = before

    def _send(self) -> None:
        while not self._over.wait(max(0.0, self._next() - time.monotonic())):
            if self.rate == 0:
                continue
            method, path = next(self._sample)
            status = ask(self._url + path, method, PATIENCE_SECONDS)
            with self._lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def _next(self) -> float:
        """Return the moment at which this thread may send; what was missed is not made up for."""
        with self._lock:
            self._due = max(self._due + 1 / (self.rate or 1.0), time.monotonic())
            return self._due


@contextmanager
def pressing(clients: int, send: Callable[[int], object], pause: float = 0.0) -> Iterator[None]:
    """Have clients call `send` with their number again and again, each one call after the other."""
    over = threading.Event()

    def work(number: int) -> None:
        while not over.is_set():
            send(number)
            over.wait(pause)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(70)
