"""Clients who send requests as a proxy would pass them on, and note how long each took, and whether it was answered."""

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, Self
from urllib.parse import urlsplit

TIMEOUT_SECONDS: Final = 60.0
SENDERS: Final = 64  # so many requests of an open loop may be on their way at a time
_DAY: Final = 86_400.0


@dataclass(frozen=True)
class Sample:
    """One request.

    Args:
        at: Unix time at which its answer came.
        seconds: from when it was due to its answer.
        worked: of these, what the route says that it took; 0 where it says nothing.
        status: of the answer; 0 where none came.
        error: why not.
    """

    at: float
    seconds: float
    worked: float
    status: int
    error: str = ""


def ask(url: str, due: float = 0.0, method: str = "GET") -> Sample:
    """Send one request on a connection of its own."""
    parts, due = urlsplit(url), due or time.time()
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, target or "/", headers={"X-Request-Start": f"t={due:.4f}"})
        answer = connection.getresponse()
        body = answer.read()
        now = time.time()
        return Sample(now, now - due, _worked(body), answer.status)
    except (OSError, HTTPException) as error:
        return Sample(time.time(), time.time() - due, 0.0, 0, repr(error))
    finally:
        connection.close()


def _worked(body: bytes) -> float:
    """Return how long a fault route says that it took."""
    if not body.startswith(b'{"did"'):
        return 0.0
    did: dict[str, Any] = json.loads(body)["did"]
    return float(did.get("seconds", 0.0))


def quantile(values: list[float], share: float) -> float | None:
    """Return the value below which so large a share of them lies; None of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


class _Asking:
    """Threads that send requests while the block runs, and what became of each.

    Args:
        url: what is asked for.
        threads: how many send.
        faulty: whether failures are what the scenario is about, and count for nothing against the tuner.
    """

    def __init__(self, url: str, threads: int, faulty: bool) -> None:
        self.url, self.faulty = url, faulty
        self.samples: list[Sample] = []
        self.failed: list[Sample] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS + 5)

    @property
    def answered(self) -> int:
        """How many were answered well."""
        return len(self.samples) - len(self.failed)

    def _work(self) -> None:
        raise NotImplementedError

    def _send(self, due: float = 0.0) -> None:
        sample = ask(self.url, due)
        self.samples.append(sample)
        if not 200 <= sample.status < 400:
            self.failed.append(sample)

    def between(self, since: float = 0.0, until: float = 0.0) -> Iterator[Sample]:
        """Return what was answered between two Unix times."""
        end = until or time.time() + _DAY
        return (each for each in list(self.samples) if since <= each.at < end)

    def p99(self, since: float = 0.0, until: float = 0.0) -> float | None:
        """Return what 99 of 100 took no longer than, in seconds."""
        return quantile([each.seconds for each in self.between(since, until)], 0.99)

    def waited_p95(self, since: float = 0.0, until: float = 0.0) -> float | None:
        """Return how long 95 of 100 took no longer than beyond what the route took: the queue, and the way."""
        return quantile([each.seconds - each.worked for each in self.between(since, until)], 0.95)

    def rate(self, since: float, until: float) -> float:
        """Return the requests answered in a second."""
        return sum(1 for _ in self.between(since, until)) / (until - since)


class Clients(_Asking):
    """A closed loop: each of them asks again when it was answered.

    Args:
        url: what is asked for.
        count: how many there are.
        pause: seconds between an answer and the next request; varied by half of it.
        faulty: whether failures count for nothing.
    """

    def __init__(self, url: str, count: int, pause: float = 0.0, *, faulty: bool = False) -> None:
        super().__init__(url, count, faulty)
        self.pause = pause

    def _work(self) -> None:
        while not self._over.is_set():
            self._send()
            self._over.wait(self.pause * random.uniform(0.5, 1.5))


class Arrivals(_Asking):
    """An open loop: so many requests a second come by chance, whatever becomes of them.

    Args:
        url: what is asked for.
        rate: requests a second; may be changed, and 0 is none.
        faulty: whether failures count for nothing.
    """

    def __init__(self, url: str, rate: float, *, faulty: bool = False) -> None:
        super().__init__(url, SENDERS, faulty)
        self.per_second = rate
        self._lock, self._due = threading.Lock(), time.time()

    def _work(self) -> None:
        while not self._over.is_set():
            due = self._next()
            if due is None:
                self._over.wait(0.1)
            elif not self._over.wait(max(0.0, due - time.time())):
                self._send(due)

    def _next(self) -> float | None:
        """Return when the next request is due; None while there is none."""
        with self._lock:
            if self.per_second <= 0:
                self._due = time.time()
                return None
            self._due += random.expovariate(1.0) / self.per_second
            return self._due
