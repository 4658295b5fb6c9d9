"""gunicorn's server hooks: none may raise, none may block.

A hook that raises would kill the master or halt the server, so each is wrapped: what fails is counted and logged, and
the server goes on. The one exception is a state directory that the configuration should not have named: it stops the
boot with one line, before the first worker is forked.
"""

import functools
import gc
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import gunicorn

from observability import (
    catalogue,
    events,
    flight,
    frameworks,
    gunicorn_log,
    last_signal,
    layout,
    logs,
    previous,
    probes,
    runtime,
    slots,
    stacks,
    store,
    traces,
    worker_classes,
)
from observability.agent_process import AgentProcess
from observability.exits import MOST_REQUESTS, Exits, leaves_unbooted
from observability.marks import Marks
from observability.settings import Server, Settings, load, shown

store.STORE.claims_lazily = False  # in this process the hooks claim: a master that took a worker's slot would lie

# Shown from the start, so that the first one is an increase: alerts ask for that.
_FROM_ZERO: tuple[tuple[Any, ...], ...] = (
    (catalogue.LOG_LINES_DROPPED,),
    (catalogue.RELOADS,),
    *((catalogue.LOG_MESSAGES, level) for level in events.SEVERITIES),
    *((catalogue.SPANS, outcome) for outcome in ("exported", "dropped")),
)

_agent: AgentProcess | None = None
_exits: Exits | None = None
_marks: Marks | None = None  # in a worker: its own


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
def nworkers_changed(server: Any, new: int, _old: int | None) -> None:
    """Note how many workers are wanted; runs first of all, and on every reload."""
    if _exits is not None:
        _exits.want(server, new)
    store.child(catalogue.WORKERS, "target").set(new)


@_never_raises
def on_starting(server: Any) -> None:
    """Open the state directory, and say what the server runs with; what fails of it takes nothing else along."""
    loaded = runtime.settings()
    upgraded_from = int(os.environ.get("GUNICORN_PID", 0))
    inherited, ended = _open_directory(loaded, upgraded_from)
    if loaded.agent:
        _part("agent", lambda: _make_agent(loaded, inherited))  # it answers even where the disk has no room for a slot
    _part("slot", lambda: _claim(server, upgraded_from))
    _part("exits", lambda: _make_exits(loaded))
    store.child(catalogue.INFO, gunicorn.__version__, platform.python_version()).set(1)
    resource = (loaded.service_name, loaded.service_version, loaded.environment)
    store.child(catalogue.TARGET_INFO, *resource).set(1)
    effective = dict([*shown(loaded), *shown(load(Server))]) | _effective(server)
    logs.get_logger("observability").info("settings", settings=effective)
    if ended is not None and ended["outcome"] != "clean":
        logs.get_logger("observability").warning("the server before this one did not end well", **_told(ended))
        store.child(catalogue.PREVIOUS_END, ended["outcome"]).set(ended["time"])


def _part(name: str, act: Callable[[], object]) -> None:
    """Do one part of a hook whose failure must not keep the other parts from being done."""
    try:
        act()
    except Exception as error:
        runtime.failed(name, error)


def _claim(server: Any, upgraded_from: int) -> None:
    store.STORE.claim("master")
    store.STORE.slot.write_note(
        upgraded_from=upgraded_from,
        agent_fd=_agent.fd if _agent else -1,
        worker_class=server.cfg.worker_class_str,
        preload=bool(server.cfg.preload_app),
    )
    for metric, *labels in _FROM_ZERO:
        store.child(metric, *labels).inc(0)


def _told(ended: dict[str, Any]) -> dict[str, Any]:
    return {key: ended[key] for key in ("outcome", "reason", "status", "exits", "boot_errors", "in_flight")}


def _make_exits(loaded: Settings) -> None:
    global _exits
    _exits = Exits(loaded.directory)
    gunicorn_log.on_died.append(_exits.said)
    gunicorn_log.on_stopping.append(_exits.stop)


def _open_directory(loaded: Settings, upgraded_from: int) -> tuple[int, dict[str, Any] | None]:
    """Prepare the state directory; empty it unless it is taken over.

    Returns the old master's agent socket, or -1; and how the server before this one ended, if there was one.
    """
    slots.prepare(loaded.directory)
    owner = slots.master_of(loaded.directory)
    if owner is None or owner.get("pid") != upgraded_from:
        if owner is not None:
            raise slots.DirectoryError(
                f"OBSERVABILITY_DIR is {loaded.directory}, which the server with pid {owner.get('pid')} uses, "
                "but takes a directory of this server's own (so does OBSERVABILITY_AGENT_PORT)"
            )
        ended = _end_of_the_last(loaded)
        _part("directory", lambda: slots.empty(loaded.directory))
        return -1, ended
    if not slots.stamped(loaded.directory):
        slots.empty(loaded.directory)
    return int(owner.get("agent_fd", -1)), None


def _end_of_the_last(loaded: Settings) -> dict[str, Any] | None:
    try:
        return previous.keep(loaded.directory)
    except Exception as error:  # whatever an older release, or a torn disk, has left there
        runtime.failed("previous", error)
        return None


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
    # What is loaded by now stays: a worker's collector that went through it would write to all of it, and so unshare
    # its memory from the master's.
    gc.collect()
    gc.freeze()


@_never_raises
def on_reload(server: Any) -> None:
    """Count a reload: the workers that are there now are to be replaced."""
    store.child(catalogue.RELOADS).inc()
    if server.cfg.preload_app:  # what was loaded once stays, whatever the configuration says later
        _part("slot", lambda: store.STORE.slot.write_note(preload=True))
    if _exits is not None:
        _exits.reload(server)


@_never_raises
def pre_exec(_server: Any) -> None:
    """Take the agent's socket through the exec of a binary upgrade (USR2)."""
    if _agent is not None:
        _agent.hand_over()


@_never_raises
def pre_fork(server: Any, worker: Any) -> None:
    """Make the memory in which the worker will leave its marks."""
    if _exits is not None:
        _exits.expect(server, worker)


@_never_raises
def post_fork(server: Any, worker: Any) -> None:
    """Claim a slot: the worker is forked, and neither gevent's patch nor the app is there yet."""
    global _marks
    if _agent is not None:
        _agent.forget()
    _marks = _exits.marks_of(worker) if _exits is not None else None
    if _marks is not None:
        _marks.identify(0)
    slot = store.STORE.claim("worker")
    if _marks is not None:
        _marks.identify(slot.number)
    _part("stacks", lambda: stacks.open_files(runtime.settings().directory, slot.number))
    store.STORE.claims_lazily = True  # for this worker's own children
    slot.write_note(
        worker_class=server.cfg.worker_class_str,
        age=worker.age,
        master=worker.ppid,
        heartbeat_fd=worker.tmp.fileno(),
        timeout=server.cfg.timeout,
        booted=False,
        requests_before=slot.values[layout.REQUESTS],
    )
    store.child(catalogue.WORKER_START).set(slot.note["started"])
    store.child(catalogue.WORKER_INFO, server.cfg.worker_class_str).set(1)
    capacity = worker_classes.capacity(server.cfg.worker_class_str, server.cfg.threads, server.cfg.worker_connections)
    if capacity is not None:
        store.child(catalogue.WORKER_CAPACITY).set(capacity)
    logs.bind_process(worker=slot.number)


@_never_raises
def post_worker_init(worker: Any) -> None:
    """Start what must not start before gevent's patch, and say that the worker is ready."""
    if _marks is not None:
        _marks.set(Marks.BOOTED)
    runtime.begin_process()
    if "gevent.monkey" in sys.modules:
        logs.watch_gevent()
    _part("stacks", stacks.begin)
    probes.start(worker)
    last_signal.before(functools.partial(_leave, worker))
    app = getattr(worker, "wsgi", None) or getattr(worker, "asgi", None)
    if told := frameworks.mismatch(app, worker.cfg.worker_class_str):
        logs.get_logger("observability").error(told)
    store.STORE.slot.write_note(booted=True)


@_never_raises
def worker_abort(worker: Any) -> None:
    """Write down what the worker was doing: the master gives it up, and ending it ends its requests.

    The master kills it a second later, so what matters most comes first; the routes run code of the app's.
    """
    requests = list(flight.read(flight.copy(store.STORE.slot.memory)))
    total, oldest, now = len(requests), requests[:MOST_REQUESTS], time.monotonic()
    for request in oldest:
        request["age"] = now - request["start"]
    if _marks is not None:
        _marks.write_requests(total, oldest)
        stacks.add_last_words(oldest)
        _marks.write_requests(total, [request | {"route": _route(worker, request)} for request in oldest])


def _route(worker: Any, request: dict[str, Any]) -> str:
    """Return the route's template, where the app is Flask's and knows the path."""
    try:
        adapter = worker.wsgi.url_map.bind("localhost")
        return str(adapter.match(request["path"], request["method"], return_rule=True)[0].rule)
    except Exception:
        return ""


@_never_raises
def worker_exit(_server: Any, worker: Any) -> None:
    """Mark an orderly end, and give the last spans a moment.

    The hook also runs in the master, for a worker that was gone already.
    """
    if worker.pid == os.getpid():
        _leave(worker)


def _leave(worker: Any) -> None:
    _part("stacks", stacks.end)
    if _marks is not None:
        _mark_end(_marks, worker)
    probes.stop()  # what takes long from here on is no blocked loop
    traces.stop(runtime.settings().exit_flush)


def _mark_end(marks: Marks, worker: Any) -> None:
    leaving = sys.exc_info()[1]  # the hook runs in a `finally`
    code = getattr(leaving, "code", 0)
    if code and not marks.has(Marks.BOOTED) and leaving is not None:
        leaves_unbooted(marks, code, leaving.__context__)
    if worker.nr >= worker.max_requests:
        marks.set(Marks.RECYCLED)
    marks.set(Marks.EXITED)


@_never_raises
def child_exit(server: Any, worker: Any) -> None:
    """Find out why the worker ended, and say in its slot when."""
    if _exits is not None:
        _exits.ended(server, worker)
    if _agent is not None:
        _agent.ensure()


@_never_raises
def on_exit(server: Any) -> None:
    """Account for the workers that were not waited for, write down how the server ends, and take the agent along."""
    try:
        if _exits is not None:
            _exits.left_over(server)
            _write_end(server)
    finally:
        if _agent is not None:
            _agent.stop()


def _write_end(server: Any) -> None:
    if server.reexec_pid or server.master_pid == os.getppid():  # the server lives on under another master
        return
    reason = sys.exc_info()[1]  # StopIteration, or gunicorn's HaltServer
    previous.note(str(getattr(reason, "reason", "") or ""), int(getattr(reason, "exit_status", 0)))


def pre_request(worker: Any, request: Any) -> None:
    """Log a request's begin at debug level, as gunicorn's own hook does, but at no cost above it."""
    if events.threshold <= logging.DEBUG:
        worker.log.debug("%s %s", request.method, request.path)
