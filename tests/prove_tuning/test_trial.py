"""What is checked in every scenario is not met where it must not be, and the pictures say what was seen."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from observability.tuning import voice
from observability.tuning.memory import Entry, Memory
from observability.tuning.model import Action, Decision, History, Limits, Mode, Outcome, Signals, Step
from observability.tuning.settings import Settings
from observability.tuning.table import TABLE
from observability.tuning.tally import Tally
from tests.prove.webhook import Notice
from tests.prove_tuning import plots, results, trial
from tests.prove_tuning.clients import Arrivals, Clients
from tests.prove_tuning.run import Run
from tests.server import free_port, wait_until
from tests.tuning.parts import Tuner


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
        ([entry(0), entry(61, "remove_worker", "starved")], 1),
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


def test_what_relieves_is_what_the_table_says():
    assert {row.name for row in TABLE if row.relief} == trial.RELIEF == {"memory"}


CROWDED = Signals(
    server="a:1",
    time=1000.0,
    age=1.0,
    worker_class="sync",
    workers_target=3,
    workers_live=3,
    slots=1.0,
    cores=2.0,
    requests=40.0,
    queue_p95=0.2,
    busy=0.97,
    busy_by_worker=(0.98, 0.97, 0.96),
    cpu_share=0.3,
    memory_share=0.5,
)


class Seen:
    """A run of nothing but what a tuner says: its own voice, into its own log and memory."""

    def __init__(self, directory, monkeypatch):
        self.tuner = Tuner(directory, 1, TUNER_MAX_WORKERS=8)
        self.memory = Memory(directory / "memory", lambda _: None)
        self.voice = voice.Voice(self.memory, Tally(), 60.0, itertools.count(CROWDED.time).__next__)
        monkeypatch.setattr(voice.logs, "emit", self._write)

    def _write(self, level, event, fields, *, body):
        with self.tuner.log_path.open("a") as log:
            log.write(json.dumps({"body": body, "event.name": event, **fields}) + "\n")

    def decided(self, signals, action=Action.ADD, outcome=Outcome.APPLIED):
        decision = Decision(action, "io_wait", "", "", signals.workers_target + 1, 8)
        self.voice.decided(signals, Limits(), History(), decision, Mode.APPLY, outcome)

    def judged(self, signals, action=Action.REMOVE, outcome=Outcome.UNDONE):
        step = Step(900.0, action, signals.workers_target + 1, signals.workers_target, "idle", Outcome.APPLIED)
        self.voice.judged(signals.server, step, signals, Mode.APPLY, outcome, "", {}, step.before)

    def check(self):
        """Return what becomes of the check, and what it says."""
        run = Run(SimpleNamespace(tuners=[self.tuner, self.tuner]), lambda _: None)
        run.started = CROWDED.time - 10
        self.memory.save()
        trial._check_growth(run, self.memory.entries())
        (found,) = run.checks
        assert found["what"] == "no growth against a veto"
        return found["met"], found["seen"]


@pytest.fixture
def seen(tmp_path, monkeypatch):
    return Seen(tmp_path, monkeypatch)


BROKEN_BY_BOTH = [
    ({"age": 16.0}, "stale"),
    ({"workers_live": 2}, "unsettled"),
    ({"reloading": True}, "unsettled"),
    ({"memory_share": 0.91}, "memory"),
    ({"oom_kills": 1.0}, "memory"),
    ({"cpu_share": 0.85, "run_queue": 1.0, "cores": 4.0}, "starved"),
    ({"throttled": 0.25}, "throttled"),
    ({"cpu_share": 0.7}, "cores"),
    ({"workers_target": 8, "workers_live": 8}, "ceiling"),
    ({"timeouts": 1.0}, "stuck"),
]
BROKEN_BY_DECISIONS = [
    ({"timeouts": 1.0, "busy": 0.5}, "stuck"),
    ({"requests": 9.0}, "traffic"),
    ({"queue_p95": 0.05}, "no queue"),
    ({"queue_p95": None}, "no queue"),
]
BROKEN_BY_TAKING_BACK = [
    ({"timeouts": 1.0, "busy": 0.5, "busy_rising": True}, "stuck"),
    ({"error_ratio": 0.06, "queue_p95": 0.01}, "errors"),
    ({"error_ratio": 0.01, "errors_burning": True, "queue_p95": 0.01}, "errors"),
]
NOT_BROKEN = [
    {},
    {"memory_share": None},
    {"memory_share": 0.9},
    {"cpu_share": 0.86, "cores": 4.0},
    {"run_queue": 3.0},
    {"cpu_share": 0.7, "cores": 2.5},
    {"requests": 10.0},
    {"error_ratio": 0.5},
]


@pytest.mark.parametrize(("changes", "name"), BROKEN_BY_BOTH + BROKEN_BY_DECISIONS)
@pytest.mark.parametrize("outcome", [Outcome.APPLIED, Outcome.FAILED])
def test_a_decision_to_grow_against_a_fact_is_seen(seen, changes, name, outcome):
    signals = replace(CROWDED, **changes)
    seen.decided(CROWDED)
    seen.decided(signals, outcome=outcome)
    assert seen.check() == (False, f"{signals.workers_target} to {signals.workers_target + 1} at 10.0 s, {name}")


@pytest.mark.parametrize(("changes", "name"), BROKEN_BY_BOTH + BROKEN_BY_TAKING_BACK)
def test_a_removal_that_is_taken_back_against_a_fact_is_seen(seen, changes, name):
    signals = replace(CROWDED, **changes)
    seen.judged(signals)
    assert seen.check() == (False, f"{signals.workers_target} to {signals.workers_target + 1} at 10.0 s, {name}")


@pytest.mark.parametrize("changes", NOT_BROKEN)
def test_growth_against_nothing_is_well(seen, changes):
    seen.decided(replace(CROWDED, **changes))
    seen.judged(replace(CROWDED, **changes))
    assert seen.check() == (True, "none of 2")


def test_what_takes_a_removal_back_needs_no_queue_and_a_late_loop_is_none(seen):
    seen.judged(replace(CROWDED, queue_p95=0.01, requests=5.0, timeouts=1.0, busy=0.5))
    seen.decided(replace(CROWDED, queue_p95=None, loop_lag_p99=0.2, worker_class="gevent"))
    assert seen.check() == (True, "none of 2")


def test_what_makes_no_server_grow_is_no_growth(seen):
    starved = replace(CROWDED, cpu_share=0.9, run_queue=2.0)
    for action, outcome in [(Action.ADD, Outcome.REFUSED), (Action.REMOVE, Outcome.APPLIED)]:
        seen.decided(starved, action, outcome)
    for action, outcome in [(Action.ADD, Outcome.UNDONE), (Action.REMOVE, Outcome.KEPT)]:
        seen.judged(starved, action, outcome)
    assert seen.check() == (True, "none of 0")


def test_growth_that_is_in_no_log_is_seen(seen):
    seen.decided(CROWDED)
    seen.tuner.log_path.unlink()
    assert seen.check() == (False, "1 of 1 are in no log")


def test_commands_that_keep_results_at_once_lose_none(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FILE", tmp_path / "results.json")
    names = [f"s{number:02}" for number in range(40)]
    with ThreadPoolExecutor(8) as commands:
        days = commands.submit(lambda: results.Results.read().keep_days({"days": []}))
        list(commands.map(lambda name: results.Results.read().keep({"scenario": name, "checks": []}), names))
    found = results.Results.read().found
    assert days.result() == []
    assert ([each["scenario"] for each in found[results.TRIALS]], found[results.DAYS]) == (names, {"days": []})
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


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
