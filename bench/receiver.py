"""A receiver of traces over OTLP/HTTP in a process of its own: it reads every span, counts it, and forgets it.

As a program it prints its port and serves until its standard input ends; GET /spans says how many came.
"""

import gzip
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_DECODE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


class Receiver:
    """A receiver that lives while its block runs.

    Args:
        prefix: what its command begins with, such as taskset and a core.
    """

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._command = [*prefix, sys.executable, "-m", "bench.receiver"]

    def __enter__(self) -> "Receiver":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def spans(self) -> int:
        """Return how many spans came."""
        with urllib.request.urlopen(f"{self.endpoint}/spans", timeout=10) as answer:
            return int(answer.read())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    spans = 0

    def do_POST(self) -> None:
        """Take spans."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        body = _DECODE.get(self.headers.get("Content-Encoding", ""), bytes)(body)
        message = ExportTraceServiceRequest.FromString(body)
        _Handler.spans += sum(len(scope.spans) for each in message.resource_spans for scope in each.scope_spans)
        self._answer(b"", "application/x-protobuf")  # an empty message: all were taken

    def do_GET(self) -> None:
        """Say how many came."""
        self._answer(str(_Handler.spans).encode(), "text/plain")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def main() -> None:
    """Serve until the standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
