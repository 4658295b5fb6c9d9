"""One HTTP connection to the OTLP receiver, set up by OpenTelemetry's environment variables.

It stands on the standard library, which gunicorn has imported anyway: urllib3, and the instrumentation that wakes up
with it, would cost each worker 28 ms of CPU and 2.2 MB.
"""

import base64
import gzip
import http.client
import logging
import os
import time
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from opentelemetry.util.re import parse_env_headers

if TYPE_CHECKING:
    import ssl

_log = logging.getLogger(__name__)
_LONGEST_ANSWER = 64 * 1024
_COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


class Answer(NamedTuple):
    """What the receiver answers."""

    status: int
    reason: str
    retry_after: str
    body: bytes


def variable(name: str) -> str:
    """Return OTEL_EXPORTER_OTLP_TRACES_<name>, or what is set for all signals, or an empty text."""
    value = os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")
    return (value or "").strip()


class Connection:
    """A connection that is made when it is needed, and kept.

    Args:
        url: where to post to; what is wrong with it is said by the first post.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._compression = _compression()
        self._headers = _headers(self._compression)
        self._http: http.client.HTTPConnection | None = None
        self._target = ""

    def compressed(self, body: bytes) -> bytes:
        """Compress a body as the receiver is to get it."""
        return _COMPRESSIONS[self._compression](body) if self._compression else body

    def post(self, body: bytes, deadline: float) -> Answer:
        """Post a body that is compressed already, and return the answer.

        A kept connection that turns out to be dead is replaced once: receivers close idle ones.

        Args:
            body: from `compressed`.
            deadline: on the monotonic clock.

        Raises:
            OSError: there is no way to the receiver, or it took too long.
            http.client.HTTPException: what it says is no HTTP, or ends too soon.
        """
        if self._http is not None and self._http.sock is not None:
            try:
                return self._post(body, deadline)
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                pass
        return self._post(body, deadline)

    def _post(self, body: bytes, deadline: float) -> Answer:
        try:
            connection = self._connected(deadline)
            connection.request("POST", self._target, body, self._headers)
            connection.sock.settimeout(_left(deadline))
            answer = connection.getresponse()
            content = answer.read(_LONGEST_ANSWER)
            if answer.length and len(content) < _LONGEST_ANSWER:  # newer versions of Python raise it themselves
                raise http.client.IncompleteRead(content, answer.length)
            if not answer.isclosed():
                self.close()  # what else it has to say is not waited for
        except BaseException:
            self.close()
            raise
        return Answer(answer.status, answer.reason, answer.getheader("Retry-After") or "", content)

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        if self._http is None:
            self._http, self._target, headers = _connection(urlsplit(self._url))
            self._headers |= headers
        if self._http.sock is None:
            self._http.timeout = _left(deadline)
            self._http.connect()
        self._http.sock.settimeout(_left(deadline))
        return self._http

    def close(self) -> None:
        """Close the connection; the next post makes it anew."""
        if self._http is not None:
            self._http.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _compression() -> str:
    asked = variable("COMPRESSION").lower()
    if asked in _COMPRESSIONS:
        return asked
    if asked not in ("", "none"):
        _log.warning("compression %r is none that OTLP has; spans are sent without", asked)
    return ""


def _headers(compression: str) -> dict[str, str | bytes]:
    headers: dict[str, str | bytes] = {"content-type": "application/x-protobuf", "user-agent": "sightline"}
    if compression:
        headers["content-encoding"] = compression
    for name, value in parse_env_headers(variable("HEADERS"), liberal=True).items():
        if "\r" in value or "\n" in value:
            _log.warning("header %s of OTEL_EXPORTER_OTLP_HEADERS is left out: it has more than one line", name)
        else:
            headers[name] = value.encode("utf-8", "surrogateescape")
    return headers


def _connection(url: SplitResult) -> tuple[http.client.HTTPConnection, str, dict[str, str | bytes]]:
    """Make a connection, unconnected, with what a request asks it for, and the headers that it needs."""
    host = url.hostname or ""
    target = url.path + (f"?{url.query}" if url.query else "")
    headers: dict[str, str | bytes] = {}
    if url.username is not None:
        headers["authorization"] = _basic(url)
    proxy = _proxy(url)
    if proxy is None:
        return _to(url), target, headers
    credentials: dict[str, str | bytes] = {"proxy-authorization": _basic(proxy)} if proxy.username is not None else {}
    if url.scheme == "https":
        tunnelled = _secure(proxy.hostname or "", proxy.port or 80)
        tunnelled.set_tunnel(host, url.port or 443, {name: str(value) for name, value in credentials.items()})
        return tunnelled, target, headers
    authority = url.netloc.rpartition("@")[2]
    return _to(proxy), f"http://{authority}{target}", headers | credentials


def _proxy(url: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment sets for a URL, as curl and the like have it, if any."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if found.scheme != "http" and (found.scheme, url.scheme) != ("https", "http"):
        raise ValueError(f"a proxy by {found.scheme} for a receiver by {url.scheme} is not supported")
    return found


def _to(url: SplitResult) -> http.client.HTTPConnection:
    if url.scheme == "https":
        return _secure(url.hostname or "", url.port or 443)
    return http.client.HTTPConnection(url.hostname or "", url.port or 80)


def _secure(host: str, port: int | None) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(host, port, context=_tls())


def _tls() -> "ssl.SSLContext":
    import ssl  # only those who need it pay for it

    bundle = variable("CERTIFICATE") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle and Path(bundle).is_dir():
        context = ssl.create_default_context(capath=bundle)
    else:
        context = ssl.create_default_context(cafile=bundle or None)  # without one, the system's
    if certificate := variable("CLIENT_CERTIFICATE"):
        context.load_cert_chain(certificate, variable("CLIENT_KEY") or None)
    return context


def _basic(url: SplitResult) -> str:
    pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
