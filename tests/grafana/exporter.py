"""What a Prometheus scrapes in these tests: numbers that a test sets."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.server import free_port


class Exporter:
    """A target whose `text` is its metrics; it runs while its block does."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.port = free_port()
        self.target = f"127.0.0.1:{self.port}"

    def __enter__(self) -> "Exporter":
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = "".join(f"{name} {value}\n" for name, value in list(exporter.values.items())).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Answer no longer; a second time, nothing is left to end."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def set(self, **values: float) -> None:
        self.values.update(values)

    def add(self, name: str, more: float = 1) -> None:
        self.values[name] = self.values.get(name, 0) + more


def scraped(*jobs: tuple[str, str]) -> dict[str, Any]:
    """Return a Prometheus's configuration that scrapes targets often: (job, target)."""
    return {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in jobs],
    }
