"""Workers come and go by the thousand: nothing is lost, nothing goes backwards, nothing piles up."""

import os
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.server import Server, wait_until

RECYCLED = 2000
SLOTS = 6


class Watch(threading.Thread):
    """Scrapes all along, and remembers every counter that went backwards."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.scrapes = 0
        self.decreases: list[str] = []
        self.stop = threading.Event()

    def run(self) -> None:
        last: dict[tuple[str, str], float] = {}
        while not self.stop.wait(0.1):
            text = self.server.agent("/metrics").text
            self.scrapes += 1
            for family in text_string_to_metric_families(text):
                if family.type in ("counter", "histogram"):
                    for sample in family.samples:
                        key = (sample.name, str(sorted(sample.labels.items())))
                        if sample.value < last.get(key, 0.0):
                            self.decreases.append(f"{key}: {last[key]} -> {sample.value}")
                        last[key] = sample.value


def test_recycled_and_killed_workers_leave_exact_counts_and_no_files(serve: Callable[..., Server]) -> None:
    """Every request ends its worker (max_requests), and idle workers are killed in between."""
    server = serve(
        "tests.tiny_app:app",
        GUNICORN_WORKER_CLASS="sync",
        WEB_CONCURRENCY=SLOTS,
        GUNICORN_MAX_REQUESTS=1,
        GUNICORN_MAX_REQUESTS_JITTER=0,
        GUNICORN_PRELOAD=1,
        OBSERVABILITY_LOG_LEVEL="error",
    )
    watch = Watch(server)
    watch.start()
    sent = killed = 0
    rng = random.Random(1)
    with ThreadPoolExecutor(SLOTS) as clients:
        while sent + killed < RECYCLED:
            answers = list(clients.map(lambda _: requests.get(server.url, timeout=30).text, range(SLOTS)))
            assert set(answers) == {"tiny"}
            sent += len(answers)
            if rng.random() < 0.2:
                # a response is out a moment before its request is counted: a kill in between would lose it
                wait_until(lambda expected=sent: counted(server) == expected, what=f"all of {sent} counted")
                killed += kill_one(
                    rng.choice(wait_until(server.worker_pids, what="a worker: all may be on their way out"))
                )
    wait_until(lambda: counted(server) == sent, what=f"all of {sent} counted")
    watch.stop.set()
    watch.join(10)
    assert watch.scrapes > 100
    assert watch.decreases == []
    wait_until(lambda: server.metrics().sum("gunicorn_worker_requests_total") == sent)
    files = sorted(path.name for path in server.state_directory.glob("*.slot*"))
    # a replacement may claim a slot in the moment in which its predecessor's end is still under way
    assert len(files) <= 1 + SLOTS + 2
    wait_until(lambda: server.metrics().sum("observability_store_corrupt_files") == 0)


def counted(server: Server) -> float:
    return server.metrics().sum("http_server_request_duration_seconds_count")


def kill_one(pid: int) -> int:
    """Kill a worker, and return how many that were: it may have been on its way out."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1
