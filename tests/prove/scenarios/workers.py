"""Full servers, and workers that hang or die: rules/workers.yml."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection

from tests.prove.load import ask, pressing
from tests.prove.scenario import Scenario
from tests.prove.scenarios import breaking, memory
from tests.prove.scenarios.pressure import FAILED, FULL, LOGGED, QUEUE, SLOW, WAITING, faults
from tests.prove.stack import Setup, Stack
from tests.server import wait_until


def _full(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "sleep?seconds=0.2", clients=8)


def _overflow(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "sleep?seconds=1", clients=40)


def _threads(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "sleep?seconds=0.2", clients=16)


def _block_often(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "block?seconds=0.9", clients=1, pause=1.5)


def _block_long(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "block?seconds=60", clients=1)


def _hang(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "block?seconds=100", clients=1)


def _hang_in_a_thread(stack: Stack) -> AbstractContextManager[None]:
    return pressing(1, lambda _: ask(f"{stack.server.url}/faults/sleep?seconds=110", timeout=115))


def _crash(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "crash?how=segv", clients=1, pause=3)


@contextmanager
def _boot_failing(stack: Stack) -> Iterator[None]:
    with breaking.broken(stack, "exit"):
        stack.server.signal(signal.SIGTTIN)
        yield
    stack.server.signal(signal.SIGTTOU)


@contextmanager
def _master_hangs(stack: Stack) -> Iterator[None]:
    victim = stack.server.worker_pids()[0]
    stack.server.signal(signal.SIGSTOP)
    try:
        os.kill(victim, signal.SIGKILL)
        yield
    finally:
        stack.server.signal(signal.SIGCONT)


@contextmanager
def _kill_master(stack: Stack) -> Iterator[None]:
    server = stack.server
    assert server.process is not None
    children = server.children()
    server.signal(signal.SIGKILL)
    server.process.wait(10)
    wait_until(lambda: not any(child.is_running() for child in children), 20, "the workers' end")
    server.start()
    server.wait_ready()
    yield


@contextmanager
def _one_connection(stack: Stack) -> Iterator[None]:
    with closing(HTTPConnection("127.0.0.1", stack.server.port, timeout=60)) as connection:
        url = f"{stack.server.url}/faults/cpu?seconds=0.3"
        with pressing(1, lambda _: ask(url, connection=connection)):
            yield


SYNC: dict[str, object] = {"GUNICORN_WORKER_CLASS": "sync"}
GEVENT: dict[str, object] = {"GUNICORN_WORKER_CLASS": "gevent"}

SCENARIOS = (
    Scenario(
        name="sync-full",
        about="eight clients ask two sync workers for work of 0.2 s each, without a pause",
        alerts=("WorkersSaturated", "ListenBacklogGrowing", "RequestsQueueing"),
        inject=_full,
        setup=Setup(env=SYNC),
        true_scale=True,
    ),
    Scenario(
        name="backlog-full",
        about="forty clients ask two sync workers, whose backlog has two places",
        alerts=("ListenBacklogOverflowing",),
        inject=_overflow,
        setup=Setup(env={**SYNC, "GUNICORN_BACKLOG": 2}),
        related={**FULL, **QUEUE, **WAITING, **SLOW},
        true_scale=True,
    ),
    Scenario(
        name="threads-full",
        about="sixteen clients ask two gthread workers of two threads for work of 0.2 s each",
        alerts=("WorkerThreadsExhausted",),
        inject=_threads,
        setup=Setup(env={"GUNICORN_THREADS": 2}),
        related={**FULL, **WAITING},
        true_scale=True,
    ),
    Scenario(
        name="loop-blocked-often",
        about="a request blocks the event loop of a gevent worker for 0.9 s, again and again",
        alerts=("WorkerLoopBlocked",),
        inject=_block_often,
        setup=Setup(env=GEVENT),
        related={**WAITING, **SLOW},
        true_scale=True,
    ),
    Scenario(
        name="loop-blocked-long",
        about="a request blocks the event loop of a gevent worker for a minute",
        alerts=("WorkerLoopBlocked",),
        inject=_block_long,
        setup=Setup(env={**GEVENT, "GUNICORN_TIMEOUT": 120}),
        related={**WAITING, **SLOW, "WorkerStuck": "its heartbeat stops with its loop"},
        true_scale=True,
    ),
    Scenario(
        name="worker-hangs",
        about="a request hangs in a sync worker, until gunicorn's timeout of 30 s kills it",
        alerts=("WorkerStuck", "WorkerTimeouts"),
        inject=_hang,
        setup=Setup(env=SYNC),
        related={**FAILED, **LOGGED, "RequestsQueueing": "one worker is left, and requests wait for it"},
        true_scale=True,
    ),
    Scenario(
        name="thread-hangs",
        about="a request hangs in one thread of a gthread worker, whose heartbeat goes on",
        alerts=("WorkerStuck",),
        inject=_hang_in_a_thread,
    ),
    Scenario(
        name="crashes",
        about="a request every three seconds ends its worker by SIGSEGV",
        alerts=("WorkerCrashLoop",),
        inject=_crash,
        related={**FAILED, **LOGGED, "RequestsQueueing": "requests wait for the worker that is left"},
        true_scale=True,
    ),
    Scenario(
        name="out-of-memory",
        about="requests leak, until the control group of the server has no memory left",
        alerts=("WorkerOutOfMemoryKills",),
        inject=memory.leak_fast,
        arrange=memory.limit,
        related={
            **FAILED,
            **LOGGED,
            "MemoryLeaking": "that is how the memory was used up",
            "MemoryNearLimit": "the memory was nearly used up before it was",
            "WorkerCrashLoop": "the leak goes on in the next workers, which are killed too",
            "RequestsQueueing": "a group without memory is slow: the kernel looks for pages before it kills",
            "SloLatencyBurning": "a group without memory is slow: the kernel looks for pages before it kills",
        },
        lacking=memory.no_group,
        true_scale=True,
    ),
    Scenario(
        name="boot-failing",
        about="a worker more is asked for (TTIN), and ends as it loads the app, again and again",
        alerts=("WorkerBootFailing",),
        inject=_boot_failing,
        arrange=breaking.arrange,
        setup=Setup(app=breaking.APP),
        related={**LOGGED, "WorkersBelowTarget": "the worker that is asked for does not come up"},
        true_scale=True,
    ),
    Scenario(
        name="master-hangs",
        about="gunicorn's master is stopped (SIGSTOP), and a worker is killed: nobody replaces it",
        alerts=("WorkersBelowTarget",),
        inject=_master_hangs,
        related={**FAILED, **LOGGED},
        true_scale=True,
    ),
    Scenario(
        name="master-killed",
        about="gunicorn's master is killed (SIGKILL), and started again",
        alerts=("ServerEndedUnasked",),
        inject=_kill_master,
        related={"RequestsQueueing": "requests wait for the new server's workers to boot"},
        true_scale=True,
    ),
    Scenario(
        name="one-connection",
        about="one client computes without a pause over one connection, which keeps it at one gevent worker of four",
        alerts=("LoadUneven",),
        inject=_one_connection,
        setup=Setup(env={**GEVENT, "WEB_CONCURRENCY": 4, "GUNICORN_KEEPALIVE": 75}),
        related={
            **SLOW,
            **WAITING,
            "WorkerLoopBlocked": "while it computes, nothing else runs on that worker's loop",
            "WorkersOverProvisioned": "three workers of four are idle",
        },
        alone=True,
    ),
)
