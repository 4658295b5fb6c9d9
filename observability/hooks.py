"""gunicorn's server hooks: none may raise, none may block.

A hook that raises would kill the master or halt the server, so each is wrapped: what fails is counted and logged, and
the server goes on. The one exception is a state directory that the configuration should not have named: it stops the
boot with one line, before the first worker is forked.
"""

import functools
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import gunicorn

from observability import catalogue, gunicorn_log, logs, runtime, slots, store, traces
from observability.agent_process import AgentProcess
from observability.settings import Server, Settings, load, shown

store.STORE.claims_lazily = False  # in this process the hooks claim: a master that took a worker's slot would lie

_agent: AgentProcess | None = None


def _never_raises(hook: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(hook)
    def guarded(*args: Any) -> None:
        try:
            hook(*args)
        except Exception as error:
            if isinstance(error, slots.DirectoryError) and hook.__name__ == "on_starting":
                raise  # gunicorn prints it as one line and exits with 1
            runtime.failed(hook.__name__, error)

    return guarded


@_never_raises
def nworkers_changed(_server: Any, new: int, _old: int | None) -> None:
    """Note how many workers are wanted; runs first of all, and on every reload."""
    store.child(catalogue.WORKERS, "target").set(new)


@_never_raises
def on_starting(server: Any) -> None:
    """Open the state directory, and say what the server runs with."""
    loaded = runtime.settings()
    upgraded_from = int(os.environ.get("GUNICORN_PID", 0))
    inherited = _open_directory(loaded, upgraded_from)
    if loaded.agent:
        _make_agent(loaded, inherited)  # first: it can answer even where the disk has no room for a slot
    store.STORE.claim("master")
    store.STORE.slot.write_note(
        upgraded_from=upgraded_from, agent_fd=_agent.fd if _agent else -1, worker_class=server.cfg.worker_class_str
    )
    store.child(catalogue.INFO, gunicorn.__version__, platform.python_version()).set(1)
    effective = dict([*shown(loaded), *shown(load(Server))]) | _effective(server)
    logs.get_logger("observability").info("settings", settings=effective)


def _open_directory(loaded: Settings, upgraded_from: int) -> int:
    """Prepare the state directory; empty it unless it is taken over. Return the old master's agent socket, or -1."""
    slots.prepare(loaded.directory)
    owner = slots.master_of(loaded.directory)
    if owner is None or owner.get("pid") != upgraded_from:
        if owner is not None:
            raise slots.DirectoryError(
                f"OBSERVABILITY_DIR is {loaded.directory}, which the server with pid {owner.get('pid')} uses, "
                "but takes a directory of this server's own (so does OBSERVABILITY_AGENT_PORT)"
            )
        slots.empty(loaded.directory)
        return -1
    if not slots.stamped(loaded.directory):
        slots.empty(loaded.directory)
    return int(owner.get("agent_fd", -1))


def _effective(server: Any) -> dict[str, Any]:
    """Return what gunicorn really runs with where a flag may have won over the environment."""
    cfg = server.cfg
    return {
        "GUNICORN_BIND": ",".join(str(each) for each in cfg.bind),
        "WEB_CONCURRENCY": cfg.workers,
        "GUNICORN_WORKER_CLASS": cfg.worker_class_str,
        "GUNICORN_THREADS": cfg.threads,
        "GUNICORN_TIMEOUT": cfg.timeout,
        "GUNICORN_GRACEFUL_TIMEOUT": cfg.graceful_timeout,
        "GUNICORN_MAX_REQUESTS": cfg.max_requests,
    }


def _make_agent(loaded: Settings, inherited: int) -> None:
    global _agent
    _agent = AgentProcess(loaded)
    _agent.listen(inherited)
    gunicorn_log.on_reaped.append(_agent.reaped)


@_never_raises
def when_ready(_server: Any) -> None:
    """Start the agent: listeners are open, and no worker is forked yet."""
    if _agent is not None:
        _agent.start()


@_never_raises
def on_reload(_server: Any) -> None:
    """Count a reload."""
    store.child(catalogue.RELOADS).inc()


@_never_raises
def pre_exec(_server: Any) -> None:
    """Take the agent's socket through the exec of a binary upgrade (USR2)."""
    if _agent is not None:
        _agent.hand_over()


@_never_raises
def post_fork(server: Any, worker: Any) -> None:
    """Claim a slot: the worker is forked, and neither gevent's patch nor the app is there yet."""
    if _agent is not None:
        _agent.forget()
    slot = store.STORE.claim("worker")
    store.STORE.claims_lazily = True  # for this worker's own children
    slot.write_note(
        worker_class=server.cfg.worker_class_str,
        age=worker.age,
        master=worker.ppid,
        heartbeat_fd=worker.tmp.fileno(),
        timeout=server.cfg.timeout,
        booted=False,
    )
    store.child(catalogue.WORKER_START).set(slot.note["started"])
    store.child(catalogue.WORKER_INFO, server.cfg.worker_class_str).set(1)
    store.child(catalogue.WORKER_CAPACITY).set(_capacity(server.cfg))
    logs.bind_process(worker=slot.number)


def _capacity(cfg: Any) -> int:
    """Return how many requests a worker can run at the same time."""
    name = cfg.worker_class_str
    if name.startswith("gevent"):
        return int(cfg.worker_connections)
    return int(cfg.threads) if name == "gthread" else 1


@_never_raises
def post_worker_init(_worker: Any) -> None:
    """Start what must not start before gevent's patch, and say that the worker is ready."""
    runtime.begin_process()
    if "gevent.monkey" in sys.modules:
        logs.watch_gevent()
    store.STORE.slot.write_note(booted=True)


@_never_raises
def worker_exit(_server: Any, worker: Any) -> None:
    """Give the last spans a moment; the hook also runs in the master, for a worker that was gone already."""
    if worker.pid == os.getpid():
        traces.stop(runtime.settings().exit_flush)


@_never_raises
def child_exit(_server: Any, worker: Any) -> None:
    """Say in the dead worker's slot when it ended."""
    slots.mark_ended(runtime.settings().directory, worker.pid)
    if _agent is not None:
        _agent.ensure()


@_never_raises
def on_exit(_server: Any) -> None:
    """Take the agent along."""
    if _agent is not None:
        _agent.stop()
