"""The agent's process: it serves, and it leaves with its master."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from socket import create_server
from typing import Any

import gevent
from flask import Flask, Response, jsonify, request
from gevent import socket

from observability import exposition, logs, oom, runtime, serving, slots, stacks, store
from observability.agent import control
from observability.agent.view import View
from observability.settings import Settings

_PR_SET_PDEATHSIG = 1  # prctl(2)
_RETRY_SECONDS = 1.0
_WATCH_SECONDS = 2.5


def create_agent_app(view: View, hand: control.Control | None = None) -> Flask:
    """Make the agent's small HTTP interface; all of it only reads, but for what `hand` does."""
    app = Flask("observability.agent")

    @app.get("/metrics")
    def metrics() -> Response:
        content_type = exposition.negotiate(request.headers.get("Accept", ""))
        page = view.page(exemplars=content_type == exposition.OPENMETRICS)
        return Response(exposition.write(page, content_type), content_type=content_type)

    @app.get("/livez")
    def livez() -> Response:
        return _health(*view.live())

    @app.get("/readyz")
    def readyz() -> Response:
        return _health(*view.ready())

    @app.get("/state")
    def state() -> Response:
        found = view.state(dead=request.args.get("dead") == "1")
        found["agent"]["control"] = hand.state() if hand else None
        return jsonify(found)

    @app.get("/workers/<int:slot>/stack")
    def stack(slot: int) -> Response:
        # its worker may take its time to answer, and no other request may wait for that
        found = gevent.get_hub().threadpool.apply(stacks.ask, (view.directory, slot))
        if found is None:
            return Response("no live worker answers there\n", 404, content_type="text/plain")
        return Response(found, content_type="text/plain; charset=utf-8")

    @app.get("/")
    def index() -> Response:
        return Response("/metrics\n/livez\n/readyz\n/state\n/workers/SLOT/stack\n", content_type="text/plain")

    if hand:
        control.install(app, hand)
    return app


def _health(well: bool, detail: str) -> Response:
    return Response(detail + "\n", 200 if well else 503, content_type="text/plain")


def serve(settings: Settings, master: int = 0, fd: int = -1, delay: float = 0.0) -> None:
    """Serve until the master is gone, or until TERM.

    Args:
        settings: the directory to read, and the address where no socket is inherited.
        master: the pid of the gunicorn master that started this process; 0 for a sidecar, which stays.
        fd: an inherited listening socket; -1 to open one, again and again while the port is taken.
        delay: seconds to wait first: the master sets it for an agent that keeps dying, since it cannot wait itself.
    """
    store.STORE.claims_lazily = False  # the agent is no worker
    logs.configure(settings)
    logs.bind_process(role="agent")
    if master:
        _leave_with(master, settings.directory)
    time.sleep(delay)
    listener = socket.socket(fileno=fd) if fd >= 0 else _listen(settings)
    view = View(settings.directory, settings.ready_workers, master)
    hand = _hand(view, settings)
    app = create_agent_app(view, hand)
    gevent.spawn(_watch, view, hand)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the master decides when to go
    host, port = listener.getsockname()[:2]
    logs.get_logger("observability.agent").info("agent listens", address=f"http://{host}:{port}", master=master)
    serving.serve(listener, app, "observability.agent")


def _hand(view: View, settings: Settings) -> control.Control | None:
    """Make what changes workers, where there is a token; a sidecar may see another process under the master's pid."""
    if settings.control_token_file is None:
        return None
    if not view.master:
        logs.get_logger("observability.agent").warning(
            "a sidecar changes no workers: OBSERVABILITY_CONTROL_TOKEN_FILE has no effect here"
        )
        return None
    return control.Control(view, settings.control_token_file)


def _listen(settings: Settings) -> Any:
    family = socket.AF_INET6 if ":" in settings.agent_host else socket.AF_INET
    complained = False
    while True:
        try:
            address = (settings.agent_host, settings.agent_port)
            return socket.socket(fileno=create_server(address, family=family, backlog=serving.MAX_CONNECTIONS).detach())
        except OSError as error:
            if not complained:
                logs.get_logger("observability.agent").error(
                    "the agent waits for its port", reason=f"OBSERVABILITY_AGENT_PORT: {error.strerror}"
                )
            complained = True
            gevent.sleep(_RETRY_SECONDS)


def _watch(view: View, hand: control.Control | None) -> None:
    """Look at the server now and then, whoever asks: what a worker had counted when it dies would be lost otherwise."""
    while True:
        gevent.sleep(_WATCH_SECONDS)
        try:
            if time.monotonic() - view.observed_at >= _WATCH_SECONDS:
                view.observe()
            if hand:
                hand.look()
        except Exception as error:
            runtime.failed("agent", error)


def _leave_with(master: int, directory: Path) -> None:
    """Die when the master does, however it dies; a master that was gone before this call is seen by its pid.

    Until then the state directory's stamp says every second that it lives.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != master:
        sys.exit(0)

    kills = oom.Watch(directory)

    def watch() -> None:  # PR_SET_PDEATHSIG is Linux's own, and follows the thread that forked
        while os.getppid() == master:
            slots.touch(directory)
            kills.look()
            gevent.sleep(_RETRY_SECONDS)
        os._exit(0)

    gevent.spawn(watch)
