"""A little sample traffic, so that the first look at the metrics shows some: bounded in count and time.

As a program it takes where the app is (a port of this host, or a URL), the number of seconds, and how many clients send
at the same time, which is one if it is not said.
"""

import json
import random
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from scripts.ports import LOOPBACK
from scripts.problem import Problem

PER_SECOND = 10  # of each client
MOST_CLIENTS = 64
MOST_SECONDS = 3600.0
# Method, path, body: mostly reading, some writing, and a few that are answered with an error of the client's.
SAMPLE = (
    ("GET", "/todos", None),
    ("POST", "/todos", {"title": "Look at the dashboards"}),
    ("GET", "/todos", None),
    ("GET", "/todos/1", None),
    ("GET", "/todos?limit=5", None),
    ("GET", "/", None),
    ("POST", "/todos", {"title": ""}),
    ("GET", "/todos/1", None),
    ("PUT", "/todos/1", {"title": "Look at the dashboards", "done": True}),
    ("GET", "/todos/987654321", None),
)


def first_requests(app: int | str) -> None:
    """Send each sample request once.

    Raises:
        Problem: the app does not answer.
    """
    for method, path, body in SAMPLE:
        request(app, method, path, body)


def send(app: int | str, seconds: float, *, patient: bool = False) -> int:
    """Send sample requests for some seconds, and return how many were answered.

    Args:
        app: where it is: a port of this host, or a URL.
        seconds: how long.
        patient: whether to go on where there is no answer, as a load does that outlasts a restart.

    Raises:
        Problem: there is no answer.
    """
    answered = 0
    deadline = time.monotonic() + seconds
    for method, path, body in cycle(SAMPLE):
        if time.monotonic() >= deadline:
            return answered
        try:
            request(app, method, path, body)
            answered += 1
        except Problem as problem:
            if not patient:
                raise
            print(problem, file=sys.stderr, flush=True)
        time.sleep(random.expovariate(PER_SECOND))
    return answered


def request(app: int | str, method: str, path: str, body: object = None) -> int:
    """Send one request, and return the status of its answer, whatever it is.

    Raises:
        Problem: there is no answer.
    """
    url = (app if isinstance(app, str) else f"http://{LOOPBACK}:{app}") + path
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError as error:
        raise Problem(f"{method} {url} is not answered: {error}") from error


def main(where: str, seconds: str, clients: str = "1") -> None:
    """Send from all clients, and say how many requests were answered."""
    app = int(where) if where.isdigit() else where.rstrip("/")
    lasting, count = min(float(seconds), MOST_SECONDS), min(int(clients), MOST_CLIENTS)
    with ThreadPoolExecutor(count) as pool:
        answered = sum(pool.map(lambda _: send(app, lasting, patient=count > 1), range(count)))
    print(f"{answered} requests answered")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Problem as problem:
        sys.exit(str(problem))
