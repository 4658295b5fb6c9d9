"""A small HTTP server of our own, on gevent: bounded in connections, and in how long one may last."""

import signal
from typing import Any

import gevent
from flask import Flask
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from observability import logs

MAX_CONNECTIONS = 1024
CONNECTION_SECONDS = 10  # a connection is closed after so long, however busy: none can hold its place for ever
STOP_SECONDS = 1
CONNECTION = "observability.connection"  # the key under which a request finds the time limit of its connection


class Handler(WSGIHandler):  # type: ignore[misc]
    """A connection with an end."""

    def handle(self) -> None:
        """Serve one connection."""
        with gevent.Timeout(CONNECTION_SECONDS, False) as self.limit:
            super().handle()

    def get_environ(self) -> dict[str, Any]:
        """Let a request that may take longer find the limit."""
        environ: dict[str, Any] = super().get_environ()
        environ[CONNECTION] = self.limit
        return environ


class ErrorLog:
    """Takes what gevent's server writes, as lines of the one log.

    Args:
        logger: who logs them.
    """

    def __init__(self, logger: str) -> None:
        self.logger = logger

    def write(self, message: str) -> None:
        """Log one message."""
        if message.strip():
            logs.get_logger(self.logger).warning(message.strip())

    def flush(self) -> None:
        """Do nothing: a line is written at once."""


def serve(listener: Any, app: Flask, logger: str) -> None:
    """Serve until TERM."""
    log, pool = ErrorLog(logger), Pool(MAX_CONNECTIONS)
    server = WSGIServer(listener, app, log=None, error_log=log, handler_class=Handler, spawn=pool)
    gevent.signal_handler(signal.SIGTERM, server.stop, STOP_SECONDS)
    server.serve_forever()
