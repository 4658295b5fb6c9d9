"""gunicorn's server hooks: none may raise, none may block.

A hook that raises would kill the master or halt the server, so each is wrapped: what fails is counted and logged, and
the server goes on. The one exception is a state directory that the configuration should not have named: it stops the
boot with one line, before the first worker is forked.
"""

import functools
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import gunicorn

from observability import (
    catalogue,
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
from observability.exits import Exits, Marks, boot_failed, is_boot_failure
from observability.settings import Server, Settings, load, shown

store.STORE.claims_lazily = False  # in this process the hooks claim: a master that took a worker's slot would lie

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
def nworkers_changed(_server: Any, new: int, _old: int | None) -> None:
    """Note how many workers are wanted; runs first of all, and on every reload."""
    store.child(catalogue.WORKERS, "target").set(new)


@_never_raises
def on_starting(server: Any) -> None:
    """Open the state directory, and say what the server runs with."""
    loaded = runtime.settings()
    upgraded_from = int(os.environ.get("GUNICORN_PID", 0))
    inherited, ended = _open_directory(loaded, upgraded_from)
    if loaded.agent:
        _make_agent(loaded, inherited)  # first: it can answer even where the disk has no room for a slot
    store.STORE.claim("master")
    store.STORE.slot.write_note(
        upgraded_from=upgraded_from, agent_fd=_agent.fd if _agent else -1, worker_class=server.cfg.worker_class_str
    )
    _make_exits(loaded)
    store.child(catalogue.INFO, gunicorn.__version__, platform.python_version()).set(1)
    effective = dict([*shown(loaded), *shown(load(Server))]) | _effective(server)
    logs.get_logger("observability").info("settings", settings=effective)
    if ended is not None and ended["outcome"] != "clean":
        logs.get_logger("observability").warning("the server before this one did not end well", **_told(ended))
        store.child(catalogue.PREVIOUS_END, ended["outcome"]).set(ended["time"])


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
        slots.empty(loaded.directory)
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


@_never_raises
def on_reload(server: Any) -> None:
    """Count a reload: the workers that are there now are to be replaced."""
    store.child(catalogue.RELOADS).inc()
    if _exits is not None:
        _exits.reload(server)


@_never_raises
def pre_exec(_server: Any) -> None:
    """Take the agent's socket through the exec of a binary upgrade (USR2)."""
    if _agent is not None:
        _agent.hand_over()


@_never_raises
def pre_fork(server: Any, worker: Any) -> None:
    """Make the page in which the worker will leave its marks."""
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
    stacks.open_file(runtime.settings().directory, slot.number)
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
    stacks.begin()
    probes.start(worker)
    last_signal.before(functools.partial(_leave, worker))
    app = getattr(worker, "wsgi", None) or getattr(worker, "asgi", None)
    if told := frameworks.mismatch(app, worker.cfg.worker_class_str):
        logs.get_logger("observability").error(told)
    store.STORE.slot.write_note(booted=True)


@_never_raises
def worker_abort(worker: Any) -> None:
    """Write down what the worker was doing: the master gives it up, and ending it ends its requests."""
    requests = list(flight.read(flight.copy(store.STORE.slot.memory)))
    for request in requests:
        request["route"] = _route(worker, request)
        request["age"] = time.monotonic() - request["start"]
    stacks.note_requests(requests)


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
    if _marks is not None:
        _mark_end(_marks, worker)
    probes.stop()  # what takes long from here on is no blocked loop
    traces.stop(runtime.settings().exit_flush)


def _mark_end(marks: Marks, worker: Any) -> None:
    leaving = sys.exc_info()[1]  # the hook runs in a `finally`
    code = getattr(leaving, "code", 0)
    if is_boot_failure(marks, code):
        boot_failed(marks, code, leaving.__context__ if leaving is not None else None)
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
    if server.reexec_pid or server.master_pid:  # the server lives on under another master
        return
    reason = sys.exc_info()[1]  # StopIteration, or gunicorn's HaltServer
    status = int(getattr(reason, "exit_status", 0))
    outcome = "halted" if status else "clean"
    previous.write(runtime.settings().directory, outcome, str(getattr(reason, "reason", "") or ""), status)
