"""What workers cannot help against: the cause is named, and their number stays.

All of it is as shipped, scrapes, rules and the tuner's minute included. The row `dependency` compares with what was
usual in the last hour, which Prometheus tells once it has seen requests for more than five minutes: there health comes
first for so long.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Scenario, Setup
from tests.prove_tuning.upstream import Upstream
from tests.tuning.parts import Tuner

HEALTHY_SECONDS = 80.0  # a window and a look
USUAL_SECONDS = 390.0  # until there is something usual: five minutes, and a window
NAMED_WITHIN = 180.0  # a window, an evaluation, and two looks
LASTS_SECONDS = 90.0  # from then on, so that something else has its time to go wrong in
OVER_WITHIN = 180.0
FROZEN_WITHIN = 30.0
WELL = "well"
UNDECIDED = {WELL, "changing"}  # while the windows fill, requests may wait for what is not known yet
FAST, SLOW = 0.02, 0.6

Fault = Callable[[Run], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Cause:
    """What a scenario does, once all runs: health, the fault, and health again.

    Args:
        row: the one that is to be named.
        fault: holds while its block runs.
        path: what is asked for all the time.
        rate: how often, in requests a second.
        healthy: seconds before the fault.
        veto: what it says that forbids growth, if anything.
        faulty: whether what is asked for all the time may fail as well.
        lasting: whether the row holds for long after the fault, so that its end is not waited for.
    """

    row: str
    fault: Fault
    path: str = "/todos"
    rate: float = 10.0
    healthy: float = HEALTHY_SECONDS
    veto: str = ""
    faulty: bool = False
    lasting: bool = False

    def __call__(self, run: Run) -> None:
        """Have the fault come and go, and check that its row is named and nothing is changed."""
        with run.stack.tuner() as tuner, run.arrivals(self.path, self.rate, faulty=self.faulty):
            tuner.wait_fresh()
            run.rest(self.healthy)
            run.check("in health nothing is diagnosed", not _rows(tuner), ", ".join(_rows(tuner)) or "nothing")
            run.mark("fault")
            began = run.seconds
            with self.fault(run):
                self._named(run, tuner, began)
                run.rest(LASTS_SECONDS)
                self._frozen(run, tuner)
            run.mark("over")
            if not self.lasting:
                over = run.until(lambda: _rows(tuner)[-1:] == [WELL], OVER_WITHIN, "its end")
                run.check("its end is seen", over, ", ".join(_rows(tuner)))
        _unchanged(run)

    def _named(self, run: Run, tuner: Tuner, began: float) -> None:
        named = run.until(lambda: self.row in _rows(tuner), NAMED_WITHIN, f"the row {self.row}")
        if named:
            run.mark(f"diagnosis: {self.row}")
            run.numbers["named_after_seconds"] = round(run.seconds - began, 1)
        run.check(f"the row `{self.row}` is named", named, ", ".join(_rows(tuner)) or "nothing")

    def _frozen(self, run: Run, tuner: Tuner) -> None:
        rows = _rows(tuner)
        run.check("and no other", set(rows) <= {self.row, *UNDECIDED}, ", ".join(rows))
        if self.veto:
            # for a moment it may be stale, where no worker was there to be looked at
            held = run.until(lambda: tuner.metrics().sum("tuner_frozen", reason=self.veto) == 1, FROZEN_WITHIN, "it")
            run.check(f"growth is forbidden by it (tuner_frozen, {self.veto})", held)


def _rows(tuner: Tuner) -> list[str]:
    """Return the rows that were named, in their order; one that is said again with other numbers counts once."""
    found = [each["rule"] for each in tuner.decisions("decision")]
    return [row for row, before in zip(found, ["", *found], strict=False) if row != before]


def _unchanged(run: Run) -> None:
    changes = run.stack.changes()
    run.check("no worker more or less", not changes and run.stack.target() == 2, f"{len(changes)} changes")


def _upstream(setup: Setup, around: ExitStack) -> Upstream:
    upstream = around.enter_context(Upstream(FAST))
    setup.env = {**setup.env, "UPSTREAM_URL": upstream.url}
    return upstream


@contextmanager
def _slow(run: Run) -> Iterator[None]:
    run.extra.seconds = SLOW
    try:
        yield
    finally:
        run.extra.seconds = FAST


def _failing(run: Run) -> AbstractContextManager[Any]:
    return run.arrivals("/faults/fail", 10.0, faulty=True)


def _hanging(run: Run) -> AbstractContextManager[Any]:
    return run.clients("/faults/block?seconds=100", 3, faulty=True)


def _blocking(run: Run) -> AbstractContextManager[Any]:
    return run.clients("/faults/block?seconds=0.9", 2, 1.5)


SCENARIOS = (
    Scenario(
        name="slow-dependency",
        about=f"a service that every request asks takes {SLOW:g} s instead of {FAST * 1000:g} ms",
        expects="the row `dependency`, which points to the traces; no worker more or less",
        run=Cause("dependency", _slow, path="/ask", healthy=USUAL_SECONDS),
        setup=Setup(
            app="tests.prove_tuning.upstream_app:create_app()",
            env={"GUNICORN_WORKER_CLASS": "gthread", "GUNICORN_THREADS": 8},
        ),
        arrange=_upstream,
        slow=True,
        scale=f"as shipped; what is usual is the median of {USUAL_SECONDS:.0f} s of health, not of an hour",
    ),
    Scenario(
        name="errors-burst",
        about="ten requests a second fail with 500, beside ten that do not",
        expects="the row `errors`, which forbids growth; no worker more or less",
        run=Cause("errors", _failing, veto="errors", lasting=True),
        setup=Setup(env={"GUNICORN_WORKER_CLASS": "gthread"}),
    ),
    Scenario(
        name="stuck-requests",
        about="requests hang in both sync workers, until gunicorn's timeout of 30 s kills these, again and again",
        expects="the row `stuck`, which forbids growth; no worker more or less",
        run=Cause("stuck", _hanging, rate=5.0, veto="stuck", faulty=True),
    ),
    Scenario(
        name="blocked-hub",
        about="calls that gevent cannot patch block both event loops for 0.9 s, again and again",
        expects="the row `hub_blocked`, which points to the stack in the log; no worker more or less",
        run=Cause("hub_blocked", _blocking, lasting=True),
        setup=Setup(env={"GUNICORN_WORKER_CLASS": "gevent"}),
    ),
)
