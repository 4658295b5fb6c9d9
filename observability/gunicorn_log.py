"""gunicorn's logger: its own lines take the form of all others, and what only its messages tell is passed on."""

import logging
import logging.handlers
from collections.abc import Callable
from typing import Any

from gunicorn import glogging

from observability import catalogue, logs, runtime, store

# Called with the pid and the wait status of a child of the master that is no worker.
on_reaped: list[Callable[[int, int], None]] = []
# Called with the pid of a worker that ended badly, the name of the signal that ended it or "", and its exit code.
on_died: list[Callable[[int, str, int], None]] = []
# Called when a signal tells the master to end.
on_stopping: list[Callable[[], None]] = []
_STOPPING = frozenset({"term", "int", "quit"})


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

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log information, and pass on what it tells of the server's end or a worker's."""
        if msg == "Handling signal: %s" and args and args[0] in _STOPPING:
            _tell(on_stopping)
        _tell_died(msg, args)
        super().info(msg, *args, **kwargs)

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log a warning, and count it where it tells of a request that could not be parsed."""
        if isinstance(msg, str) and msg.startswith("Invalid request from ip="):
            store.child(catalogue.INVALID_REQUESTS).inc()
        _tell_died(msg, args)
        super().warning(msg, *args, **kwargs)

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log an error, without gunicorn's guess at the cause of a SIGKILL: the line after it says the real one."""
        _tell_died(msg, args)
        super().error(msg.removesuffix(_GUESS) if isinstance(msg, str) else msg, *args, **kwargs)

    def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log at debug level, and pass on whether a child that is no worker was reaped."""
        if isinstance(msg, str) and msg.startswith("Reaped unknown child process") and len(args) == 2:
            _tell(on_reaped, *args)
        super().debug(msg, *args, **kwargs)


_GUESS = " Perhaps out of memory?"


def _tell_died(msg: Any, args: tuple[Any, ...]) -> None:
    """Pass on what gunicorn's two messages say of a worker's end; the only place that knows their words."""
    if not isinstance(msg, str) or len(args) != 2 or not msg.startswith("Worker (pid:%s) "):
        return
    if msg.startswith("Worker (pid:%s) was sent %s!"):
        _tell(on_died, args[0], args[1], 0)
    elif msg.startswith("Worker (pid:%s) exited with code %s."):
        _tell(on_died, args[0], "", args[1])


def _tell(callbacks: list[Any], *args: Any) -> None:
    for callback in list(callbacks):
        try:
            callback(*args)
        except Exception as error:
            runtime.failed("log", error)
