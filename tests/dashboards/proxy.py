"""A real nginx with the shipped configuration, before servers on this host."""

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts import packages
from tests.server import ROOT, end, free_port, wait_until

SHIPPED = ROOT / "monitoring/nginx"
TEMPLATES = {"http": "plain.conf.template", "https": "tls.conf.template"}


class Proxy:
    """nginx with the shipped files.

    Args:
        directory: an empty one, which others may enter: nginx' own user does.
        servers: HOST:PORT of each server behind it.
        scheme: http, or https with a certificate that nobody trusts.
    """

    def __init__(self, directory: Path, servers: Sequence[str], scheme: str = "http") -> None:
        self.directory = directory
        self.servers = servers
        self.scheme = scheme
        self.ports = {name: free_port() for name in ("http", "https", "status")}
        self.url = f"{scheme}://127.0.0.1:{self.ports[scheme]}"
        self.status_url = f"http://127.0.0.1:{self.ports['status']}/stub_status"

    def __enter__(self) -> "Proxy":
        program = packages.NGINX.path()
        assert program, "nginx is not installed: apt-get install nginx-light"
        self._lay_out()
        options = ("-c", self.directory / "nginx.conf", "-e", self.directory / "error.log", "-g", "daemon off;")
        self.process = subprocess.Popen([program, *options])
        try:
            wait_until(self._listens, 20, "nginx")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.directory / "error.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[self.scheme])) == 0

    def _lay_out(self) -> None:
        for name in ("conf.d", "run", "tmp"):
            (self.directory / name).mkdir()
        (self.directory / "mime.types").write_text("types { text/html html; }\n")
        servers = "".join(f"  server {address};\n" for address in self.servers)
        (self.directory / "conf.d/app.conf").write_text(f"upstream app {{\n{servers}}}\n")
        if self.scheme == "https":
            self._certify()
        self._place("nginx.conf", "nginx.conf")
        self._place("proxy.conf", "proxy.conf")
        self._place(TEMPLATES[self.scheme], "conf.d/sightline.conf")

    def _certify(self) -> None:
        run = self.directory / "run"
        names = ("-keyout", run / "tls_key", "-out", run / "tls_certificate", "-subj", "/CN=localhost")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names]
        subprocess.run([*command, "-days", "30"], check=True, capture_output=True)

    def _place(self, name: str, target: str) -> None:
        """Put a shipped file where nginx looks for it here, with this host's ports and places."""
        text = (SHIPPED / name).read_text()
        for shipped, here in self._replacements().items():
            text = text.replace(shipped, here)
        (self.directory / target).write_text(text)

    def _replacements(self) -> dict[str, str]:
        ports = {8080: "http", 8443: "https", 8081: "status"}
        listening = {f"listen {port}": f"listen 127.0.0.1:{self.ports[name]}" for port, name in ports.items()}
        return listening | {
            " /tmp/": f" {self.directory}/tmp/",  # before the others, whose own places may be there
            "${MAX_BODY_BYTES}": "131072",
            "${TLS_PORT}": str(self.ports["https"]),
            "http://app:8000": "http://app",  # the group of servers in conf.d/app.conf
            "/etc/nginx": str(self.directory),
            "/run/secrets": str(self.directory / "run"),
            "/dev/stderr": str(self.directory / "error.log"),
            "/dev/stdout": str(self.directory / "access.log"),
        }
