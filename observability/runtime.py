"""A process's telemetry: begun once in each process, whoever serves.

Under gunicorn the hooks begin it; under `flask run`, a script or a test the first request does.
"""

import contextlib
import os
import socket
import time

from observability import catalogue, logs, store, traces
from observability.settings import Settings, load

_REPEAT_SECONDS = 10.0
_logged: dict[str, float] = {}
_settings: Settings | None = None


def settings() -> Settings:
    """Return this process's settings, read once.

    Raises:
        SettingsError: a variable is refused.
    """
    global _settings
    if _settings is None:
        _settings = load(Settings)
    return _settings


def prepare() -> None:
    """Set up what must stand before the app's own modules are imported: the log, and the tracing of libraries."""
    logs.configure(settings())
    traces.instrument_libraries(settings())


def begin_process(of: store.Store = store.STORE) -> None:
    """Begin in this process: its slot, and its traces. Safe to call again."""
    of.claim_if_lazy()
    logs.adopt_servers()
    logs.bind_process(**({"worker": of.number} if of.number and of.slot.role == "worker" else {}))
    traces.start(settings(), f"{socket.gethostname()}/{of.slot.role}-{of.number or os.getpid()}")


def failed(where: str, error: BaseException) -> None:
    """Count and log a failure of our own; the same place is logged at most every few seconds. Never raises."""
    with contextlib.suppress(Exception):  # the last line of defence: there is nobody left to tell
        store.child(catalogue.HOOK_FAILURES, where).inc()
    with contextlib.suppress(Exception):
        now = time.monotonic()
        if now - _logged.get(where, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            _logged[where] = now
            logs.get_logger("observability").error("telemetry failed, the server goes on", hook=where, exc_info=error)
