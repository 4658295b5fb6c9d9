"""Receives what Alertmanager sends, and keeps when it came."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.server import free_port


@dataclass(frozen=True)
class Notice:
    """One alert of one notification.

    Args:
        at: Unix time at which it came.
        receiver: Alertmanager's name of who is told.
        status: firing or resolved.
    """

    at: float
    receiver: str
    status: str
    labels: dict[str, str]

    @property
    def alert(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]

    @property
    def of(self) -> tuple[str, frozenset[tuple[str, str]]]:
        """Who was told of what."""
        return self.receiver, frozenset(self.labels.items())


class Webhook:
    """A receiver of notifications on a free loopback port, which may be closed and opened again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._notices: list[Notice] = []
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "Webhook":
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Refuse connections while the block runs."""
        self.close()
        try:
            yield
        finally:
            self.open()

    def all(self) -> list[Notice]:
        """Return all that came, the oldest first."""
        return list(self._notices)

    def notices(self, alert: str, status: str = "firing", since: float = 0.0) -> list[Notice]:
        """Return what came of an alert, the oldest first."""
        found = list(self._notices)
        return [each for each in found if (each.alert, each.status) == (alert, status) and each.at >= since]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        notices = self._notices

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.time()
                body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                notices.extend(Notice(at, body["receiver"], each["status"], each["labels"]) for each in body["alerts"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        return Handler
