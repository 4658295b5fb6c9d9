"""What the tuner hears, asks and reads fails, or comes twice: nothing unsafe, nothing twice, one clear line each."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.prove.scenarios import breaking
from tests.prove_tuning.run import Run
from tests.prove_tuning.scenario import Scenario, Setup
from tests.prove_tuning.scenarios import masters
from tests.prove_tuning.scenarios.stepping import LOAD, POLLING, SILENT, applied, outcomes, said, wait_crowded
from tests.server import end
from tests.tuning.parts import PATIENT, WINDOW, Tuner, notification

FORGED, FLOOD = 50, 400
WITHIN = 90.0  # a window until the signals show the load, a poll, and a check of what is on disk


def _webhook_lost(run: Run) -> None:
    with run.stack.tuner(**POLLING) as tuner:
        tuner.wait_fresh()
        run.stack.alertmanager.stop()
        told = tuner.webhooks("accepted")
        run.mark("Alertmanager ends")
        with run.clients(*LOAD):
            run.mark("load")
            began = run.seconds
            grown = run.until(lambda: applied(tuner), WITHIN, "a worker more")
            run.numbers["grown_after_seconds"] = round(run.seconds - began, 1)
            run.check(f"a worker more within {WITHIN:.0f} s of the load", grown, run.numbers["grown_after_seconds"])
            run.check("nobody has told it", tuner.webhooks("accepted") == told, "by its poll")
            run.until(lambda: outcomes(tuner), PATIENT, "its judgement")
            kept = [each["outcome"] for each in outcomes(tuner)[:1]]
            run.check("the step is judged without a word too", kept == ["kept"], ", ".join(kept))


def _webhooks_hostile(run: Run) -> None:
    with run.stack.tuner(**SILENT) as tuner:
        tuner.wait_fresh()  # from now on it looks when it is told to
        with run.clients(*LOAD):
            wait_crowded(run)
            _hostile(run, tuner)


def _hostile(run: Run, tuner: Tuner) -> None:
    rounds = len(tuner.lines(event="tuner.decision"))
    _forged_and_malformed(run, tuner)
    run.check("none of them makes it look", len(tuner.lines("woken by alerts")) == 0, "not woken")
    run.check("... or change anything", not run.stack.changes(), f"{len(run.stack.changes())} changes")
    run.check("... or say a decision", len(tuner.lines(event="tuner.decision")) == rounds, "none")
    _doubled(run, tuner)
    _flooded(run, tuner)
    run.until(lambda: outcomes(tuner), PATIENT, "the judgement of the step")
    before = [each for each in applied(tuner) if each["id"] < outcomes(tuner)[0]["id"]]
    run.check("all of them made one change until it was judged", len(before) == 1, len(before))


def _forged_and_malformed(run: Run, tuner: Tuner) -> None:
    run.mark("forged, then malformed")
    tokens = ["", "guessed", "x" * 4000, " "] * (FORGED // 4)
    statuses = {tuner.post(notification(str(number)), token=token) for number, token in enumerate(tokens)}
    run.check(f"forged: {len(tokens)} are refused", statuses == {401}, str(statuses))
    good: dict[str, Any] = notification("a")
    bodies: list[bytes | dict[str, Any]] = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", {**good, "version": "5"}]
    bodies += [{**good, "alerts": []}, {**good, "alerts": [{}]}, {**good, "groupKey": None}, b"x" * 2_000_000]
    statuses = {tuner.post(body) for body in bodies}
    run.check(f"malformed: {len(bodies)} are refused", statuses == {400, 413}, str(statuses))
    lines = [line["reason"][:50] for line in tuner.lines("a notification is refused")]
    run.check("one line for the forged ones, and one for the malformed", len(lines) == 2, "; ".join(lines))


def _doubled(run: Run, tuner: Tuner) -> None:
    run.mark("one notification, three times")
    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(lambda _: tuner.post(notification("doubled")), range(3)))
    counted = tuner.webhooks("accepted"), tuner.webhooks("repeated")
    run.check("doubled: it is taken once", (statuses, counted) == ([202] * 3, (1, 2)), f"{counted}")
    grown = run.until(lambda: applied(tuner), WITHIN, "a worker more")
    run.check("and a worker more is what comes of it", grown, f"{run.stack.changes()}")


def _flooded(run: Run, tuner: Tuner) -> None:
    run.mark("a flood")
    lines, before = len(tuner.lines()), tuner.webhooks("accepted") + tuner.webhooks("dropped")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda number: tuner.post(notification(f"flood {number}")), range(FLOOD)))
    counted = tuner.webhooks("accepted") + tuner.webhooks("dropped") - before
    run.check("flooded: each is taken, or sent back to come again", set(statuses) <= {202, 503}, str(set(statuses)))
    run.check("and counted", counted == FLOOD, counted)
    run.check("it lives", tuner.get("/livez").ok, tuner.get("/livez").text.strip())
    run.numbers["lines_of_the_flood"] = len(tuner.lines()) - lines
    run.check("with few lines", len(tuner.lines()) - lines <= FLOOD // 10, len(tuner.lines()) - lines)


def _prometheus_down(run: Run) -> None:
    with run.stack.tuner(**POLLING) as tuner:
        tuner.wait_fresh()
        end(run.stack.prometheus.process)
        run.mark("Prometheus ends")
        with run.clients(*LOAD):
            failing = lambda: tuner.metrics().sum("tuner_failures_total", part="prometheus") >= 3  # noqa: E731
            run.until(failing, 60, "failures")
            made = tuner.metrics().sum("tuner_decisions_total")
            run.rest(2 * WINDOW)  # nothing is to happen in it
            run.check("nothing is decided", tuner.metrics().sum("tuner_decisions_total") == made, made)
            run.check("or changed", not run.stack.changes(), f"{len(run.stack.changes())} changes")
            run.check("it lives", tuner.get("/livez").ok, tuner.get("/livez").text.strip())
            said(run, tuner, "the tuner's prometheus fails", 1)
            said(run, tuner, "no decision without fresh signals", 1)
            run.stack.prometheus.__enter__()
            run.mark("Prometheus again")
            grown = run.until(lambda: applied(tuner), WITHIN, "a worker more")
            run.check("it goes on by itself", grown, f"{run.stack.changes()}")
            said(run, tuner, "the tuner's prometheus is well again", 1)


def _agent_down(run: Run) -> None:
    with run.stack.tuner(**SILENT) as tuner:
        tuner.wait_fresh()
        with run.clients(*LOAD):
            wait_crowded(run)
            _hung(run, tuner)


def _hung(run: Run, tuner: Tuner) -> None:
    agent = run.stack.agent()
    agent.send_signal(signal.SIGSTOP)
    run.mark("the agent hangs, as the tuner is about to ask it")
    tuner.post(notification("a"))
    run.until(lambda: tuner.decisions("decision", "failed"), 90, "the end of its patience")
    said(run, tuner, "the tuner's agent fails", 1)
    failed = tuner.decisions("decision", "failed")
    run.check("it says what it could not do, once", len(failed) == 1, failed[0]["reason"] if failed else "nothing")
    agent.send_signal(signal.SIGCONT)
    run.mark("the agent goes on")
    run.until(lambda: outcomes(tuner), PATIENT, "word of the step")
    first = outcomes(tuner)[0] if outcomes(tuner) else {}
    seen = f"{first.get('outcome')}: {first.get('reason')}, {run.stack.changes()}"
    asked = [pair for pair in run.stack.changes() if pair[0] == 2]
    run.check("what it had asked for is done once at most", len(asked) <= 1, seen)
    run.check("and it is told what became of it", bool(first), seen)
    said(run, tuner, "no decision without fresh signals", 1)
    grown = run.until(lambda: run.stack.target() > 2, WITHIN, "a worker more")
    run.check("it goes on by itself", grown, f"{run.stack.changes()}")
    run.until(lambda: tuner.lines("the tuner's agent is well again"), WITHIN, "the end of it")
    said(run, tuner, "the tuner's agent is well again", 1)


SCENARIOS = (
    Scenario(
        name="webhook-lost",
        about="Alertmanager ends, then the load comes",
        expects="the poll sees it: a worker more, and a judgement",
        run=_webhook_lost,
        setup=Setup(scaled=True),
    ),
    Scenario(
        name="webhooks-hostile",
        about="notifications that are forged, malformed, doubled, and a flood of them, under load",
        expects="one look for one alert, one change, one line for each kind that is refused",
        run=_webhooks_hostile,
        setup=Setup(scaled=True, alertmanager=False),
    ),
    Scenario(
        name="prometheus-down",
        about="Prometheus ends, the load comes, Prometheus is started again",
        expects="no decision meanwhile, one line when it begins and one when it is over; then a worker more",
        run=_prometheus_down,
        setup=Setup(scaled=True, alertmanager=False),
    ),
    Scenario(
        name="agent-down",
        about="the server's agent hangs (SIGSTOP) in the moment in which the tuner asks it for a worker, for a minute",
        expects="the change is made once at most, one line says what failed, and it is looked at what became of it",
        run=_agent_down,
        setup=Setup(scaled=True, alertmanager=False),
    ),
    Scenario(
        name="hup-in-the-middle",
        about="a reload (HUP) takes the worker back while the step is being watched",
        expects="the step is inconclusive, nothing is taken back or done again for it, no request fails",
        run=masters.hup,
        setup=Setup(scaled=True, alertmanager=False),
    ),
    Scenario(
        name="deploy",
        about="broken code is on disk when a worker more is wanted; then good code, and a reload",
        expects="the agent refuses while it is broken, all workers go on; one line; then a worker more",
        run=masters.deploy,
        setup=Setup(scaled=True, alertmanager=False, app=breaking.APP),
        arrange=masters.arrange,
    ),
    Scenario(
        name="boot-failure",
        about="what passes the check fails in the new worker, which gunicorn starts again and again",
        expects="the step comes to nothing and is told; no other step meanwhile, no request fails",
        run=masters.boot_failure,
        setup=Setup(scaled=True, alertmanager=False, app=masters.BREAKABLE),
        arrange=masters.arrange,
    ),
    Scenario(
        name="two-tuners",
        about="two tuners have one memory; then two have one server, and a memory each",
        expects="of the first two one stands by and takes over; of the others one does a thing, and the other waits",
        run=masters.two,
        setup=Setup(scaled=True, alertmanager=False),
    ),
)
