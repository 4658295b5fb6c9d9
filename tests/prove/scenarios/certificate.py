"""Probes from outside: of a certificate, and of a service that is only seemingly there."""

import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import requests

from scripts.packages import Tool
from tests.prove.scenario import Scenario
from tests.prove.scenarios.pressure import FULL, QUEUE, WAITING, faults
from tests.prove.stack import MONITORING, Setup, Stack
from tests.server import free_port, wait_until

EXPORTER: Final = Tool("prometheus-blackbox-exporter", ("prometheus-blackbox-exporter", "blackbox_exporter"))


def _no_exporter() -> str:
    return "" if EXPORTER.path() else f"{EXPORTER.package} is not installed"


@contextmanager
def _exporter() -> Iterator[str]:
    """Run the exporter with the shipped configuration; the value is its address."""
    address = f"127.0.0.1:{free_port()}"
    config = MONITORING / "blackbox/blackbox.yml"
    command = [EXPORTER.path() or "", f"--config.file={config}", f"--web.listen-address={address}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: requests.get(f"http://{address}/-/healthy", timeout=2).ok, 20, "the exporter")
            yield address
        finally:
            process.terminate()


def _probe(setup: Setup, around: ExitStack) -> None:
    setup.exporter = around.enter_context(_exporter())


class _Site:
    """A site over TLS, whose certificate may be changed while it runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.show(days=90)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/"

    def show(self, days: int) -> None:
        """Make a certificate that is valid for so many days, and show it from now on."""
        key, certificate = self._directory / "key.pem", self._directory / f"{days}.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
        command += ["-days", str(days), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        self._context.load_cert_chain(certificate, key)

    def __enter__(self) -> "_Site":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _site(setup: Setup, around: ExitStack) -> _Site:
    _probe(setup, around)
    directory = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="sightline-prove-")))
    site = around.enter_context(_Site(directory))
    setup.probed = site.url
    return site


@contextmanager
def _expiring(stack: Stack) -> Iterator[None]:
    stack.extra.show(days=2)
    yield
    stack.extra.show(days=90)


def _hang(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "block?seconds=60", clients=2)


SCENARIOS = (
    Scenario(
        name="nobody-answers",
        about="both sync workers hang; the agent answers, and the probe from outside does not come through",
        alerts=("ServiceAbsent",),
        inject=_hang,
        arrange=_probe,
        setup=Setup(env={"GUNICORN_WORKER_CLASS": "sync", "GUNICORN_TIMEOUT": 120}),
        related={
            **FULL,
            **QUEUE,
            **WAITING,
            "WorkerStuck": "that is why nobody answers",
            "TrafficAbsent": "where nobody answers, no request is counted",
        },
        lacking=_no_exporter,
    ),
    Scenario(
        name="certificate-ends",
        about="a site shows a certificate that is valid for two days more",
        alerts=("CertificateExpiring",),
        inject=_expiring,
        arrange=_site,
        lacking=_no_exporter,
    ),
)
