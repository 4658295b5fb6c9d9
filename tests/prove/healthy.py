"""An hour of health in two minutes: steady load, a reload, a worker more, one less, and workers that are recycled."""

import signal
import time
from functools import partial
from typing import Any

from tests.prove.load import ask
from tests.prove.stack import WATCHDOG, Setup, Stack, rest
from tests.prove.trial import Result, Say
from tests.server import wait_until

SECONDS = 25  # between two events: longer than a scaled window or `for`
RATE = 12.0
EVENTS = (("reload", signal.SIGHUP, 2), ("a worker more", signal.SIGTTIN, 3), ("one less", signal.SIGTTOU, 2))
# Requests: each worker is recycled about every thirty seconds. The jitter is wide, since a boot takes as long as ever:
# two workers that left together would leave requests waiting for a second, a minute's worth of an hour compressed.
RECYCLED_AFTER = {"GUNICORN_MAX_REQUESTS": 150, "GUNICORN_MAX_REQUESTS_JITTER": 100}


def run(worker_class: str, *, say: Say) -> Result:
    """Do what happens to a healthy server, and say what fired."""
    begun = time.time()
    settings: dict[str, Any] = {"GUNICORN_WORKER_CLASS": worker_class, **RECYCLED_AFTER}
    with Stack(Setup(env=settings, rate=RATE), compressed=True) as stack:
        ask(stack.server.url + "/todos", "POST")
        stack.settle(SECONDS)
        for event, number, workers in EVENTS:
            say(event)
            stack.server.signal(number)
            wait_until(partial(_are, stack, workers), 20, event)
            rest(SECONDS)
        recycled = stack.server.metrics().sum("gunicorn_worker_exits_total", cause="recycled")
        statuses = dict(stack.traffic.statuses)
        return {
            "worker_class": worker_class,
            "fired": sorted({each.alert for each in stack.fired()}),
            "watchdog": bool(stack.notices(WATCHDOG)),
            "requests": sum(statuses.values()),
            "not_answered_well": sum(count for status, count in statuses.items() if not 200 <= status < 400),
            "workers_recycled": round(recycled),
            "seconds": round(time.time() - begun, 1),
        }


def _are(stack: Stack, workers: int) -> bool:
    return len(stack.server.worker_pids()) == workers
