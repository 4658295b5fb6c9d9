"""What stands where Alloy does: it takes the spans that come, and says whether a trace was among them."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class Receiver(BaseHTTPRequestHandler):
    """OTLP/HTTP at /v1/traces; /seen/TRACE answers 200 or 404."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200 if self.path == "/v1/traces" else 404)

    def do_GET(self) -> None:
        asked = bytes.fromhex(self.path.rpartition("/")[2])
        self.answer(200 if any(asked in body for body in self.bodies) else 404)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ThreadingHTTPServer(("", 4318), Receiver).serve_forever()
