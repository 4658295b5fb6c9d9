"""docs/log.md says of the log just what is so."""

import importlib
import re
import time
from pathlib import Path

import pytest
import requests

from observability import redact
from tests.server import ROOT, Server, wait_until

PAGE = (ROOT / "docs/log.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> dict[str, str]:
    """Return the table's fields, and when they are there."""
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section(title), re.MULTILINE))


REQUEST = rows("One line a request")
OTHER = rows("Other lines")
BOUNDS = re.findall(r"\| (\d+) \| `([\w.]+)\.(\w+)` \|", section("What is bounded"))
ALWAYS = {name for name, when in REQUEST.items() if when == "always"}
COMMON = {"timestamp", "severity_text", "severity_number", "body", "process.pid", "service.name", "service.version"}
COMMON |= {"deployment.environment.name", "worker", "trace_id", "span_id", "trace_flags"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory: Path = tmp_path_factory.mktemp("log")
    with Server(directory, GUNICORN_WORKER_CLASS="gthread", SERVICE_VERSION="1.2.3") as running:
        running.get("/items/7", headers={"X-Request-Start": "t=1"})
        running.get("/items/8", headers={"X-Request-Start": f"t={time.time():.3f}"})
        running.get("/fail")
        running.get("/log/info")
        requests.request("BREW", running.url + "/", timeout=10)
        wait_until(lambda: len(running.requests_logged()) == 5)
        yield running


def test_a_requests_line_has_just_the_fields_of_the_page(server):
    lines = server.requests_logged()
    seen = set().union(*lines) - {"item"}  # what the probe annotates
    assert seen == REQUEST.keys()
    for line in lines:
        assert line.keys() >= ALWAYS


def test_other_lines_have_the_fields_of_the_page_and_the_calls_own(server):
    others = [line for line in server.lines() if line.get("event.name") != "http.server.request"]
    (probe,) = [line for line in others if line["body"] == "probe says"]
    assert probe.keys() - COMMON - OTHER.keys() == {"password", "thread"}
    assert probe["password"] == "***"
    agent = next(line for line in others if line.get("role") == "agent")
    assert agent.keys() - COMMON - OTHER.keys() == {"address", "master"}
    failed = next(line for line in others if "exception.type" in line)
    assert {name for name in OTHER if name.startswith("exception.")} <= failed.keys()
    for line in others:
        assert line.keys() >= {name for name, when in OTHER.items() if when == "always"}


def test_keys_are_masked_as_the_page_says():
    masked, _, shown = section("What is masked").partition("Numbers about secrets")
    anywhere, word, spelt = (re.findall(r"`([^`*]+)`", line) for line in masked.splitlines() if line.startswith("- "))
    for key in [*anywhere, *word, *spelt, *(f"the{key}s" for key in anywhere), *(f"the_{key}_x" for key in word)]:
        assert redact.hides(key, "hunter2"), key
    assert not any(redact.hides(f"x{key}x", "hunter2") for key in word), "only as a word"
    numbers = re.findall(r"`([^`]+)`", shown.splitlines()[0])
    assert len(numbers) == 3
    for key in numbers:
        assert not redact.hides(key, 7), key
        assert redact.hides(key, "hunter2"), key


@pytest.mark.parametrize(("value", "module", "name"), BOUNDS, ids=lambda each: each)
def test_bounds_are_those_of_the_code(value, module, name):
    assert float(value) == getattr(importlib.import_module(module), name)


def test_all_bounds_are_looked_at():
    assert len(BOUNDS) == section("What is bounded").count("| `observability.") == 6
