"""What users feel: rules/users.yml, and the objectives."""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.prove.scenario import Scenario
from tests.prove.scenarios import breaking, certificate, pressure
from tests.prove.stack import Setup, Stack
from tests.server import wait_until


@contextmanager
def _reload_broken(stack: Stack) -> Iterator[None]:
    process = stack.server.process
    assert process is not None
    with breaking.broken(stack, "raise"):
        stack.server.signal(signal.SIGHUP)
        wait_until(lambda: process.poll() is not None, 20, "the halt")
        yield
    stack.server.start()
    stack.server.wait_ready()


def _fail(stack: Stack) -> AbstractContextManager[None]:
    return pressure.faults(stack, "fail", clients=1, pause=0.5)


def _slow(stack: Stack) -> AbstractContextManager[None]:
    return pressure.faults(stack, "sleep?seconds=0.4", clients=2, pause=0.2)


def _silence(stack: Stack) -> AbstractContextManager[None]:
    return stack.traffic.at(0)


SCENARIOS = (
    Scenario(
        name="reload-broken",
        about="a reload (HUP) brings code that fails at import: gunicorn halts",
        alerts=("ServiceAbsent",),
        inject=_reload_broken,
        arrange=breaking.arrange,
        setup=Setup(app=breaking.APP),
        related={
            **pressure.FAILED,
            "WorkerBootFailing": "that is why gunicorn halts; it is seen if a scrape comes between the two",
            "ServerEndedUnasked": "the next server tells of the halt",
        },
        true_scale=True,
    ),
    Scenario(
        name="errors",
        about="two requests a second fail by an exception, beside five that do not",
        alerts=("SloAvailabilityBurning", "LogErrors"),
        inject=_fail,
    ),
    Scenario(
        name="slow",
        about="three requests a second take 0.4 s, beside five that are fast",
        alerts=("SloLatencyBurning",),
        inject=_slow,
    ),
    Scenario(
        name="silence",
        about="requests stop coming",
        alerts=("TrafficAbsent",),
        inject=_silence,
        settle=30,
    ),
    *certificate.SCENARIOS,
)
