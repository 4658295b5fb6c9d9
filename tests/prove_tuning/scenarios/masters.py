"""What happens to the master meanwhile: reloads, releases that do not boot, and a second tuner."""

import itertools
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.prove.scenarios.breaking import broken
from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Setup
from tests.prove_tuning.scenarios.stepping import HASTY, LOAD, POLLING, applied, outcomes, said
from tests.server import free_port
from tests.tuning.parts import PATIENT, WINDOW, Tuner, notification

BREAKABLE: Final = "tests.prove_tuning.late_app:create_app()"
GROWN_WITHIN = 90.0
_MORE_STEPS = 3


def arrange(setup: Setup, around: ExitStack) -> Path:
    """Tell the app which file breaks it."""
    path = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="sightline-tuning-"))) / "broken"
    setup.env = {**setup.env, "BREAKS_THE_START": path}
    return path


def _grown(run: Run, tuner: Tuner, what: str = "a worker more") -> bool:
    return run.until(lambda: applied(tuner), GROWN_WITHIN, what)


def hup(run: Run) -> None:
    """Reload the server while a step is being watched."""
    with run.stack.tuner(**POLLING) as tuner, run.clients(*LOAD):
        tuner.wait_fresh()
        run.check("a worker more", _grown(run, tuner), f"{run.stack.changes()}")
        run.stack.server.signal(signal.SIGHUP)
        run.mark("reload")
        run.until(lambda: outcomes(tuner), PATIENT, "word of the step")
        first = outcomes(tuner)[0] if outcomes(tuner) else {}
        run.check("the step is inconclusive", first.get("outcome") == "inconclusive", first.get("reason"))
        run.check("nothing was taken back for it", run.stack.changes() == [(2, 3)], f"{run.stack.changes()}")
        run.check("the server has what its configuration says", run.stack.target() == 2, run.stack.target())
        again = run.until(lambda: len(applied(tuner)) > 1, GROWN_WITHIN, "a worker more again")
        run.check("it grows anew, if the load still wants it", again, f"{run.stack.changes()}")
        down = [pair for pair in run.stack.changes() if pair[1] < pair[0]]
        run.check("and no worker less", not down, f"{run.stack.changes()}")


def deploy(run: Run) -> None:
    """Have broken code on disk when a worker more is wanted; then good code, and a reload."""
    stack = run.stack
    with stack.tuner(**POLLING) as tuner:
        tuner.wait_fresh()
        with broken(run, "raise"), run.clients(*LOAD):  # type: ignore[arg-type]
            run.mark("broken code, and load")
            run.until(lambda: tuner.decisions("decision", "refused"), GROWN_WITHIN, "a refusal")
            run.rest(2 * WINDOW)  # it asks again, ever later
            refused = tuner.decisions("decision", "refused")
            # It says it again where the diagnosis is another, or after a minute with other numbers.
            said_so = f"{len(refused)} times: {refused[0]['reason'][-90:]}" if refused else "never"
            run.check("it says that it was refused, and not each time", 1 <= len(refused) <= 3, said_so)
            live = len(stack.server.worker_pids()), stack.target()
            run.check("both workers go on", live == (2, 2) and not stack.changes(), f"{live}")
            checks = [line for line in stack.server.lines() if line["body"].startswith("no worker is added")]
            run.numbers["checks_of_broken_code"] = len(checks)
            run.check("it asks again ever later", len(checks) <= 5, f"{len(checks)} checks in {2 * WINDOW} s")
        with run.clients(*LOAD):
            stack.server.signal(signal.SIGHUP)
            run.mark("good code, and a reload")
            grown = _grown(run, tuner)
            run.check("then a worker more", grown and stack.changes()[0] == (2, 3), f"{stack.changes()}")


def boot_failure(run: Run) -> None:
    """Have the new worker fail where no check sees it."""
    stack = run.stack
    with stack.tuner(**POLLING) as tuner, run.clients(*LOAD):
        tuner.wait_fresh()
        with broken(run, "exit"):  # type: ignore[arg-type]
            run.mark("a new worker cannot boot")
            run.check("the check does not see it", _grown(run, tuner), f"{stack.changes()}")
            run.until(lambda: outcomes(tuner), PATIENT, "word of the step")
            first = outcomes(tuner)[0] if outcomes(tuner) else {}
            run.numbers["told_after_seconds"] = round(first.get("time", 0.0) - applied(tuner)[0]["time"], 1)
            run.check("the step has failed", first.get("outcome") == "failed", first.get("reason"))
            run.rest(2 * WINDOW)  # nothing is to happen in it
            run.check("nothing else is done", stack.changes() == [(2, 3)], f"{stack.changes()}")
            booted = sum(worker["booted"] for worker in stack.server.state()["workers"])
            run.check("both workers go on", booted == 2, booted)
            lines = len(tuner.lines(event="tuner.outcome"))
            run.check("one line tells of it", lines == 1, lines)
            refused = [each for each in tuner.lines(event="tuner.decision") if each["outcome"] == "refused"]
            run.check("and of what is refused meanwhile, one in a minute", len(refused) <= 4, len(refused))
        run.mark("it can boot again")
        live = run.until(lambda: len(stack.server.worker_pids()) == 3, 60, "the third worker")
        run.check("gunicorn brings the worker by itself", live, len(stack.server.worker_pids()))


def two(run: Run) -> None:
    """Have two tuners on one memory, then two on one server."""
    first = run.stack.tuner(**HASTY)
    second = _beside(run, first, "second", first.env["TUNER_DIR"])
    with first, second:
        _one_memory(run, first, second)
    if run.stack.target() != 2:
        run.stack.server.signal(signal.SIGHUP)  # from the start again
        run.until(lambda: run.stack.target() == 2, 20, "the start")
    third = run.stack.tuner("third", **HASTY)
    fourth = _beside(run, third, "fourth", str(run.stack.directory / "fourth"))
    with third, fourth:
        _one_server(run, third, fourth)


def _beside(run: Run, tuner: Tuner, name: str, directory: str) -> Tuner:
    """Return another tuner like this one."""
    port = free_port()
    env = {**tuner.env, "TUNER_PORT": str(port), "TUNER_DIR": directory}
    made = Tuner(tuner.directory, port, name, **env)
    run.stack.tuners.append(made)
    return made


def _one_memory(run: Run, first: Tuner, second: Tuner) -> None:
    run.mark("two tuners, one memory")
    body = "another tuner is active"
    run.until(lambda: second.lines(body), 20, "the second to stand by")
    status = second.post(notification("a"))
    run.check("the second sends notifications back", status == 503, status)
    first.wait_fresh()
    with run.clients(*LOAD):
        run.check("a worker more", _grown(run, first), f"{run.stack.changes()}")
        first.kill()
        run.mark("the first is killed")
        run.until(lambda: second.get("/readyz").ok, 20, "the second to take over")
        run.until(lambda: outcomes(second), PATIENT, "its judgement")
        told = outcomes(second)[:1]
        kept = [each["outcome"] for each in told]
        run.check("the second takes over, and judges the first one's step", kept == ["kept"], f"{kept}")
        changes = [pair for pair in run.stack.changes() if pair[0] == 2]
        run.check("which was made once", changes == [(2, 3)], f"{changes}")
        said(run, second, body, 1)


def _one_server(run: Run, *both: Tuner) -> None:
    run.mark("two tuners, one server")
    for each in both:
        each.wait_fresh()
    already = len(run.stack.changes())
    with run.clients(*LOAD):
        done = lambda: len(run.stack.changes()) >= already + _MORE_STEPS  # noqa: E731
        made = run.until(done, _MORE_STEPS * GROWN_WITHIN, f"{_MORE_STEPS} changes")
    lines = [line for line in run.stack.server.lines() if line["body"] == "workers changed"][already:]
    changes = [(line["workers_before"], line["workers_after"]) for line in lines]
    run.check(f"{_MORE_STEPS} changes are made", made, f"{changes}")
    run.check("each change is made once", len(set(changes)) == len(changes), f"{changes}")
    times = sorted(each["time"] for tuner in both for each in applied(tuner))
    gaps = [round(after - before, 1) for before, after in itertools.pairwise(times)]
    run.check("a cool-down apart, whoever makes it", min(gaps, default=99.0) >= WINDOW - 2, f"{gaps} s")
    told = [len(applied(each)) for each in both]
    run.check("each of them is one tuner's", sum(told) == len(changes), f"{told} of {len(changes)}")
