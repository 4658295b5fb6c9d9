"""`top`: rates from two looks, cells and their health, the text, and the screen with its keys."""

import argparse
import asyncio
import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from observability import cli
from observability.settings import Settings
from observability.top import cells, columns, command, rates, source, state, words
from observability.top.cells import OK, PROBLEM, WARNING
from observability.top.columns import BY_TITLE, COLUMNS, LEFT
from observability.top.details import Details, Help
from observability.top.rates import Buckets, Row
from observability.top.screen import Polled, Top
from observability.top.source import Snapshot, Source
from observability.top.state import State, Worker
from observability.top.text import render
from tests.server import ROOT, free_port

BOUNDS = [0.1, 0.2, 0.4, "inf"]
HOSTILE = "/[red]a[/red]\x1b[31m\r\n\x9b2J\u202e\ud800e\u0301/世界" + "x" * 200


def worker(slot: int = 1, **more: Any) -> dict[str, Any]:
    """Return what /state says of a worker that has done ten requests a second up to now."""
    return {
        "slot": slot,
        "pid": 100 + slot,
        "worker_class": "gthread",
        "booted": True,
        "age_seconds": 65.0,
        "heartbeat_age_seconds": 0.5,
        "requests": 100,
        "errors": 0,
        "busy_seconds": 10.0,
        "in_flight": 1,
        "capacity": 4,
        "queued": 0,
        "lag_seconds": None,
        "cpu_seconds": 5.0,
        "pss_bytes": 80 * 2**20,
        "durations": {"bounds": BOUNDS, "counts": [100, 0, 0, 0]},
        "now": [{"method": "GET", "path": "/slow", "trace_id": "ab" * 16, "ident": 7, "age_seconds": 2.0}],
        **more,
    }


def said(*workers: dict[str, Any], time: float | None = 1000.0, master: int = 50, **server: Any) -> State:
    return state.convert(
        {
            "time": time,
            "masters": [{"pid": master, "age_seconds": 90, "worker_class": "gthread"}],
            "server": {"workers_target": 2, "workers_live": 2, **server},
            "workers": list(workers),
        }
    )


def later(count: float = 20, **more: Any) -> dict[str, Any]:
    """Return the same worker two seconds later."""
    slot = more.pop("slot", 1)
    numbers = {"requests": 100 + count, "errors": 2, "busy_seconds": 14.0, "cpu_seconds": 6.0}
    return worker(slot, **{**numbers, "durations": {"bounds": BOUNDS, "counts": [100 + count, 0, 0, 0]}, **more})


def only(rows: list[Row]) -> Row:
    (row,) = rows
    return row


class TestRates:
    def test_of_a_worker_that_goes_on(self):
        row = only(rates.rows(said(worker()), said(later(), time=1002.0), 2.0))
        assert (row.rps, row.eps, row.cpu) == (10.0, 1.0, 0.5)
        assert row.busy == pytest.approx(4.0 / 2.0 / 4), "of the places that it has"
        assert row.p99 == pytest.approx(0.099)

    def test_of_one_that_did_nothing(self):
        row = only(rates.rows(said(worker()), said(worker()), 2.0))
        assert (row.rps, row.eps, row.busy, row.cpu, row.p99) == (0, 0, 0, 0, None)

    def test_of_a_new_slot_are_not_known(self):
        rows = rates.rows(said(worker()), said(later(), worker(2)), 2.0)
        assert rows[0].rps == 10.0
        assert (rows[1].rps, rows[1].busy, rows[1].p99) == (None, None, None)

    def test_go_on_under_the_slots_next_owner(self):
        row = only(rates.rows(said(worker()), said(later(pid=999, cpu_seconds=0.1)), 2.0))
        assert (row.rps, row.cpu) == (10.0, None)

    def test_go_on_where_the_slot_had_no_owner_for_a_while(self):
        before = said()
        before.dead = [state.convert({"workers": [worker(live=False)]}).workers[0]]
        assert only(rates.rows(before, said(later(pid=999)), 2.0)).rps == 10.0

    def test_of_a_counter_that_went_back_are_not_known(self):
        row = only(rates.rows(said(later()), said(worker()), 2.0))
        assert (row.rps, row.busy, row.p99) == (None, None, None)

    def test_of_another_server_are_not_known(self):
        row = only(rates.rows(said(worker()), said(later(count=10**6), master=51), 2.0))
        assert row.rps is None

    def test_without_a_look_before_or_time_between_are_not_known(self):
        assert only(rates.rows(None, said(worker()), 2.0)).rps is None
        assert only(rates.rows(said(worker()), said(later()), 0.0)).rps is None

    def test_where_numbers_are_missing_are_not_known(self):
        nothing = {"slot": 1, "pid": 101}
        row = only(rates.rows(said(nothing), said(nothing), 2.0))
        assert (row.rps, row.eps, row.busy, row.cpu, row.p99) == (None,) * 5

    def test_of_a_class_without_bound_leave_busy_unknown(self):
        row = only(rates.rows(said(worker(capacity=None)), said(later(capacity=None)), 2.0))
        assert (row.rps, row.busy) == (10.0, None)

    def test_of_durations_that_begin_meanwhile(self):
        row = only(rates.rows(said(worker(durations=None)), said(later()), 2.0))
        assert row.p99 == pytest.approx(0.099)

    def test_of_durations_whose_bounds_changed_are_not_known(self):
        changed = {"bounds": [1, "inf"], "counts": [200, 0]}
        assert only(rates.rows(said(worker()), said(later(durations=changed)), 2.0)).p99 is None
        torn = {"bounds": BOUNDS, "counts": [200]}
        assert only(rates.rows(said(worker(durations=torn)), said(later(durations=torn)), 2.0)).p99 is None

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            (1000.0, 1002.2, 2.2),  # the agent knows best
            (1000.0, 900.0, 2.0),  # its clock was set back
            (1000.0, 5000.0, 2.0),  # or forward
            (None, 1002.0, 2.0),
            (1000.0, None, 2.0),
        ],
    )
    def test_time_between_is_the_agents_unless_its_clock_was_set(self, before, after, expected):
        assert rates.elapsed(said(time=before), said(time=after), 2.0) == pytest.approx(expected)

    def test_of_all_together(self):
        before = said(worker(), worker(2, capacity=1))
        slow = {"bounds": BOUNDS, "counts": [100, 0, 20, 0]}
        after = said(later(), later(slot=2, capacity=1, busy_seconds=12.0, durations=slow))
        rows = rates.rows(before, after, 2.0)
        total = rates.total(rows, after)
        assert (total.rps, total.eps, total.cpu) == (20.0, 2.0, 1.0)
        assert total.busy == pytest.approx((0.5 * 4 + 1.0 * 1) / 5)
        assert total.p99 == pytest.approx(0.2 + 0.2 * (39.6 - 20) / 20)
        assert total.memory == 160 * 2**20
        after.server.busy_ratio, after.server.memory_used_bytes = 0.25, 7.0
        assert (rates.total(rows, after).busy, rates.total(rows, after).memory) == (0.25, 7.0)
        assert rates.total([], said()) == rates.Totals(None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0, 0], None),
        ([100, 0, 0, 0], 0.099),
        ([0, 0, 100, 0], 0.398),
        ([99, 1, 0, 0], 0.1),
        ([98, 2, 0, 0], 0.15),
        ([1, 0, 0, 99], 0.4),  # above the last bound nothing is known
    ],
)
def test_a_quantile_is_what_prometheus_estimates(counts, expected):
    found = rates.quantile(0.99, Buckets(tuple(map(float, BOUNDS)), tuple(counts)))
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_quantile_without_a_finite_bound_is_not_known():
    assert rates.quantile(0.99, Buckets((float("inf"),), (5.0,))) is None
    assert rates.quantile(0.99, None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0ms"),
        (0.0234, "23ms"),
        (0.9994, "999ms"),
        (0.9996, "1.0s"),
        (9.94, "9.9s"),
        (59.4, "59s"),
        (65, "1m05s"),
        (3599, "59m59s"),
        (7384, "2h03m"),
        (86400 * 3 + 7200, "3d02h"),
    ],
)
def test_a_duration_takes_six_cells(seconds, text):
    assert cells.duration(seconds) == text
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0B"), (1023, "1K"), (80 * 2**20, "80M"), (1.5 * 2**30, "1.5G"), (2**41, "2.0T")],
)
def test_a_size_has_a_unit(count, text):
    assert cells.size(count) == text


def test_what_a_client_sent_cannot_reach_the_terminal():
    safe = cells.printable(HOSTILE)
    assert safe.startswith(r"/[red]a[/red]\x1b[31m\r\n\x9b2J\u202e\ud800e\u0301/世界")
    assert all(each.isprintable() for each in safe)
    cut = cells.printable(HOSTILE, 50)
    assert cell_len(cut) == 50
    assert cut.endswith("…")
    assert cell_len(cells.printable("世" * 50, 20)) <= 20


def row(**more: Any) -> Row:
    made = {key: more.pop(key) for key in ("busy", "rps", "eps", "p99", "cpu") if key in more}
    return Row(said(worker(**more)).workers[0], **made)


@pytest.mark.parametrize(
    ("title", "values", "level"),
    [
        ("slot", {"booted": False}, WARNING),
        ("busy", {"busy": 0.79}, OK),
        ("busy", {"busy": 0.8}, WARNING),
        ("busy", {"busy": 0.95}, PROBLEM),
        ("in flight", {"in_flight": 3, "capacity": 4}, OK),
        ("in flight", {"in_flight": 4, "capacity": 4}, WARNING),
        ("in flight", {"in_flight": 1, "capacity": 1}, OK),
        ("in flight", {"in_flight": 5000, "capacity": None}, OK),
        ("queued", {"queued": 0}, OK),
        ("queued", {"queued": 1}, WARNING),
        ("queued", {"queued": 4, "capacity": 4}, PROBLEM),
        ("err/s", {"eps": 0.0, "rps": 10.0}, OK),
        ("err/s", {"eps": 0.1, "rps": 10.0}, WARNING),
        ("err/s", {"eps": 0.5, "rps": 10.0}, PROBLEM),
        ("p99", {"p99": 0.5}, OK),
        ("p99", {"p99": 1.0}, WARNING),
        ("p99", {"p99": 5.0}, PROBLEM),
        ("CPU", {"cpu": 0.95}, WARNING),
        ("lag", {"lag_seconds": 0.2}, WARNING),
        ("lag", {"lag_seconds": 2.0}, PROBLEM),
        ("oldest", {"now": [{"age_seconds": 6.0}]}, WARNING),
        ("oldest", {"now": [], "oldest_request_seconds": 31.0}, PROBLEM),
        ("beat", {"heartbeat_age_seconds": 15.0, "timeout_seconds": 30}, OK),
        ("beat", {"heartbeat_age_seconds": 20.0, "timeout_seconds": 30}, WARNING),
        ("beat", {"heartbeat_age_seconds": 28.0, "timeout_seconds": 30}, PROBLEM),
        ("beat", {"heartbeat_age_seconds": 28.0}, OK),
        ("beat", {"heartbeat_age_seconds": 4.0, "timeout_seconds": 4}, PROBLEM),
        ("beat", {"heartbeat_age_seconds": 400.0, "timeout_seconds": 0}, OK),
    ],
)
def test_an_unhealthy_cell_has_a_mark_and_not_only_a_colour(title, values, level):
    column = BY_TITLE[title]
    found = row(**values)
    assert column.level(found) == level
    assert column.text(found) == column.shown(found) + ["", "!", "!!"][level]


def test_what_is_unknown_is_shown_as_such_and_never_unhealthy():
    nothing = Row(Worker(slot=1))
    for column in COLUMNS[1:]:
        assert column.level(nothing) == OK
        assert column.shown(nothing) == "-"


def test_rows_sort_by_any_column_and_the_unknown_comes_last():
    rows = [row(), Row(Worker(slot=2)), row(), row()]
    rows = [
        Row(Worker(slot=number, pid=pid), rps=rps)
        for number, pid, rps in [(1, 9, 5.0), (2, 8, None), (3, 7, 5.0), (4, 6, 9.0)]
    ]
    by_rate = BY_TITLE["req/s"]
    assert [each.worker.slot for each in columns.ordered(rows, by_rate, descending=True)] == [4, 1, 3, 2]
    assert [each.worker.slot for each in columns.ordered(rows, by_rate, descending=False)] == [1, 3, 4, 2]
    for column in COLUMNS:
        assert len(columns.ordered(rows, column, descending=column.largest_first)) == 4


def test_columns_give_way_to_a_small_terminal():
    assert columns.fitting(COLUMNS, 200) == list(COLUMNS)
    titles = [column.title for column in columns.fitting(COLUMNS, 79)]
    assert titles[0] == "slot"
    assert {"busy", "in flight", "req/s", "err/s", "p99"} <= set(titles)
    assert "class" not in titles
    assert [column.title for column in columns.fitting(COLUMNS, 1)] == ["slot"]
    for width in range(10, 160):
        assert (
            len(columns.fitting(COLUMNS, width)) == 1
            or sum(each.width + 2 for each in columns.fitting(COLUMNS, width)) <= width
        )


@pytest.mark.parametrize("some", [COLUMNS, LEFT])
def test_every_column_has_a_key_of_its_own(some):
    assert len({column.key for column in some}) == len(some)
    assert not {column.key for column in some} & {"q", "R", "?"}


def test_every_column_fits_its_width():
    full = row(busy=1.0, rps=99999.0, eps=9999.0, p99=3599.0, cpu=9.99, pid=4194304, in_flight=1000, capacity=1000)
    for column in COLUMNS:
        taken = cell_len(column.text(full)) + (9 if column.title == "busy" else 0)
        assert taken <= column.width + 1, column.title


def test_the_command_knows_every_column():
    assert tuple(column.title for column in COLUMNS) == cli._SORTED


def test_the_page_explains_every_column():
    page = (ROOT / "docs/top.md").read_text()
    for column in (*COLUMNS, *LEFT):
        assert f"| {column.title} | `{column.key}` | {column.means} | {column.bad} |" in page


# What stands above the table.


def shown(before: State | None, after: State | None, **more: Any) -> words.Picture:
    first = Snapshot("http://agent", before, at=10.0) if before is not None else None
    return words.picture(first, Snapshot("http://agent", after, at=12.0, **more))


def text_of(picture: words.Picture) -> str:
    return render(picture, BY_TITLE["slot"], descending=False)


def test_the_server_is_told_in_a_few_lines():
    server: dict[str, Any] = {
        "busy_ratio": 0.97,
        "listeners": [{"address": "127.0.0.1:8000", "kind": "tcp", "backlog": 2000, "backlog_limit": 2048}],
        "cpu_quota": 2.0,
        "memory_limit_bytes": 2**30,
        "memory_used_bytes": 2**29,
        "last_exits": [
            {"time": 990.0, "slot": 1, "pid": 9, "cause": "recycled", "signal": "", "code": 0},
            {"time": 999.0, "slot": 2, "pid": 8, "cause": "oom_killed", "signal": "SIGKILL", "code": None},
        ],
    }
    text = text_of(shown(said(worker(), time=998.0), said(later(), later(slot=2), time=1000.0, **server)))
    assert "master 50  class gthread  up 1m30s  workers 2/2\n" in text
    assert "busy 97%!!  req/s 10  err/s 1.0!!  p99 99ms  CPU 0.5/2 cores\n" in text
    assert "memory 512M/1.0G  backlog 127.0.0.1:8000 2000/2048!!\n" in text
    assert "last exits  slot 2 1.0s ago oom_killed (SIGKILL)!  slot 1 10s ago recycled\n" in text
    assert re.search(r"^ +1 +101  gthread +50% +1/4 +0 +10 +1\.0!! +99ms +50%", text, re.MULTILINE)
    assert re.search(r"^ +1 +2\.0s  abab\w+  GET +/slow$", text, re.MULTILINE)
    assert "!! " not in text.splitlines()[0], "no banner"


def test_missing_workers_two_masters_and_torn_files_are_marked():
    after = said(worker(), workers_target=3, workers_live=1)
    after.masters.append(state.Master(pid=51, worker_class="gthread"))
    after.agent.corrupt_files = {"worker-9.slot": "truncated"}
    text = text_of(shown(None, after))
    assert "master 50, 51" in text
    assert "workers 1/3!" in text
    assert "upgrade under way" in text
    assert "corrupt files 1!" in text


def test_a_hostile_path_stays_one_line():
    flight = {"method": "G\x1b[1m", "path": HOSTILE, "trace_id": "\x07", "age_seconds": 1.0}
    text = text_of(shown(None, said(worker(now=[flight]))))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\r" not in text
    (line,) = [line for line in text.splitlines() if "/[red]a[/red]" in line]
    assert cell_len(line) < 150


def dead() -> State:
    left = worker(live=False, ended=1005.0)
    return state.convert({"time": 2000.0, "masters": [], "workers": [], "dead": [left]})


def test_a_dead_server_is_shown_as_it_was():
    end = {"outcome": "killed", "reason": "the master left\nno word", "time": 1.0}
    text = text_of(shown(said(worker()), dead(), end=end))
    banner, *_ = text.splitlines()
    assert re.match(r"!! THE SERVER IS DEAD since \d{4}-\d\d-\d\d .* ago\): killed, the master left no word", banner)
    assert re.search(r"^ +1 +101  gthread +100 +0 +1! +1m05s +2\.0s +\d\d:\d\d:\d\d  GET /slow$", text, re.MULTILINE)
    assert re.search(r"^ +1 +2\.0s  abab\w+  GET +/slow$", text, re.MULTILINE), "its age at the end"
    assert not re.search(r"busy|req/s|p99", text), "there are no rates of the dead"


def test_ages_are_not_known_where_nobody_saw_the_end():
    unseen = state.convert({"time": 2000.0, "dead": [worker(live=False, ended=None, age_seconds=900.0)]})
    text = text_of(shown(None, unseen, end={"outcome": "killed", "time": 1500.0}))
    day, began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1998)).split()
    assert f"THE SERVER IS DEAD, last sign of life {day} {began}" in text
    assert re.search(r"^ +1 +101  gthread +100 +0 +1! +- +- +-  GET /slow$", text, re.MULTILINE)
    assert re.search(rf"^ +1 +{began}  abab\w+  GET +/slow$", text, re.MULTILINE)


def test_nothing_to_see_is_said():
    assert text_of(shown(None, None, trouble="http://agent: nothing answers")) == (
        "!! NO SERVER TO BE SEEN. http://agent: nothing answers - trying again\n"
    )
    assert words.banner(Snapshot("/dir", state.convert({}))) == "NO SERVER RUNS HERE"
    orphans = state.convert({"workers": [worker()]})
    assert "THE MASTER IS DEAD" in words.banner(Snapshot("/dir", orphans))


# Where states come from.


class Answers(BaseHTTPRequestHandler):
    """Answers as the server's attributes say."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.answer = [], (200, b"{}")
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_agent_is_asked_directly_whatever_the_proxy(agent, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    agent.answer = 200, json.dumps({"masters": [{"pid": 5}], "news": 1, "workers": [worker(news=[1])]}).encode()
    snapshot = Source(agent.url + "/", None).poll()
    assert snapshot.state is not None
    assert [each.pid for each in snapshot.state.workers] == [101]
    assert (snapshot.alive, snapshot.trouble, snapshot.origin) == (True, "", agent.url)
    assert agent.asked == ["/state?dead=1"]


@pytest.mark.parametrize(
    "answer",
    [(200, b"<html>"), (200, b"[1]"), (200, b'{"workers": [{"slot": "x"}]}'), (404, b"{}"), (500, b""), (302, b"")],
)
def test_what_is_no_agent_is_said(agent, answer):
    agent.answer = answer
    snapshot = Source(agent.url, None).poll()
    assert snapshot.state is None
    assert "so it is no agent" in snapshot.trouble


def test_without_an_agent_the_directory_is_read(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    assert "nothing answers" in Source(url, None).poll().trouble
    missing = Source(url, tmp_path / "none").poll()
    assert missing.state is None
    assert "is no directory" in missing.trouble
    empty = Source(url, tmp_path).poll()
    assert (empty.origin, empty.alive) == (str(tmp_path), False)
    assert "NO SERVER RUNS HERE" in words.banner(empty)
    assert Source("", tmp_path).poll().trouble == ""


def test_a_stack_is_asked_for_by_slot(agent):
    agent.answer = 200, b"Thread 1\n"
    assert Source(agent.url, None).stack(3) == "Thread 1\n"
    assert agent.asked == ["/workers/3/stack"]
    agent.answer = 404, b"no"
    assert Source(agent.url, None).stack(3).startswith("No stack: the worker is gone")
    assert "nothing answers" in Source(f"http://127.0.0.1:{free_port()}", None).stack(1)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:9"), ("0.0.0.0", "http://127.0.0.1:9"), ("::", "http://[::1]:9")],
)
def test_an_agent_that_listens_everywhere_is_asked_on_loopback(host, url):
    assert source.agent_url(Settings(agent_host=host, agent_port=9)) == url


def test_once_prints_plain_text_whatever_the_terminal(agent, monkeypatch):
    agent.answer = 200, json.dumps({"masters": [{"pid": 5}], "workers": [worker(now=[{"path": "/世"}])]}).encode()
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    chosen = argparse.Namespace(url=agent.url, directory=None, once=False, interval=0.1, sort="slot")
    assert command.run(Settings(), chosen) == command.LIVE, "no terminal: once"
    assert b"master 5" in raw.getvalue()
    assert rb"/\u4e16" in raw.getvalue()
    assert b"\x1b" not in raw.getvalue()
    assert len(agent.asked) == 2, "two looks make rates"


def test_once_says_by_its_status_that_there_is_nothing(capsys):
    source = Source(f"http://127.0.0.1:{free_port()}", None)
    assert command.once(source, 60.0, BY_TITLE["slot"]) == command.NOTHING
    assert capsys.readouterr().out.startswith("!! NO SERVER TO BE SEEN")


# The screen.


class Looks:
    """Gives out what a test sets."""

    def __init__(self, *workers: dict[str, Any]) -> None:
        self.count = 0
        self.workers = list(workers) or [worker(1, busy_seconds=1.0), worker(2), worker(3)]
        self.snapshot: Callable[[], Snapshot] = self.live

    def live(self) -> Snapshot:
        grown = [each | {"requests": 100 + self.count * each["slot"]} for each in self.workers]
        return Snapshot("http://agent", said(*grown, time=1000.0 + self.count), at=float(self.count))

    def poll(self) -> Snapshot:
        self.count += 1
        return self.snapshot()

    def stack(self, slot: int) -> str:
        return f"Thread of slot {slot} [bold]not markup[/bold]\n  File \x1b[31m x"


def play(looks: Looks, *steps: Callable[[Top, Pilot[None]], Coroutine[Any, Any, None]], width: int = 132) -> Top:
    """Run the screen without a terminal, and the steps on it."""
    app = Top(looks, 0.1)

    async def run() -> None:
        async with app.run_test(size=(width, 24)) as pilot:
            await until(pilot, lambda: app.shown is not None and app.table.row_count)
            for step in steps:
                await step(app, pilot)

    asyncio.run(run())
    return app


async def until(pilot: Pilot[None], condition: Callable[[], Any]) -> None:
    for _ in range(400):
        await pilot.pause(0.02)
        if condition():
            return
    raise AssertionError("waited in vain")


def slots(app: Top) -> list[int]:
    return [int(key.value or 0) for key in app.table.rows]


def static(app: Top, name: str) -> str:
    return str(app.screen.query_one(name).render())


def test_the_screen_shows_rates_and_sorts_by_keys():
    async def step(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.shown and app.shown.rows[0].rps == 1.0)
        assert slots(app) == [1, 2, 3]
        await pilot.press("r")
        assert slots(app) == [3, 2, 1]
        await pilot.press("r")
        assert slots(app) == [1, 2, 3]
        await pilot.press("R")
        assert slots(app) == [3, 2, 1]
        assert "req/s▼" in [str(column.label) for column in app.table.columns.values()]
        await pilot.press("greater_than_sign")
        assert app.column.title == "err/s"
        await pilot.press("less_than_sign", "less_than_sign")
        assert app.column.title == "queued"
        for column in COLUMNS:
            await pilot.press(column.key)
            assert app.column is column

    play(Looks(), step)


def test_a_head_that_is_clicked_sorts():
    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.click("_Workers", offset=(2, 0))
        assert app.column.title == "slot"
        assert slots(app) == [3, 2, 1], "the same column again: the other way round"

    play(Looks(), step)


def test_the_cursor_stays_on_its_worker():
    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down")
        assert app.chosen == 3
        await pilot.press("p", "R")
        assert slots(app) == [3, 2, 1]
        assert (app.chosen, app.table.cursor_row) == (3, 0)
        before = app.source.count  # type: ignore[attr-defined]
        await until(pilot, lambda: app.source.count > before + 2)  # type: ignore[attr-defined]
        assert app.chosen == 3

    play(Looks(), step)


def test_pause_and_the_interval():
    looks = Looks()

    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        await until(pilot, lambda: "paused" in static(app, "#server"))
        count, shown = looks.count, app.shown
        await pilot.pause(0.4)
        assert looks.count <= count + 1, "one may have been on its way"
        assert app.shown is shown
        await pilot.press("space")
        await until(pilot, lambda: app.shown is not shown)
        await pilot.press("plus", "plus")
        assert app.interval == 0.5
        assert "every 0.5 s" in static(app, "#server")
        await pilot.press("minus", "minus", "minus")
        assert app.interval == 0.1

    play(looks, step)


def test_a_workers_requests_and_its_stack():
    looks = Looks(worker(7, now=[{"method": "GET", "path": HOSTILE, "trace_id": "cd" * 16, "age_seconds": 3.0}]))

    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Details))
        requests = static(app, "#requests")
        assert "slot 7" in requests
        assert "cd" * 16 in requests
        assert r"/[red]a[/red]\x1b[31m" in requests, "markup is text, and control characters are escaped"
        await pilot.press("s")
        await until(pilot, lambda: "Thread of slot 7 [bold]not markup[/bold]" in static(app, "#stack"))
        assert r"\x1b[31m" in static(app, "#stack")
        assert "\x1b" not in static(app, "#stack")
        looks.workers = [worker(8)]
        await until(pilot, lambda: "gone" in static(app, "#requests"))
        await pilot.press("escape")
        await until(pilot, lambda: slots(app) == [8])

    play(looks, step)


def test_a_hostile_path_does_not_spoil_what_is_drawn():
    looks = Looks(worker(1, worker_class="\x1b[31m[red]evil[/red]", now=[{"path": HOSTILE, "method": "[b]"}]))

    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Details))
        await pilot.pause()
        drawn = app.export_screenshot()
        assert "\x1b" not in drawn
        assert "[red]a[/red]" in drawn.replace("&#160;", " ")

    play(looks, step)


def test_help_explains_keys_and_columns():
    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        await pilot.pause()
        drawn = app.export_screenshot().replace("&#160;", " ")
        assert "sort the other way round" in drawn
        assert "its process" in drawn
        await pilot.press("question_mark")
        await until(pilot, lambda: not isinstance(app.screen, Help))

    play(Looks(), step)


def test_an_agent_that_goes_and_comes_back():
    looks = Looks()

    async def step(app: Top, pilot: Pilot[None]) -> None:
        assert not app.screen.query_one("#banner").display
        looks.snapshot = lambda: Snapshot("http://agent", trouble="http://agent: nothing answers")
        await until(pilot, lambda: app.screen.query_one("#banner").display)
        assert "nothing answers - trying again" in static(app, "#banner")
        assert slots(app) == []
        await pilot.press("enter", "b", "R", "question_mark", "escape")  # keys do no harm to an empty table
        looks.snapshot = lambda: Snapshot("/dir", dead(), end={"outcome": "killed", "time": 1.0})
        await until(pilot, lambda: slots(app) == [1])
        assert "THE SERVER IS DEAD" in static(app, "#banner")
        assert [column.title for column in app.fitting] == [column.title for column in LEFT]
        await pilot.press("n", "n", "b", "less_than_sign")
        assert app.column.title == "died"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Details))
        assert "dead" in static(app, "#requests")
        assert "/slow" in static(app, "#requests")
        looks.snapshot = looks.live
        await pilot.press("escape")
        await until(pilot, lambda: slots(app) == [1, 2, 3])
        assert not app.screen.query_one("#banner").display

    play(looks, step)


@pytest.mark.parametrize("width", [20, 60, 80])
def test_a_small_terminal_shows_what_matters_most(width):
    async def step(app: Top, pilot: Pilot[None]) -> None:
        titles = [str(column.label).rstrip("▲▼") for column in app.table.columns.values()]
        assert titles == [column.title for column in columns.fitting(COLUMNS, width - 1)]
        await pilot.resize_terminal(160, 24)
        await until(pilot, lambda: len(app.table.columns) == len(COLUMNS))

    play(Looks(), step, width=width)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leaving(key):
    async def step(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await until(pilot, lambda: app.return_code == 0)

    app = play(Looks(), step)
    assert app._left.is_set(), "no thread looks on"
    app.on_polled(Polled(app.source.poll()))  # a look that was under way finds the screen taken down


def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def step(app: Top, pilot: Pilot[None]) -> None:
        found = {color.lower() for color in re.findall(r"fill: (#[0-9a-fA-F]{6})", app.export_screenshot())}
        found.discard("#c5c8c6")  # of the picture's frame
        assert all(len({color[1:3], color[3:5], color[5:7]}) == 1 for color in found), found

    play(Looks(), step)
