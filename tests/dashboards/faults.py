"""What is done to the stack for each condition of dashboards/needs.py, so that a panel which is rightly empty fills."""

import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from tests.dashboards.proxy import Proxy
from tests.dashboards.stack import Stack
from tests.prove.load import ask, pressing
from tests.prove.scenarios import memory
from tests.prove.stack import Setup
from tests.server import Server

Fault = Callable[[Stack], AbstractContextManager[None]]
FAILS_ONCE: Final = "asgi"  # where a single request fails, and none before it
PROBE: Final = "tests.probe_app:create_app()"
# There as soon as the whole stack is, and not before.
STANDING: Final = frozenset(
    {"gthread", "loop", "nginx", "postgres", "redis", "probe", "spans", "logs", "traces", "tuner"}
)
# One rule that each of its evaluations fails: both sides have several series of the same labels, which are none.
FAILING: Final = "groups: [{name: failing, interval: 1s, rules: [{record: failing:up:sum, expr: up + on () up}]}]\n"


def not_here(need: str) -> str:
    """Say why a condition cannot be provoked on this machine; empty where it can."""
    return memory.no_group_of_version_2() if need == "quota" else ""


def _asking(server: str, path: str, clients: int = 1, pause: float = 0.0) -> Fault:
    return lambda stack: pressing(clients, lambda _: ask(f"{stack.servers[server].url}{path}"), pause)


def _failures(stack: Stack) -> AbstractContextManager[None]:
    return pressing(1, lambda _: ask(f"{stack.servers['gthread'].url}/faults/fail"), pause=0.2)


@contextmanager
def _one_failure(stack: Stack) -> Iterator[None]:
    ask(f"{stack.servers[FAILS_ONCE].url}/faults/fail")
    yield


@contextmanager
def _forgetful(stack: Stack) -> Iterator[None]:
    """Have a directory where the tuner is to write its memory."""
    draft = stack.tuner.directory / "memory/memory.draft"
    draft.mkdir()
    try:
        yield
    finally:
        draft.rmdir()


@contextmanager
def _bad_requests(stack: Stack) -> Iterator[None]:
    def send(_: int) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", stack.servers["sync"].port), timeout=5) as to:
            to.sendall(b"this is no request\r\n\r\n")
            to.recv(100)

    with pressing(1, send, pause=0.3):
        yield


@contextmanager
def _slow_clients(stack: Stack) -> Iterator[None]:
    """Send nginx the first line of a request and no more, and whole requests on connections that stay open."""
    with ExitStack() as around:
        for more in (b"", b"Host: localhost\r\n\r\n") * 5:
            to = around.enter_context(socket.create_connection(("127.0.0.1", stack.proxy.ports["http"])))
            to.sendall(b"GET / HTTP/1.1\r\n" + more)
        yield


@contextmanager
def _nobody_told(stack: Stack) -> Iterator[None]:
    stack.alertmanager.stop()
    try:
        yield
    finally:
        stack.alertmanager.start()


@contextmanager
def _evicting(stack: Stack) -> Iterator[None]:
    stack.bound_redis(2**20)  # less than it takes when it is empty
    yield


@contextmanager
def _cache_errors(stack: Stack) -> Iterator[None]:
    stack.redis.stop()
    try:
        yield
    finally:
        stack.redis.start()
        stack.bound_redis()


@contextmanager
def _dropped_spans(stack: Stack) -> Iterator[None]:
    stack.receiver.status = 500
    try:
        yield
    finally:
        stack.receiver.ok()


@contextmanager
def _odd(stack: Stack) -> Iterator[None]:
    """Start a server of another version, with room for few label sets, and an output that nobody reads."""
    reading, writing = os.pipe()
    stack.around.callback(os.close, reading)
    stack.around.callback(os.close, writing)
    env = {"GUNICORN_WORKER_CLASS": "gthread", "WEB_CONCURRENCY": 1, "OBSERVABILITY_MAX_LABEL_SETS": 10}
    server = stack.serve("odd", PROBE, stdout=writing, SERVICE_VERSION="2.0.0", **env)
    numbers = itertools.count()
    with pressing(1, lambda _: ask(f"{server.url}/count/kind-{next(numbers)}"), pause=0.05):
        yield


@contextmanager
def _small(stack: Stack) -> Iterator[None]:
    """Start a server of which more is asked than its backlog takes, and with a hook that fails when a worker ends."""
    broken = {"GUNICORN_CMD_ARGS": "-c tests/gunicorn/broken.conf.py", "BROKEN_HOOK": "child_exit"}
    env = {"GUNICORN_WORKER_CLASS": "sync", "GUNICORN_BACKLOG": 2, "WEB_CONCURRENCY": 1, **broken}
    server = stack.serve("small", PROBE, **env)
    with (
        pressing(20, lambda _: ask(f"{server.url}/sleep/1", timeout=5)),
        pressing(1, lambda _: server.signal(signal.SIGHUP), pause=5),
    ):
        yield


@contextmanager
def _rules_failing(stack: Stack) -> Iterator[None]:
    (stack.rules / "failing.yml").write_text(FAILING)
    stack.prometheus.process.send_signal(signal.SIGHUP)
    yield


@contextmanager
def _tls(stack: Stack) -> Iterator[None]:
    addresses = [f"127.0.0.1:{server.port}" for server in stack.servers.values()]
    proxy = stack.around.enter_context(Proxy(stack.made("nginx-tls"), addresses, "https"))
    stack.scrape("blackbox", [f"{each.url}/healthz" for each in (stack.proxy, proxy)])
    yield


@contextmanager
def _reload(stack: Stack) -> Iterator[None]:
    stack.servers["gevent"].signal(signal.SIGHUP)
    yield


@contextmanager
def _corrupt_store(stack: Stack) -> Iterator[None]:
    path = stack.servers["odd"].state_directory / "worker-1.slot"
    with path.open("r+b", buffering=0) as file:  # never shorter: the worker has it mapped
        before = os.pread(file.fileno(), 64, 0)
        os.pwrite(file.fileno(), b"rubbish!" * 8, 0)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), before, 0)


def _agent(server: Server) -> psutil.Process:
    (agent,) = [child for child in psutil.Process(server.pid).children() if "agent" in child.cmdline()]
    return agent


@contextmanager
def _target_down(stack: Stack) -> Iterator[None]:
    agent = _agent(stack.servers["gthread"])
    agent.suspend()
    try:
        yield
    finally:
        agent.resume()


@contextmanager
def _dead_agent(stack: Stack) -> Iterator[None]:
    _agent(stack.servers["sync"]).kill()
    yield


@contextmanager
def _confined(stack: Stack) -> Iterator[None]:
    """Start a server in a control group with limits, and use its memory up."""
    setup = Setup()
    memory.limit(setup, stack.around)
    with suppress(OSError):  # where the CPU is not delegated, the memory still is
        Path(setup.prefix[-1]).with_name("cpu.max").write_text("50000 100000")
    server = stack.serve("confined", prefix=setup.prefix, GUNICORN_WORKER_CLASS="sync", WEB_CONCURRENCY=1)
    with pressing(1, lambda _: ask(f"{server.url}/faults/leak?mib=32"), pause=0.3):
        yield


@contextmanager
def _losses(stack: Stack) -> Iterator[None]:
    for program in stack.programs.values():
        program.lose()
    yield


# What goes together, since none of it hides another; each with the conditions that it brings about.
GROUPS: Final[tuple[tuple[tuple[tuple[str, ...], Fault], ...], ...]] = (
    (
        (("failures", "alerts"), _failures),
        # Full workers are what the tuner cures, here by one worker: what it decides, and what came of it, is its own.
        (("full-workers", "tuner-decisions", "tuner-action"), _asking("sync", "/faults/sleep?seconds=0.3", clients=8)),
        (("pool-timeouts",), _asking("gthread", "/faults/hold?seconds=1.5", clients=6)),
        (("label-sets", "start"), _odd),  # and log lines that are lost
        (("tls",), _tls),
        (("lost-lines", "lost-spans"), _losses),
        ((), _asking("gevent", "/faults/block?seconds=1.5", pause=0.5)),
        ((), _one_failure),
        ((), _bad_requests),
        ((), _slow_clients),
        ((), _nobody_told),
        ((), _cache_errors),
        ((), _dropped_spans),
        ((), _rules_failing),
    ),
    (
        (("dead-workers",), _asking("asgi", "/faults/crash?how=segv", pause=1)),
        (("reload",), _reload),
        (("quota",), _confined),
        (("hook-failures",), _small),
        ((), _asking("sync", "/faults/block?seconds=60")),
        ((), _corrupt_store),
        ((), _forgetful),
        ((), _target_down),
        ((), _dead_agent),
        ((), _evicting),
        ((), lambda stack: stack.people.closed()),
    ),
)


@contextmanager
def doing(stack: Stack, number: int) -> Iterator[frozenset[str]]:
    """Do what a group says while the block runs; the value is the conditions that it brings about."""
    with ExitStack() as around:
        possible = [(needs, fault) for needs, fault in GROUPS[number] if not any(map(not_here, needs))]
        for _, fault in possible:
            around.enter_context(fault(stack))
        yield frozenset(need for needs, _ in possible for need in needs)
