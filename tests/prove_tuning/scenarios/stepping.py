"""What the scenarios of failures share: a load that wants workers, and how to see what the tuner did about it."""

from typing import Any, Final

from tests.prove_tuning.run import Run
from tests.tuning.parts import WINDOW, Tuner

LOAD: Final = ("/faults/sleep?seconds=0.1", 12)  # a path, and clients who fill the workers that the tuner comes to
POLLING: Final[dict[str, object]] = {"TUNER_POLL_SECONDS": WINDOW}  # a minute, like all others
HASTY: Final[dict[str, object]] = {"TUNER_POLL_SECONDS": 1}
SILENT: Final[dict[str, object]] = {"TUNER_POLL_SECONDS": 3600}  # it looks when it is told to, or watches a step
_OBJECTIVE = 0.05


def applied(tuner: Tuner) -> list[dict[str, Any]]:
    """Return the decisions that it has acted upon."""
    return tuner.decisions("decision", "applied")


def outcomes(tuner: Tuner) -> list[dict[str, Any]]:
    """Return what came of its steps."""
    return tuner.decisions("outcome")


def said(run: Run, tuner: Tuner, body: str, times: int) -> None:
    """Check how many lines of the tuner's log say something."""
    found = len(tuner.lines(body))
    run.check(f'"{body}" is said {"once" if times == 1 else f"{times} times"}', found == times, found)


def wait_crowded(run: Run) -> None:
    """Wait until the signals show that requests wait for full workers."""
    query = run.stack.prometheus.number
    full = "min(instance:gunicorn_worker_busy_ratio:avg1m) >= bool 0.9"
    queued = f"min(instance:http_server_request_queue_seconds:p95_rate1m) > bool {_OBJECTIVE}"
    run.until(lambda: query(full) and query(queued), 60, "requests that wait")
