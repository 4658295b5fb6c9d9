"""A little sample traffic, so that the first look at the metrics shows some: bounded in count and time.

As a program it takes the app's port and the number of seconds.
"""

import json
import random
import sys
import time
import urllib.error
import urllib.request
from itertools import cycle

from scripts.ports import LOOPBACK
from scripts.problem import Problem

PER_SECOND = 10
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


def first_requests(port: int) -> None:
    """Send each sample request once.

    Raises:
        Problem: the app does not answer.
    """
    for method, path, body in SAMPLE:
        request(port, method, path, body)


def send(port: int, seconds: float) -> int:
    """Send sample requests for some seconds, and return how many were answered."""
    answered = 0
    deadline = time.monotonic() + seconds
    for method, path, body in cycle(SAMPLE):
        if time.monotonic() >= deadline:
            return answered
        request(port, method, path, body)
        answered += 1
        time.sleep(random.expovariate(PER_SECOND))
    return answered


def request(port: int, method: str, path: str, body: object = None) -> int:
    """Send one request, and return the status of its answer, whatever it is.

    Raises:
        Problem: there is no answer.
    """
    url = f"http://{LOOPBACK}:{port}{path}"
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


if __name__ == "__main__":
    try:
        print(f"{send(int(sys.argv[1]), float(sys.argv[2]))} requests answered")
    except Problem as problem:
        sys.exit(str(problem))
