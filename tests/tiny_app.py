"""The smallest WSGI app, without a framework: what is measured is the server and the telemetry."""

from collections.abc import Callable, Iterable
from typing import Any

import observability


def tiny(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"tiny"]


app = observability.instrument(tiny)
