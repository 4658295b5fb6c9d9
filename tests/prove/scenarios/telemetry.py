"""Whether what is seen of the service is true and complete: rules/telemetry.yml."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count

from tests.otlp import Receiver
from tests.prove.load import ask, pressing
from tests.prove.scenario import Scenario
from tests.prove.stack import Setup, Stack

PIPE_BYTES = 4096


@contextmanager
def _agent_stops(stack: Stack) -> Iterator[None]:
    (agent,) = stack.agents(stack.servers[1])
    agent.suspend()
    try:
        yield
    finally:
        agent.resume()


@contextmanager
def _agent_stumbles(stack: Stack) -> Iterator[None]:
    (agent,) = stack.agents(stack.server)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            agent.suspend()
            time.sleep(3.5)
            agent.resume()
            time.sleep(0.5)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _receiver(setup: Setup, around: ExitStack) -> Receiver:
    receiver = around.enter_context(Receiver())
    setup.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRACES_SAMPLER_ARG": 1}
    return receiver


@contextmanager
def _spans_refused(stack: Stack) -> Iterator[None]:
    stack.extra.status = 500
    yield
    stack.extra.ok()


class _Reader:
    """Reads a pipe, unless it pauses."""

    def __init__(self) -> None:
        self._from, self.to = os.pipe()
        fcntl.fcntl(self.to, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._reads = threading.Event()
        self._reads.set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while self._reads.wait() and os.read(self._from, PIPE_BYTES):
            pass
        os.close(self._from)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._reads.clear()
        try:
            yield
        finally:
            self._reads.set()

    def close(self) -> None:
        os.close(self.to)


def _pipe(setup: Setup, around: ExitStack) -> _Reader:
    reader = _Reader()
    around.callback(reader.close)
    setup.stdout = reader.to
    return reader


def _output_stands_still(stack: Stack) -> AbstractContextManager[None]:
    found: AbstractContextManager[None] = stack.extra.paused()
    return found


@contextmanager
def _slot_overwritten(stack: Stack) -> Iterator[None]:
    path = stack.server.state_directory / "worker-1.slot"
    with path.open("r+b", buffering=0) as file:  # never shorter: the worker has it mapped
        before = os.pread(file.fileno(), 64, 0)
        os.pwrite(file.fileno(), b"rubbish!" * 8, 0)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), before, 0)


def _endless_labels(stack: Stack) -> AbstractContextManager[None]:
    numbers = count()
    return pressing(1, lambda _: ask(f"{stack.server.url}/count/kind-{next(numbers)}"), pause=0.1)


SCENARIOS = (
    Scenario(
        name="agent-stopped",
        about="the agent of one server of two is stopped (SIGSTOP)",
        alerts=("AgentAbsent",),
        inject=_agent_stops,
        setup=Setup(servers=2),
        related={"ScrapeSlow": "each of its scrapes takes as long as Prometheus waits for it"},
        true_scale=True,
    ),
    Scenario(
        name="agent-slow",
        about="the agent runs for half a second in four (SIGSTOP, SIGCONT), as if it had no CPU",
        alerts=("ScrapeSlow",),
        inject=_agent_stumbles,
        only_true_scale=True,
    ),
    Scenario(
        name="spans-refused",
        about="the receiver of spans answers 500",
        alerts=("TracesDropped",),
        inject=_spans_refused,
        arrange=_receiver,
    ),
    Scenario(
        name="output-unread",
        about="nobody reads the pipe that is gunicorn's standard output",
        alerts=("LogLinesDropped",),
        inject=_output_stands_still,
        arrange=_pipe,
    ),
    Scenario(
        name="slot-overwritten",
        about="the head of a worker's slot file is overwritten",
        alerts=("MetricsStoreCorrupt",),
        inject=_slot_overwritten,
        related={"WorkersBelowTarget": "a worker whose slot cannot be read is not counted"},
    ),
    Scenario(
        name="endless-labels",
        about="each request counts under a label value of its own",
        alerts=("LabelSetsRefused",),
        inject=_endless_labels,
        setup=Setup(
            app="tests.probe_app:create_app()", sample=(("GET", "/"),), env={"OBSERVABILITY_MAX_LABEL_SETS": 10}
        ),
    ),
)
