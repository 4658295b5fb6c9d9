"""What the README tells a newcomer to do works as it stands there."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from scripts import addresses
from scripts.options import Options
from tests.server import ROOT, Server, wait_until

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FLASK, WSGI, MORE = [text for language, text in BLOCKS if language == "python"]
COUNT = "http_server_request_duration_seconds_count"


class Newcomer(Server):
    """A server in a directory that holds the block as the file that its first line names, and nothing else."""

    def __init__(self, directory: Path, block: str, worker_class: str) -> None:
        super().__init__(directory, app="", GUNICORN_WORKER_CLASS=worker_class)
        path = directory / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir()
        path.write_text(block)

    def start(self) -> None:
        gunicorn = [str(Path(sys.executable).with_name("gunicorn")), "-c", str(ROOT / "gunicorn.conf.py")]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                gunicorn, cwd=self.directory, env=self.env, stdout=log, stderr=log, start_new_session=True
            )


@pytest.fixture(params=["sync", "gthread", "gevent"])
def newcomer(request, tmp_path: Path) -> Callable[[str], Newcomer]:
    return lambda block: Newcomer(tmp_path, block, request.param)


def test_five_lines_and_a_route_are_seen(newcomer):
    lines = [line for line in FLASK.splitlines()[1:] if line and "your routes" not in line]
    assert len(lines) == 5, "as the page says"
    with newcomer(FLASK) as server:
        assert server.get("/hello/you").text == "Hello, you!\n"
        wait_until(
            lambda: server.metrics().sum(COUNT, http_route="/hello/<name>", http_response_status_code="200") == 1
        )
        (line,) = server.requests_logged()
        assert line["url.path"] == "/hello/you"


def test_a_wsgi_app_is_seen(newcomer):
    with newcomer(WSGI) as server:
        assert server.get("/any").text == "Hello!\n"
        wait_until(lambda: server.metrics().sum(COUNT, http_route="", http_response_status_code="200") == 1)


def test_what_the_app_adds_is_seen(newcomer):
    with newcomer(MORE) as server:
        assert requests.post(f"{server.url}/orders/books", timeout=10).status_code == 201
        wait_until(lambda: server.metrics().sum("orders_total", kind="books") == 1)
        (request,) = wait_until(server.requests_logged)
        assert request["kind"] == "books"
        (order,) = [line for line in server.lines() if line["body"] == "order taken"]
        assert (order["kind"], order["trace_id"]) == ("books", request["trace_id"])


def test_make_up_prints_what_the_page_shows():
    """On a machine that has Prometheus and Alertmanager, as the tests need."""
    printed = addresses.table(Options(mode="native")).strip("\n").partition("\n\n")[0]
    assert f"```\n{printed}\n```" in README


def test_the_line_of_the_log_is_one_with_the_fields_of_the_page():
    (text,) = [text for language, text in BLOCKS if language == "json"]
    line = json.loads(text)
    documented = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/log.md").read_text(), re.MULTILINE))
    assert line.keys() - documented == {"todo_id"}, "what the example annotates"


def test_the_lines_of_the_metrics_are_metrics():
    """That their names and labels exist is tested with those of all pages."""
    (text,) = [text for language, text in BLOCKS if not language and "gunicorn_worker_" in text]
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len(samples) == len(text.splitlines()) >= 4
    assert {"http_server_request_duration_seconds_count", "gunicorn_worker_requests_total"} <= {
        sample.name for sample in samples
    }


def test_the_commands_are_targets_of_the_makefile():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    given = set(re.findall(r"\bmake ([a-z]+)", " ".join(text for language, text in BLOCKS if language == "sh")))
    assert {"up", "test"} <= given <= set(targets)


def test_the_fault_of_the_picture_is_served(tmp_path):
    (address,) = re.findall(r"curl \"http://127.0.0.1:8000(/faults/[^\"]+)\"", README)
    with Server(tmp_path, app="app:create_app()", FAULTS_ENABLED=1) as server:
        answer = server.get(address.replace("seconds=60", "seconds=0.01"))
        assert answer.status_code == 200, answer.text
