"""Pages of metrics in place of those who cannot be had on a test machine, with the names that they document.

Loki: "Observe Loki" and its mixin; Tempo: "Monitor Tempo" and its mixin; Alloy: "Monitor components", and the metrics
that the reference of each component lists; Grafana: "Set up Grafana monitoring". What they say here is made up; that
the names and labels are theirs is what makes a query of them worth asking.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from observability.exposition import TEXT


class Served:
    """A page at /metrics of a free loopback port, written anew for each scrape."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text()
                self.send_response(200)
                self.send_header("Content-Type", TEXT)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Served":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Documented:
    """One counter of a foreign program.

    Args:
        name: as the program documents it.
        labels: as it documents them.
        rate: how much is counted each second; 0 for what stays at zero until `lose`.
        lost: whether it is not even there until then.
    """

    name: str
    labels: dict[str, str]
    rate: float = 20.0
    lost: bool = False


_ALLOY: Final = {"component_path": "/", "component_id": "loki.write.loki", "host": "loki:3100", "tenant": ""}
_OTEL: Final = {"component_path": "/", "component_id": "otelcol.exporter.otlp.tempo", "exporter": "otlp/tempo"}
_RECEIVER: Final = {"component_path": "/", "component_id": "otelcol.receiver.otlp.spans", "transport": "http"}
PROGRAMS: Final[dict[str, Sequence[Documented]]] = {
    "loki": (
        Documented("loki_distributor_lines_received_total", {"tenant": "fake"}),
        Documented("loki_discarded_samples_total", {"tenant": "fake", "reason": "rate_limited"}, lost=True),
    ),
    "tempo": (
        Documented("tempo_distributor_spans_received_total", {"tenant": "single-tenant"}),
        Documented("tempo_discarded_spans_total", {"tenant": "single-tenant", "reason": "rate_limited"}, lost=True),
    ),
    "alloy": (
        Documented("loki_write_sent_entries_total", _ALLOY),
        Documented("loki_write_dropped_entries_total", _ALLOY | {"reason": "ingester_error"}, rate=0.0),
        Documented("otelcol_receiver_accepted_spans_total", _RECEIVER),
        Documented("otelcol_exporter_send_failed_spans_total", _OTEL, lost=True),
    ),
    "grafana": (),  # only whether it is up is asked
}


class Program(Served):
    """A foreign program's counters, which grow with time."""

    def __init__(self, counters: Sequence[Documented]) -> None:
        super().__init__(self._text)
        self.counters = counters
        self._started, self._losing = time.monotonic(), math.inf

    def lose(self) -> None:
        """Have it lose lines and spans from now on."""
        self._losing = time.monotonic()

    def _text(self) -> bytes:
        now = time.monotonic()
        lines: list[str] = []
        for each in self.counters:
            since = self._losing if each.lost or not each.rate else self._started
            if now < since and each.lost:
                continue
            labels = ",".join(f'{name}="{text}"' for name, text in each.labels.items())
            value = max(0.0, now - since) * (each.rate or 1.0)
            lines += [f"# TYPE {each.name} counter", f"{each.name}{{{labels}}} {value}"]
        return ("\n".join(lines) + "\n").encode()
