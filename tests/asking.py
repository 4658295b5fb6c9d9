"""Asks an address again and again, and keeps how long each answer took.

It runs in a process of its own: in the test's, an answer's time would hold the pauses of pytest's garbage collection,
which alone can reach a tenth of a second.
"""

import http.client
import json
import select
import statistics
import subprocess
import sys
import time

PAUSE_SECONDS = 0.002  # many answers in a short time: of a few, the 99th percentile is the slowest


class Asking:
    """Asks while its block runs.

    Args:
        port: where, on the loopback address.
        path: what it asks for.
    """

    def __init__(self, port: int, path: str = "/metrics") -> None:
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self._command = [sys.executable, __file__, str(port), path]

    def __enter__(self) -> "Asking":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "asking\n"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self.seconds, self.errors = json.loads(self._process.communicate(timeout=10)[0])

    def check(self) -> None:
        """Check that each was answered, and 99 of 100 within 100 ms."""
        assert self.errors == []
        assert len(self.seconds) >= 20
        assert statistics.quantiles(self.seconds, n=100)[98] < 0.1, sorted(self.seconds)[-10:]


def _ask(port: int, path: str) -> tuple[list[float], list[str]]:
    seconds, errors = [], []
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:  # until it is closed
        begun = time.perf_counter()
        try:
            _get(port, path)
        except (OSError, http.client.HTTPException) as error:
            errors.append(repr(error))
        seconds.append(time.perf_counter() - begun)
    return seconds, errors


def _get(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    print("asking", flush=True)
    print(json.dumps(_ask(int(sys.argv[1]), sys.argv[2])))
