"""Load that wants more than two workers: requests that wait, and requests that compute."""

import time
from typing import Any

from tests.prove_tuning.clients import Clients
from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Scenario, Setup
from tests.tuning.parts import Tuner

OBJECTIVE = 0.05  # seconds of queue, as TUNER_QUEUE_SECONDS and the alert RequestsQueueing have it
RECOVERY_SECONDS = 180.0
CLIENTS = 4  # who never pause: four workers that wait have one each
WAITING = "/faults/sleep?seconds=0.2"
COMPUTING, COMPUTING_CLIENTS = "/compute?seconds=0.05", 6
UNDECIDED = {"well", "changing"}  # while the windows fill
ALERTS = ("RequestsQueueing", "WorkersSaturated", "ListenBacklogGrowing")
SHOWN_SECONDS = 10.0  # in which clients have seen enough: about two hundred requests


def _waiting(run: Run) -> None:
    advice = recommended(run)
    with run.stack.tuner("applying") as tuner:
        tuner.wait_fresh()
        grow(run, tuner)
        threads(run, tuner, advice)


def recommended(run: Run) -> dict[str, str]:
    """Have the tuner recommend, and return the lines of its advice."""
    with run.stack.tuner("recommending", TUNER_MODE="recommend") as tuner:
        tuner.wait_fresh()
        with run.clients(WAITING, CLIENTS) as clients:
            run.mark("load begins")
            run.rest(run.window)  # until then, what the tuner sees is partly the time before
            run.until(lambda: advised(tuner), 120, "advice")
            run.mark("advice")
            run.until(lambda: _diagnosis(tuner) == "io_wait", 60, "the diagnosis")
            diagnosis, advice = _diagnosis(tuner), advised(tuner)
            run.numbers["queue_p95_with_two_workers"] = clients.waited_p95(time.time() - SHOWN_SECONDS)
        run.mark("load ends")
        over = run.until(lambda: all_over(run), 300, "the end of the alerts")
    run.check("the diagnosis is io_wait", diagnosis == "io_wait", diagnosis)
    lines = ", ".join(f"{name}={value}" for name, value in advice.items())
    well = advice.get("GUNICORN_WORKER_CLASS") == "gthread" and int(advice.get("GUNICORN_THREADS", 0)) > 1
    run.check("the advice names gthread and a number of threads", well, lines)
    run.check("the alerts end with the load", over)
    run.check("recommend mode changes nothing", run.stack.changes() == [], f"{run.stack.target()} workers")
    run.numbers["advice"] = lines
    return advice


def _diagnosis(tuner: Tuner) -> str:
    return next((str(each["rule"]) for each in reversed(tuner.decisions("decision"))), "")


def _variables(entry: dict[str, Any]) -> set[str]:
    return {each["variable"] for each in entry["advice"]}


def advised(tuner: Tuner) -> dict[str, str]:
    """Return the lines of the newest advice that goes with a worker more, and names threads."""
    for entry in reversed(tuner.decisions("decision")):
        if entry["action"] == "add_worker" and "GUNICORN_THREADS" in _variables(entry):
            return {each["variable"]: each["value"] for each in entry["advice"]}
    return {}


def all_over(run: Run) -> bool:
    """Tell whether whoever was told of an alert was told that it is over."""
    notices = [each for each in run.stack.people.all() if each.alert in ALERTS]
    told, over = ({each.of for each in notices if each.status == status} for status in ("firing", "resolved"))
    return told <= over


def grow(run: Run, tuner: Tuner, count: int = CLIENTS) -> None:
    """Have the tuner grow the server under load, until the clients wait no longer than the objective."""
    begun = time.time()
    with run.clients(WAITING, count) as clients:
        run.mark("load begins, the tuner may act")
        told = run.until(lambda: run.told(*ALERTS, since=begun), 120, "an alert")
        notice = run.told(*ALERTS, since=begun)
        alert = notice.at if notice else begun
        run.check("an alert fires", told, notice.alert if notice else None)
        back = run.until(lambda: _short(run, clients, alert), 300, "a short queue")
        seconds = time.time() - alert
        run.mark("queue under its objective")
        what = f"the clients wait less than {OBJECTIVE * 1000:.0f} ms (p95) within 3 minutes of the alert"
        run.check(what, back and seconds <= RECOVERY_SECONDS, f"after {seconds:.0f} s")
        run.numbers["recovery_seconds"] = round(seconds, 1)
        run.until(lambda: not _watching(tuner), 2 * run.window + 60, "the last step's judgement")
        run.rest(run.window)  # nothing is to happen in it, and the rules' minute comes to lie after the last worker
        run.numbers["queue_p95_after_growth"] = clients.waited_p95(time.time() - run.window)
        changes, target = run.stack.changes(), run.stack.target()
    run.mark("load ends")
    outcomes = [each["outcome"] for each in tuner.decisions("outcome")]
    grown = changes == [(each, each + 1) for each in range(2, target)] and target > 2
    run.check("the workers grow one by one, and no further than it takes", grown, f"{changes}")
    run.check("each step is kept", outcomes == ["kept"] * (target - 2), ", ".join(outcomes))
    run.numbers["workers_after_growth"] = target


def _short(run: Run, clients: Clients, since: float) -> bool:
    """Tell whether clients have waited less than the objective for ten seconds, with a worker more."""
    waited = clients.waited_p95(max(since, time.time() - SHOWN_SECONDS))
    return run.stack.target() > 2 and waited is not None and waited < OBJECTIVE


def _watching(tuner: Tuner) -> bool:
    return len(tuner.decisions("decision", "applied")) > len(tuner.decisions("outcome"))


def threads(run: Run, tuner: Tuner, advice: dict[str, str]) -> None:
    """Restart the server as advised, and have the floor of workers take the same load."""
    server = run.stack.server
    server.stop()
    server.env.update(advice)
    server.start()
    server.wait_ready()
    run.mark("restarted as advised")
    workers, changes = run.stack.target(), len(run.stack.changes())
    tuner.wait_fresh()
    with run.clients(WAITING, CLIENTS) as clients:
        run.mark("the same load")
        run.rest(run.window + 20)
        waited = clients.waited_p95(time.time() - run.window)
    run.mark("load ends")
    run.check("the floor of workers is there", workers == 2, f"{workers} workers")
    short = waited is not None and waited < OBJECTIVE
    what = f"with the advised threads, clients of that floor wait less than {OBJECTIVE * 1000:.0f} ms (p95)"
    run.check(what, short, f"{(waited or 0) * 1000:.0f} ms")
    run.check("the tuner leaves it at that", len(run.stack.changes()) == changes, f"{run.stack.target()} workers")
    run.numbers["queue_p95_with_threads"] = waited


def _computing(run: Run) -> None:
    """Have requests compute on all cores, and see that the tuner tries one worker more at most."""
    with run.stack.tuner("tuner") as tuner:
        tuner.wait_fresh()
        with run.clients(COMPUTING, COMPUTING_CLIENTS) as clients:
            run.mark("load begins")
            begun = time.time()
            tried = run.until(lambda: run.stack.changes(), 150, "a try")
            first = time.time()
            before = clients.p99(begun + SHOWN_SECONDS, first)
            if tried:
                run.until(lambda: tuner.decisions("outcome"), 3 * run.window + 60, "its judgement")
            run.rest(run.window + 20)  # nothing is to happen in it
            after = clients.p99(time.time() - run.window)
        run.mark("load ends")
        advice = sorted({each["variable"] for entry in tuner.decisions("decision") for each in entry["advice"]})
        rules = sorted({entry["rule"] for entry in tuner.decisions("decision")} - UNDECIDED)
    changes = run.stack.changes()
    run.check("at most one try beyond the cores, and undone", changes in ([], [(2, 3), (3, 2)]), f"{changes}")
    ratio = (after or 0.0) / (before or 1.0)
    seen = f"{(before or 0) * 1000:.0f} ms at the start, {(after or 0) * 1000:.0f} ms at the end"
    run.check("the final p99 of the clients is no worse than at the start, by 15 %", 0 < ratio <= 1.15, seen)
    run.check("the advice is CPU, or replicas", {*advice} and {*advice} <= {"APP_CPUS", "REPLICAS"}, ", ".join(advice))
    run.check("the diagnosis is the CPU", rules and {*rules} <= {"cpu_bound", "starved"}, ", ".join(rules))
    run.numbers |= {"p99_before": before, "p99_after": after}


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="waiting-load",
        about="four clients, who never pause, ask two sync workers for what waits 0.2 s",
        expects="advice of gthread with a number of threads; in apply mode, workers until the queue is back under its "
        "objective, within 3 minutes of the alert; as advised, the floor of workers takes the same load",
        run=_waiting,
        slow=True,
    ),
    Scenario(
        name="cpu-bound",
        about="six clients, who never pause, ask two sync workers on two cores for what computes for 0.05 s",
        expects="at most one try beyond the cores, undone; the final p99 no worse than at the start, by 15 %; advice "
        "of CPU, or of replicas",
        run=_computing,
        setup=Setup(app="tests.prove_tuning.computing_app:create_app()"),
        alone=True,
        plot=("queue", "cpu"),
    ),
)
