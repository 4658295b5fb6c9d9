"""gunicorn's logger: its own lines take the form of all others, and what only its messages tell is passed on."""

import logging
import logging.handlers
from collections.abc import Callable
from typing import Any

from gunicorn import glogging

from observability import catalogue, logs, runtime, store

# Called with the pid and the wait status of a child of the master that is no worker.
on_reaped: list[Callable[[int, int], None]] = []


class Logger(glogging.Logger):  # type: ignore[misc]
    """What gunicorn's `logger_class` names."""

    def setup(self, cfg: Any) -> None:
        """Take the configuration; gunicorn calls it at the start and on every reload."""
        super().setup(cfg)  # for what else it does: syslog, and stdout redirected to a file
        for log in (self.error_log, self.access_log):
            log.handlers = [each for each in log.handlers if isinstance(each, logging.handlers.SysLogHandler)]
            log.propagate = True
            log.setLevel(logging.NOTSET)  # ours decides
        runtime.prepare()  # before the app is loaded, in the master too where it is preloaded

    @property
    def access_log_enabled(self) -> bool:
        """Always false: the middleware writes a line for every request."""
        return False

    def access(self, *_: Any) -> None:
        """Write nothing, for the same reason."""

    def reopen_files(self) -> None:
        """Reopen what is a file; gunicorn calls it on USR1, and in a new worker."""
        super().reopen_files()
        logs.output.open()

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log a warning, and count it where it tells of a request that could not be parsed."""
        if isinstance(msg, str) and msg.startswith("Invalid request from ip="):
            store.child(catalogue.INVALID_REQUESTS).inc()
        super().warning(msg, *args, **kwargs)

    def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log at debug level, and pass on whether a child that is no worker was reaped."""
        if isinstance(msg, str) and msg.startswith("Reaped unknown child process") and len(args) == 2:
            _tell_reaped(*args)
        super().debug(msg, *args, **kwargs)


def _tell_reaped(pid: int, status: int) -> None:
    for callback in list(on_reaped):
        try:
            callback(pid, status)
        except Exception:
            logs.get_logger("observability").exception("could not note the end of a child", child_pid=pid)
