"""Requests through nginx from several clients at once, each recorded with when it was under way and how it ended."""

import http.client
import json
import threading
import time
from dataclasses import dataclass

SAMPLE = (("GET", "/todos?limit=5"), ("GET", "/healthz"), ("POST", "/todos"), ("GET", "/todos/1"), ("GET", "/"))
PAUSE = 0.05
CLIENTS = 8
LATE = 60.0  # no answer by then is a failure; nginx gives up at the same time


@dataclass(frozen=True)
class Asked:
    """One request; times are of time.monotonic()."""

    method: str
    path: str
    started: float
    ended: float
    outcome: int | str

    @property
    def failed(self) -> bool:
        return not isinstance(self.outcome, int) or self.outcome >= 500


class Load:
    """A load that lasts as long as its context.

    Args:
        port: of nginx, on loopback.
        clients: how many send at the same time, so at most this many requests are in flight.
    """

    def __init__(self, port: int, clients: int = CLIENTS) -> None:
        self.port = port
        self.asked: list[Asked] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(LATE + 5)

    def failures(self) -> list[Asked]:
        return [each for each in self.asked if each.failed]

    def _send(self, number: int) -> None:
        while not self._over.is_set():
            method, path = SAMPLE[number % len(SAMPLE)]
            number += 1
            started = time.monotonic()
            try:
                outcome: int | str = self._ask(method, path)
            except (OSError, http.client.HTTPException) as error:
                outcome = repr(error)
            self.asked.append(Asked(method, path, started, time.monotonic(), outcome))
            time.sleep(PAUSE)

    def _ask(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LATE)
        body = json.dumps({"title": "Under load"}) if method == "POST" else None
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()
