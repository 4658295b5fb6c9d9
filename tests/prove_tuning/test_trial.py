"""What is checked in every scenario is not met where it must not be, and the pictures say what was seen."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from observability.tuning.memory import Entry
from observability.tuning.model import Mode, Outcome
from observability.tuning.settings import Settings
from tests.prove.webhook import Notice
from tests.prove_tuning import plots, trial
from tests.prove_tuning.clients import Arrivals, Clients
from tests.server import free_port, wait_until


def entry(at: float, action: str = "add_worker", rule: str = "io_wait", **more: Any) -> Entry:
    made: dict[str, Any] = {"kind": "decision", "outcome": Outcome.APPLIED, "before": 2, "workers": 3, **more}
    plain = {"server": "a:1", "mode": Mode.APPLY, "diagnosis": "", "reason": ""}
    return Entry(time=at, action=action, rule=rule, **{**plain, **made})


UNDONE = {"kind": "outcome", "outcome": Outcome.UNDONE}


@pytest.mark.parametrize(
    ("entries", "early"),
    [
        ([entry(0), entry(30)], 1),
        ([entry(0), entry(61)], 0),
        ([entry(0), entry(61, "remove_worker", "idle")], 1),
        ([entry(0), entry(601, "remove_worker", "idle")], 0),
        ([entry(0), entry(61, "remove_worker", "memory")], 0),
        ([entry(0), entry(30, **UNDONE), entry(61)], 1),
        ([entry(0), entry(30, **UNDONE)], 0),
        ([entry(0), entry(1, outcome=Outcome.REFUSED), entry(61)], 0),
    ],
)
def test_changes_within_a_cool_down_are_seen(entries, early):
    pairs = trial._pairs(entries)
    assert sum(trial._too_soon(before, after, Settings()) for before, after in pairs) == early


def test_changes_of_different_servers_do_not_wait_for_each_other():
    assert trial._pairs([entry(0), entry(1, server="b:1")]) == []


def test_an_alert_fires_until_all_its_severities_are_over():
    warning, critical = ({"alertname": "A", "severity": each} for each in ("warning", "critical"))
    told = [Notice(1, "people", "firing", warning), Notice(2, "people", "resolved", warning)]
    told += [Notice(2, "people", "firing", critical), Notice(3, "people", "firing", critical)]
    told += [Notice(4, "people", "resolved", critical), Notice(5, "people", "firing", {"alertname": "Watchdog"})]
    run: Any = SimpleNamespace(stack=SimpleNamespace(people=SimpleNamespace(all=lambda: told)), at=float)
    seen = [(each["t"], each["alert"], each["status"]) for each in trial._alerts(run)]
    assert seen == [(1, "A", "firing"), (4, "A", "resolved")]


class Answering(BaseHTTPRequestHandler):
    """Answers after a tenth of a second, of which it admits to half, and fails where it is asked to."""

    def do_GET(self) -> None:
        time.sleep(0.1)
        assert float(self.headers["X-Request-Start"].removeprefix("t=")) <= time.time()
        body = b'{"did":{"seconds":0.05}}'
        self.send_response(500 if self.path == "/fails" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_clients_know_how_long_they_waited_and_what_failed(url):
    with Clients(f"{url}/works", 3) as well, Clients(f"{url}/fails", 1) as badly:
        wait_until(lambda: well.answered >= 6 and len(badly.failed) >= 2, 20)
    with Clients(f"http://127.0.0.1:{free_port()}/", 1, pause=0.1) as nobody:
        wait_until(lambda: nobody.failed, 20)
    assert (well.failed, badly.answered, nobody.answered) == ([], 0, 0)
    assert {each.status for each in badly.failed} == {500}
    assert "ConnectionRefused" in nobody.failed[0].error
    assert 0.05 <= (well.waited_p95() or 0.0) <= (well.p99() or 0.0) - 0.05 + 1e-6, "what the route took is taken off"
    assert well.p99(since=time.time()) is None


def test_requests_arrive_whatever_becomes_of_them_and_as_often_as_they_should(url):
    with Arrivals(f"{url}/works", 0) as arrivals:
        assert arrivals.samples == []
        arrivals.per_second = 200
        wait_until(lambda: len(arrivals.samples) >= 100, 30)
    assert arrivals.failed == []
    assert max(sample.seconds for sample in arrivals.samples) >= 0.1


def test_a_picture_has_its_curves_its_moments_and_gaps_where_nobody_answered():
    rows = [
        {"t": t, "target": None if t == 10 else 2, "live": 2, "queue": None if t == 10 else 0.02, "memory": 0.5}
        for t in (0, 5, 10, 15)
    ]
    result = {
        "scenario": "s",
        "about": "a <fault>",
        "timeline": rows,
        "marks": [{"t": 1.0, "text": "fault"}],
        "alerts": [{"t": 2.0, "alert": name, "status": "firing"} for name in ("A", "B")],
        "decisions": [
            {"t": 3.0, "kind": "decision", "outcome": "applied", "rule": "io_wait", "before": 2, "workers": 3},
            {"t": 9.0, "kind": "outcome", "outcome": "undone", "before": 2, "workers": 2},
            {"t": 9.5, "kind": "decision", "outcome": "none", "rule": "well"},
        ],
    }
    words = ["fault", "A, B fire", "io_wait: 2 to 3 workers", "undone: 2 again"]
    assert [mark.words for mark in plots.marks(result)] == words
    picture = plots.draw(result, ("queue", "memory"))
    assert "a &lt;fault&gt;" in picture
    assert all(f": {each}" in picture for each in words)
    curves = [line for line in picture.splitlines() if 'fill="none"' in line]
    assert [line.count("M") for line in curves] == [1, 2, 2, 1], "living, wanted, queue, memory"
