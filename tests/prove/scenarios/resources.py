"""Too little memory or CPU, or more workers than it takes: rules/resources.yml."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from tests.prove.scenario import Scenario
from tests.prove.scenarios import memory
from tests.prove.scenarios.pressure import FULL, QUEUE, SLOW, WAITING, faults
from tests.prove.stack import Setup, Stack
from tests.server import wait_until


def _compute(stack: Stack) -> AbstractContextManager[None]:
    return faults(stack, "cpu?seconds=1", clients=4)


@contextmanager
def _more_workers(stack: Stack) -> Iterator[None]:
    for wanted in (3, 4):
        stack.server.signal(signal.SIGTTIN)
        wait_until(partial(_are, stack, wanted), 20, f"{wanted} workers")
    yield
    for wanted in (3, 2):
        stack.server.signal(signal.SIGTTOU)
        wait_until(partial(_are, stack, wanted), 20, f"{wanted} workers")


def _are(stack: Stack, workers: int) -> bool:
    return len(stack.server.worker_pids()) == workers


SCENARIOS = (
    Scenario(
        name="memory-nearly-full",
        about="requests leak, until the control group of the server has used 92 % of its memory",
        alerts=("MemoryNearLimit",),
        inject=memory.leak_nearly_all,
        arrange=memory.limit,
        related={"MemoryLeaking": "that is how the memory was used up"},
        lacking=memory.no_group_of_version_2,
        true_scale=True,
    ),
    Scenario(
        name="leak",
        about="two requests a second leak a MiB each",
        alerts=("MemoryLeaking",),
        inject=memory.leak_slowly,
        settle=70,
    ),
    Scenario(
        name="one-core",
        about="four sync workers compute on one core",
        alerts=("CpuStarved",),
        inject=_compute,
        setup=Setup(
            env={"GUNICORN_WORKER_CLASS": "sync", "WEB_CONCURRENCY": 4},
            prefix=("taskset", "-c", str(min(os.sched_getaffinity(0)))),
        ),
        related={**FULL, **QUEUE, **WAITING, **SLOW},
        true_scale=True,
        alone=True,
    ),
    Scenario(
        name="too-many-workers",
        about="two workers more are asked for (TTIN) than a little traffic needs",
        alerts=("WorkersOverProvisioned",),
        inject=_more_workers,
        settle=60,
    ),
)
