"""Signals: what each is made of, from Prometheus' answers and from an agent's, and what is made of broken ones."""

import argparse
import itertools
import json
import os
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from observability import catalogue, cli, exposition
from observability.agent.outside import Outside
from observability.page import Page
from observability.probes import cgroup
from observability.tuning import advise, asked, asking, exposed, promql, text, trends
from observability.tuning.model import Action, Advice, Decision, Signals
from observability.tuning.onlooker import Onlooker
from observability.tuning.prometheus import Prometheus
from observability.tuning.reader import Numbers, ReadError, assemble, queue_of
from observability.tuning.trends import Memory, Point
from tests.prometheus import program
from tests.server import ROOT, free_port

KNOWN = {
    "workers_target": 2.0,
    "workers_live": 2.0,
    "cores": 2.0,
    "requests_per_second": 10.0,
    "in_flight": 1.5,
    "busy": 0.75,
    "whole_window": 2.0,
}
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(*answers, pause=0.0):
    """Answer each connection with the next of some raw answers, the last one again and again; a list is dripped."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()
        asked_for = []

        def serve():
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection, next(turns)), daemon=True).start()

        def answer(connection, raw):
            with connection:
                asked_for.append(connection.recv(100_000))
                try:
                    for piece in raw if isinstance(raw, list) else [raw]:
                        connection.sendall(piece if isinstance(piece, bytes) else piece.encode())
                        if isinstance(raw, list) and over.wait(pause):
                            return
                except OSError:
                    pass  # the other side has had enough

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked_for
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def said(body, status="200 OK"):
    body = body if isinstance(body, str) else json.dumps(body)
    return f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}"


def vector(values, instance="app:9101", at=1000.0, **labels):
    return [
        {"metric": {"signal": name, "instance": instance, **labels}, "value": [at, str(value)]}
        for name, value in values.items()
    ]


SYNC = vector({"worker_class": 1}, worker_class="sync")


def success(result):
    return said({"status": "success", "data": {"resultType": "vector", "result": result}})


class TestAnAnswerIsBounded:
    def ask(self, url, **bounds):
        begun = time.monotonic()
        with pytest.raises(ReadError) as raised:
            asking.ask(url, **bounds)
        assert time.monotonic() - begun < 4, "a deadline that a user notices"
        (line,) = str(raised.value).splitlines()
        return line.removeprefix(f"{url}: ")

    @pytest.mark.parametrize(
        "pieces",
        [
            [HEAD, *["X-Header: x\r\n"] * 1000],
            [HEAD + "Content-Length: 100000\r\n\r\n", *["x"] * 1000],
            [HEAD + "Transfer-Encoding: chunked\r\n\r\n", "fff\r\n", *["x"] * 1000],
            [HEAD + "Connection: close\r\n\r\n", *["x"] * 1000],  # no length: it ends where it is cut
            ["", *[""] * 1000],
        ],
        ids=["headers", "body", "chunk", "without a length", "nothing"],
    )
    def test_in_time_though_it_drips(self, pieces):
        with answering(pieces, pause=0.1) as (url, _):
            assert self.ask(url, seconds=0.7) == "no answer within 0.7 s"

    @pytest.mark.parametrize("end", ["Content-Length: 9999999\r\n\r\n", "Connection: close\r\n\r\n"])
    def test_in_size(self, end):
        with answering([HEAD + end, *[b"x" * 100_000] * 30]) as (url, _):
            assert self.ask(url, most=1 << 20) == "answers more than 1 MiB"

    def test_what_is_packed_is_not_unpacked(self):
        with answering([HEAD + "Content-Encoding: gzip\r\nConnection: close\r\n\r\n", b"\x1f\x8b no gzip"]) as (
            url,
            was,
        ):
            assert asking.ask(url) == (200, b"\x1f\x8b no gzip")
            assert b"Accept-Encoding: identity" in was[0]

    @pytest.mark.parametrize(
        ("raw", "line"),
        [
            ("", "nothing answers"),
            ("no HTTP at all\r\n\r\n", "nothing answers"),
            (HEAD + "Content-Length: 100\r\n\r\nshort", "the answer breaks off"),
            (HEAD + "Transfer-Encoding: chunked\r\n\r\nff\r\nshort", "the answer breaks off"),
        ],
    )
    def test_one_that_breaks_off(self, raw, line):
        with answering(raw) as (url, _):
            assert self.ask(url) == line

    def test_nobody_and_nonsense(self):
        assert self.ask(f"http://127.0.0.1:{free_port()}") == "nothing answers"
        assert self.ask("http://[") == "the address: Invalid IPv6 URL"

    def test_no_line_shows_a_password(self):
        with pytest.raises(ReadError, match=r"^http://user:\*\*\*@127\.0\.0\.1:\d+: nothing answers$"):
            asking.ask(f"http://user:hunter2@127.0.0.1:{free_port()}")


class TestPrometheus:
    def test_one_question_for_all_servers_and_numbers(self):
        two = [*vector(KNOWN), *vector({**KNOWN, "busy": 0.5}, "b:9101")]
        for server, worker_class in (("app:9101", "sync"), ("b:9101", "gevent")):
            two += vector({"worker_class": 2}, server, worker_class=worker_class)
        two += vector({"busy_by_worker": 0.7}, worker="1") + vector({"busy_by_worker": 0.8}, worker="2")
        with answering(success(two), success([])) as (url, was):
            first, second = Prometheus(url).read(5000.0)
            assert len(was) == 3, "what is now, the last minutes, the memory of hours"
        assert (first.server, first.worker_class, first.busy, first.servers) == ("app:9101", "sync", 0.75, 2)
        assert first.busy_by_worker == (0.8, 0.7)
        assert (second.server, second.worker_class, second.busy) == ("b:9101", "gevent", 0.5)
        assert (first.time, first.age) == (5000.0, 0.0)

    def test_the_age_is_that_of_the_oldest_and_the_clock_is_the_callers(self):
        rows = vector({**KNOWN, "age_samples": 4.5, "age_rules": 7.25}) + vector(
            {"worker_class": 1}, worker_class="sync"
        )
        with answering(success(rows), success([])) as (url, _):
            (signals,) = Prometheus(url).read(5000.0)
        assert (signals.time, signals.age) == (4995.5, 7.25)

    def test_what_is_the_jobs_own_is_every_servers(self):
        burning = [{"metric": {"signal": "errors_burning"}, "value": [1000.0, "2"]}]
        rows = vector(KNOWN) + SYNC + burning
        with answering(success(rows), success([])) as (url, _):
            (signals,) = Prometheus(url).read(5000.0)
        assert signals.errors_burning
        assert (signals.queue_p95, signals.memory_share, signals.duration_p99_usual) == (None, None, None)

    def test_no_number_is_no_value(self):
        odd = {"duration_p99": "NaN", "queue_p95": "+Inf", "timeouts": "-Inf", "run_queue": "1e999", "slots": "x"}
        rows = vector({**KNOWN, **odd}) + SYNC
        with answering(success(rows), success([])) as (url, _):
            (signals,) = Prometheus(url).read(5000.0)
        assert (signals.duration_p99, signals.queue_p95, signals.timeouts, signals.run_queue) == (None, None, 0.0, 0.0)
        assert signals.slots == 0.0

    @pytest.mark.parametrize(
        ("raw", "line"),
        [
            (said("<html>oops</html>", "500 Internal Server Error"), "answers 500, and nothing that Prometheus would"),
            (said("<html>a login</html>"), "answers, but is no Prometheus"),
            (said('{"status": "success", "data": {"result": 7}}'), "answers, but is no Prometheus"),
            (said("[" * 100_000), "answers, but is no Prometheus"),
            (
                said("", "302 Found\r\nLocation: http://example.invalid/"),
                "answers 302, and nothing that Prometheus would",
            ),
            (
                said(
                    {"status": "error", "errorType": "bad_data", "error": "parse\nerror \x1b[31m" + "x" * 999},
                    "400 Bad",
                ),
                "refuses with 400: parse error \\x1b[31m" + "x" * 182,
            ),
            (said({"status": "error", "error": "query timed out"}, "503 Busy"), "refuses with 503: query timed out"),
            (success([]), "knows no server of the job 'shop' that is up"),
            (
                success(vector({"workers_live": 2.0}, at=1.0)),
                "does not know workers_target, cores, ",
            ),
            (
                success(vector({name: value for name, value in KNOWN.items() if name != "whole_window"}) + SYNC),
                "has known the servers for less than 60 s",
            ),
        ],
        ids=lambda each: each[:30] if isinstance(each, str) and not each.startswith("HTTP") else "",
    )
    def test_whatever_else_answers_is_one_line(self, raw, line):
        with answering(raw, success([])) as (url, _), pytest.raises(ReadError) as raised:
            Prometheus(url, job="shop").read(0.0)
        (told,) = str(raised.value).splitlines()
        assert told.startswith(url)
        assert told.partition(": ")[2].startswith(line) or told.endswith(line)

    def test_too_much_is_not_taken(self):
        endless = [HEAD + "Connection: close\r\n\r\n", *[b" " * (1 << 20)] * 40]
        with answering(endless) as (url, _), pytest.raises(ReadError, match="answers more than 16 MiB"):
            Prometheus(url).read(0.0)

    def test_a_jobs_name_cannot_leave_its_quotes(self):
        assert promql.selector('a"} or vector(1)\n\\', 'state="x"') == '{job="a\\"} or vector(1)\\n\\\\",state="x"}'


def evaluated(tmp_path, series, cases):
    """Have promtool evaluate our expression over some series: each case is a time, a signal and its values."""
    expression = promql.numbers("sightline")
    file = {
        "rule_files": [str(ROOT / "monitoring/prometheus/rules/recording.yml")],
        "evaluation_interval": "5s",
        "group_eval_order": ["requests", "saturation", "tuning", "workers-recorded"],
        "tests": [
            {
                "interval": "5s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'sum by (instance) (({expression}) and on (signal) label_replace(vector(1), "signal", '
                        f'"{signal}", "", ""))',
                        "eval_time": at,
                        "exp_samples": [
                            {"labels": f'{{instance="{server}"}}' if server else "{}", "value": value}
                            for server, value in values.items()
                        ],
                    }
                    for at, signal, values in cases
                ],
            }
        ],
    }
    path = tmp_path / "cases.yml"
    path.write_text(yaml.safe_dump(file))
    return subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False)


def test_prometheus_itself_says_what_we_take_it_to_say(tmp_path):
    """Ages where scrapes end without a word, the first reload and a later one, a young server, what burns."""
    of = 'job="sightline", instance="{}"'.format
    burning = 'ALERTS{{job="sightline", alertname="SloAvailabilityBurning", severity="{}", alertstate="{}"}}'.format
    series = {
        f'gunicorn_workers{{{of("one")}, state="live"}}': "2x100",
        f'gunicorn_workers{{{of("two")}, state="live"}}': "2x60",  # nobody says that it has gone: it is not seen again
        f'gunicorn_workers{{{of("three")}, state="live"}}': "_x80 2x20",
        f'gunicorn_workers{{{of("three")}, state="target"}}': "_x80 3x20",
        f'gunicorn_workers{{{of("three")}, state="booted"}}': "_x80 1x20",
        f'gunicorn_worker_busy_ratio{{{of("one")}, worker="1"}}': "0.5x100",
        f'gunicorn_worker_busy_ratio{{{of("two")}, worker="1"}}': "0.25x60",
        f"gunicorn_reloads_total{{{of('one')}}}": "_x59 1x20 2x20",
        f'gunicorn_worker_exits_total{{{of("one")}, cause="oom_killed"}}': "0x39 2x61",
        f"cgroup_oom_kills_total{{{of('two')}}}": "5x100",
        f'gunicorn_worker_info{{{of("one")}, worker="1", worker_class="sync"}}': "1x100",
        f'gunicorn_worker_info{{{of("one")}, worker="2", worker_class="sync"}}': "1x100",
        burning("critical", "pending"): "1x10",
        burning("warning", "firing"): "1x100",
        'gunicorn_workers{job="other", instance="one", state="live"}': "99x100",
    }
    cases = [
        ("5m", "age_samples", {"one": 0, "two": 0}),
        ("6m12s", "age_samples", {"one": 2, "two": 72}),
        ("5m3s", "age_rules", {"one": 3, "two": 3}),
        ("4m50s", "reloads", {}),
        ("5m10s", "reloads", {"one": 1}),
        ("6m", "reloads", {"one": 0}),
        ("3m", "oom_kills", {"one": 0, "two": 0}),
        ("7m10s", "whole_window", {"one": 2, "two": 2}),
        ("7m50s", "whole_window", {"one": 2, "two": 2, "three": 2}),
        ("8m", "workers_target", {"three": 3}),
        ("8m", "workers_live", {"three": 1}),  # the other boots, perhaps again and again
        ("30s", "errors_burning", {"": 1}),
        ("5m55s", "errors_burning", {}),
        ("2m", "worker_class", {"one": 2}),
        ("2m", "busy", {"one": 0.5, "two": 0.25}),
    ]
    done = evaluated(tmp_path, series, cases)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = evaluated(tmp_path, series, [("5m", "age_samples", {"one": 1, "two": 0})])
    assert wrong.returncode == 1, "a case that does not hold is seen"


class TestWhatIsLookedBackAt:
    @pytest.mark.parametrize(
        ("points", "seconds"),
        [
            ([], 0),
            ([Point(0, 0.1)], 0),
            ([Point(0, 0.1), Point(30, 0.2), Point(60, 0.249)], 60),
            ([Point(0, 0.1), Point(30, 0.25), Point(60, 0.1)], 0),
            ([Point(0, 0.9), Point(30, 0.1), Point(60, 0.1)], 30),
            ([Point(0, 0.1), Point(30, 0.1, 0.02), Point(60, 0.1, 0.01)], 0),
            ([Point(0, 0.1), Point(200, 0.1), Point(230, 0.1)], 30),  # nobody looked in between
        ],
    )
    def test_how_long_there_was_little_to_do(self, points, seconds):
        assert trends.low_seconds(points, gap=60) == seconds

    @pytest.mark.parametrize(
        ("points", "most"),
        [
            ([], None),
            ([Point(0, 0.5, 0.0, 1.0), Point(60, 0.5, 0.0, 2.0)], None),  # not for long enough
            ([Point(0, 0.5, 0.0, 1.0), Point(60, 0.5, 0.0, 3.0), Point(100, 0.5, 0.0, 2.0)], 3.0),
            ([Point(0, 0.5, 0.0, 9.0), Point(60, 0.5, 0.0, 1.0), Point(120, 0.5, 0.0, 2.0), Point(160, 0.5)], None),
            (
                [Point(0, 0.5, 0.0, 9.0), Point(50, 0.9, None, 1.0), Point(99, 0.9, 0.025, 2.0), Point(150, 0, 0, 0)],
                2.0,
            ),
            (
                [Point(0, 0.5, 0.0, 9.0), Point(50, 0.5, 0.0, 1.0), Point(100, 0.5, 0.026, 2.0), Point(150, 0, 0, 0)],
                None,
            ),
            (
                [Point(0, 0.5, 0.026, 9.0), Point(50, 0.5, 0.0, 1.0), Point(100, 0.5, 0.0, 2.0), Point(150, 0, 0, 0)],
                2.0,
            ),
            ([Point(0, 0.5, 0.0, 1.0), Point(61, 0.5, 0.0, 3.0), Point(122, 0.5, 0.0, 2.0)], None),  # nobody looked
        ],
    )
    def test_the_most_there_was_while_nobody_waited(self, points, most):
        assert trends.quiet_peak(points, seconds=100, gap=60) == most

    def test_how_busy_it_was_then(self):
        points = [Point(0, 0.1), Point(50, 0.2), Point(110, 0.3)]
        assert [trends.value_before(points, at, 60) for at in (-1, 0, 100, 111, 171)] == [None, 0.1, 0.2, 0.3, None]

    def life(self, slot, started, sizes, step=60.0):
        return [Memory(slot, started, started + index * step, size * 1e6) for index, size in enumerate(sizes)]

    def test_a_leak_is_what_three_lives_in_a_row_have_gained(self):
        growing, flat = [50, *range(60, 72, 2)], [50, *[60] * 6]
        three = [self.life("1", start, growing) for start in (0, 1000, 2000)]
        assert trends.leak(itertools.chain(*three), 60) == 10e6  # but for the first minute, in which it was warming up
        assert trends.leak(itertools.chain(*three[:2]), 60) == 0
        assert trends.leak(itertools.chain(*three, self.life("1", 3000, flat)), 60) == 0
        assert trends.leak(itertools.chain(self.life("2", -500, flat), *three), 60) == 10e6, "before the last three"
        assert trends.leak(itertools.chain(*three, self.life("2", 3000, [90, 10, 90])), 60) == 10e6, "too short a life"
        together = itertools.chain(*(self.life(slot, 0, growing) for slot in "123"))
        assert trends.leak(together, 60) == 10e6, "three workers side by side"

    @pytest.mark.parametrize(
        "sizes",
        [
            [50, 60, 60, 60, 70, 70, 70],  # a cache that filled, at once
            [50, 60, 60.1, 60.2, 60.3, 60.4, 60.5],
            [50, 70, 68, 66, 64, 62, 60],
            [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],  # of next to nothing
        ],
    )
    def test_what_is_no_leak(self, sizes):
        lives = (self.life("1", start, sizes) for start in (0, 1000, 2000))
        assert trends.leak(itertools.chain(*lives), 60) == 0

    @pytest.mark.parametrize(
        ("share", "buckets", "value"),
        [
            (0.95, {0.025: 9, 0.1: 10, inf: 10}, 0.0625),  # as in monitoring/prometheus/tests/recording.yml
            (0.99, {0.1: 9, 0.5: 10, inf: 10}, 0.46),
            (0.99, {0.1: 0, 0.5: 10, inf: 10}, 0.496),
            (0.5, {0.1: 10, 0.5: 10, inf: 10}, 0.05),
            (0.99, {0.1: 1, 0.5: 1, inf: 10}, 0.5),  # beyond what is measured, its end
            (0.99, {0.1: 0, inf: 0}, None),
            (0.99, {}, None),
        ],
    )
    def test_a_quantile_is_prometheus_own(self, share, buckets, value):
        assert trends.quantile(share, buckets) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("values", "worker_class", "seconds", "source"),
    [
        ({"queue_p95": 0.2, "backlog": 50.0, "requests_per_second": 10.0}, "sync", 0.2, "proxy"),
        ({"backlog": 5.0, "requests_per_second": 10.0}, "sync", 0.5, "backlog"),
        ({"backlog": 0.0, "queued": 5.0, "requests_per_second": 10.0}, "gthread", 0.5, "threads"),
        ({"backlog": 6.0, "queued": 5.0, "requests_per_second": 10.0}, "gthread", 1.1, "backlog"),
        ({"backlog": 0.0, "requests_per_second": 10.0}, "sync", 0.0, "backlog"),
        ({"backlog": 0.0, "requests_per_second": 0.0}, "sync", 0.0, "backlog"),
        ({"backlog": 5.0, "requests_per_second": 0.0}, "sync", 60.0, "backlog"),  # nobody was served for a minute
        ({"backlog": 5000.0, "requests_per_second": 1.0}, "sync", 60.0, "backlog"),
        ({"backlog": 0.0, "requests_per_second": 10.0}, "gevent", None, "none"),  # it takes whatever comes
        ({"backlog": 5.0, "requests_per_second": 10.0}, "gevent", 0.5, "backlog"),
        ({"requests_per_second": 10.0}, "sync", None, "none"),
    ],
)
def test_how_long_requests_wait_is_told_by_whoever_knows(values, worker_class, seconds, source):
    found = queue_of(values, worker_class)
    assert (found.seconds, found.source) == (seconds, source)


def test_numbers_become_signals():
    values = KNOWN | {"cpu_cores": 0.5, "memory_used": 300e6, "worker_memory": 200e6, "reloads": 1.0, "preload": 1.0}
    numbers = Numbers(values, "sync", (0.5, 1.0), low_seconds=7.0, busy_before=0.64, leak_bytes=3.0)
    signals = assemble("a:1", 100.0, numbers, window=20.0)
    assert (signals.requests, signals.cpu_seconds_per_request, signals.cpu_share) == (200.0, 0.05, 0.25)
    assert (signals.master_memory, signals.busy_by_worker) == (100e6, (1.0, 0.5))
    assert (signals.busy_rising, signals.reloading, signals.preload, signals.settled) == (True, True, True, False)
    assert not assemble("a:1", 100.0, replace(numbers, busy_before=0.66)).busy_rising
    assert not assemble("a:1", 100.0, replace(numbers, busy_before=None)).busy_rising
    changing = {
        ago: assemble("a:1", 100.0, replace(numbers, busy_window_ago=ago)).busy_changing
        for ago in (0.64, 0.66, 0.84, 0.86, None)
    }
    assert changing == {0.64: True, 0.66: False, 0.84: False, 0.86: True, None: True}
    assert replace(numbers, worker_class="").missing == ["worker_class"]
    without = assemble("a:1", 0.0, Numbers({**values, "requests_per_second": 0.0}, "sync"))
    assert without.cpu_seconds_per_request is None


def page(**changes):
    """Write what an agent shows, by the writer that it uses."""
    shown = {"requests": 0.0, "reloads": None, "busy": {"1": 0.5}, "timeouts": 0.0, "errors": 0.0} | changes
    written = Page()
    for state in ("target", "live", "booted"):
        written.put(catalogue.WORKERS, len(shown["busy"]), state)
    written.put(catalogue.USABLE_CORES, 2)
    written.put(catalogue.EXITS, shown["timeouts"], "timeout")
    if shown["reloads"] is not None:
        written.put(catalogue.RELOADS, shown["reloads"])
    for slot in ("1", "2"):
        written.put(catalogue.WORKER_REQUESTS, shown["requests"] / 2, worker=slot)
        written.put(catalogue.WORKER_ERRORS, shown["errors"] / 2, worker=slot)
        written.put(catalogue.WORKER_BUSY, shown["requests"] / 20, worker=slot)
    for slot, ratio in shown["busy"].items():
        written.put(catalogue.WORKER_INFO, 1, "sync", worker=slot)
        written.put(catalogue.WORKER_BUSY_RATIO, ratio, worker=slot)
        written.put(catalogue.WORKER_CAPACITY, 1, worker=slot)
    written.put(catalogue.LISTEN_BACKLOG, shown.get("backlog", 0.0), "127.0.0.1:80")
    return exposition.write(written, exposition.TEXT).decode()


class TestTheAgentsPage:
    @given(
        st.dictionaries(
            st.sampled_from(["127.0.0.1:80", "\u2028", '\x0b\n\\"', '{le="1"} 7', "}", "ü" * 99]), st.floats()
        )
    )
    def test_ours_is_read_as_the_library_reads_it(self, backlogs):
        written = Page()
        for state in ("target", "live", "booted"):
            written.put(catalogue.WORKERS, 2, state)
        for listener, value in backlogs.items():
            written.put(catalogue.LISTEN_BACKLOG, value, listener)
        shown = exposition.write(written, exposition.TEXT).decode()
        theirs = [
            each.value
            for family in text_string_to_metric_families(shown)
            for each in family.samples
            if each.name == catalogue.LISTEN_BACKLOG.name and abs(each.value) < inf
        ]
        mark = exposed.read(shown, 0.0, 0.0)
        assert mark.gauges.get("backlog", 0.0) == pytest.approx(sum(theirs))
        assert mark.gauges["workers_live"] == 2

    def test_histograms_are_summed_over_routes_by_bound(self):
        lines = [f'{catalogue.REQUEST_DURATION.name}_bucket{{http_route="{route}",le="0.1"}} 3' for route in "ab"]
        mark = exposed.read("\n".join([*lines, 'gunicorn_workers{state="booted"} 1']), 0.0, 0.0)
        assert mark.counters == {(f"{catalogue.REQUEST_DURATION.name}_bucket", "0.1"): 6.0}

    @pytest.mark.parametrize("shown", ["", "<html></html>", "{}", "up 1\n", "gunicorn_workers 2\n", "\x00" * 1000])
    def test_what_is_no_agents_page(self, shown):
        with pytest.raises(ValueError, match="shows no gunicorn"):
            exposed.read(shown, 0.0, 0.0)

    def test_more_than_a_server_has(self):
        many = "\n".join(f'gunicorn_worker_busy_ratio{{worker="{n}"}} 1' for n in range(exposed.MOST_SERIES + 1))
        with pytest.raises(ValueError, match=r"more than \d+ series"):
            exposed.read(many, 0.0, 0.0)


class TestOnlooker:
    """Looks at what is written, at moments that are made up: seconds from its first look."""

    def watch(self, pages, interval=5.0, window=60.0, idle=600.0):
        watching = Onlooker("http://user:pw@app:9101", window, interval, idle)
        for turn, shown in enumerate(pages):
            watching._take(exposed.read(shown, turn * interval, 1000.0 + turn * interval))
        return watching, 1000.0 + (len(pages) - 1) * interval

    def read(self, pages, **options):
        watching, now = self.watch(pages, **options)
        (signals,) = watching.read(now)
        return signals

    def test_rates_are_of_the_last_window(self):
        slow, fast = (
            [page(requests=n * 50.0) for n in range(20)],
            [page(requests=950 + n * 100.0) for n in range(1, 13)],
        )
        signals = self.read([*slow, *fast])
        assert (signals.requests_per_second, signals.in_flight, signals.service_seconds) == (20.0, 2.0, 0.1)
        assert signals.requests == 1200
        assert signals.server == "app:9101"

    def test_a_counter_that_begins_anew_is_not_a_burst_nor_a_loss(self):
        counted = [9000.0, 9050.0, 9100.0, 30.0, 80.0, 130.0, 180.0]
        assert self.read([page(requests=each) for each in counted]).requests_per_second == pytest.approx(280 / 30)

    def test_a_worker_that_is_first_seen_brings_no_burst_along(self):
        seen = [page(requests=n * 50.0) for n in range(7)]
        other = [each.replace('worker="2"', 'worker="3"') for each in seen[:3]]
        assert self.read([*other, *seen[3:]]).requests_per_second == pytest.approx((150 + 50 + 75) / 30)

    def test_a_worker_that_has_gone_is_no_part_of_the_mean(self):
        pages = [page(busy={"1": 1.0, "2": 0.0})] * 5 + [page(busy={"1": 1.0})] * 2
        signals = self.read(pages)
        assert (signals.busy, signals.busy_by_worker, signals.workers_live) == (1.0, (1.0,), 1)

    def test_the_first_reload_makes_its_counter(self):
        before, after = [page()] * 7, [page(reloads=1.0)] * 2
        assert not self.read(before).reloading
        assert self.read([*before, *after]).reloading
        assert not self.read([*before, *[page(reloads=1.0)] * 15]).reloading

    def test_events_are_looked_back_at_for_longer(self):
        pages = [page(timeouts=0.0)] * 5 + [page(timeouts=2.0)] * 58
        assert self.read(pages).timeouts == 2.0
        assert self.read([*pages, *[page(timeouts=2.0)] * 10]).timeouts == 0.0

    def test_errors_burn_where_many_fail_now_and_did_before(self):
        def failing(every, of):
            return [page(requests=n * of, errors=n * of / every if every else 0.0) for n in range(60)]

        assert self.read(failing(50, 100.0)).errors_burning
        assert self.read(failing(50, 100.0)).error_ratio == pytest.approx(0.02)
        assert not self.read(failing(100, 100.0)).errors_burning
        assert not self.read(failing(50, 1.0)).errors_burning, "too few to say"
        over = failing(20, 100.0) + [page(requests=5900 + n * 100.0, errors=295.0) for n in range(1, 65)]
        assert not self.read(over).errors_burning

    def test_load_that_rises_and_load_that_has_gone(self):
        calm, full = [page(busy={"1": 0.1})] * 70, [page(busy={"1": 0.9})] * 12
        assert self.read(calm).low_seconds == pytest.approx(345 - 5)  # of the first look there are no rates yet
        rising = self.read([*calm, *full])
        assert rising.busy_rising
        assert rising.low_seconds == 0.0
        assert not self.read([*calm, *full, *[page(busy={"1": 0.9})] * 70]).busy_rising

    def test_load_that_is_another_than_a_minute_ago(self):
        calm, full = [page(busy={"1": 0.1})] * 30, [page(busy={"1": 0.9})] * 30
        assert not self.read(calm).busy_changing
        assert self.read([*calm, *full[:8]]).busy_changing
        assert not self.read([*calm, *full]).busy_changing
        assert self.read([*full, *calm[:8]]).busy_changing
        assert not self.read(calm[:12]).busy_changing, "as since the first look"
        assert self.read([*calm[:6], *full[:6]]).busy_changing

    def test_the_most_in_flight_of_ten_minutes_in_which_nobody_waited(self):
        """Two a second that take 0.1 s each are 0.2 at a time, as the first ten looks have; then one at a time."""
        counted = [*range(0, 100, 10), *range(100, 7600, 50)]
        pages = [page(requests=float(each)) for each in counted]
        assert self.read(pages[:-30]).quiet_peak == pytest.approx(1.0)
        assert self.read(pages[:120]).quiet_peak is None, (
            "not for long enough: of the first look there are no rates yet"
        )
        assert self.read([*pages, *[page(requests=7550.0)] * 120]).quiet_peak == pytest.approx(1.0)
        assert self.read([*pages, *[page(requests=7550.0)] * 140]).quiet_peak == 0, "of the ten minutes before now"
        waits = [*pages[:-10], *[page(requests=7100.0 + 50 * n, backlog=4.0) for n in range(5)], *pages[-5:]]
        assert self.read(waits).quiet_peak is None
        assert self.read(pages[:30], idle=60.0).quiet_peak == pytest.approx(1.0)

    def test_what_it_keeps_is_bounded(self):
        watching, now = self.watch([page(requests=n * 50.0) for n in range(1000)])
        assert len(watching._marks) <= 182
        assert len(watching._points) <= 182
        assert len(watching._usual) <= 60
        assert watching.read(now)[0].low_seconds == 0.0

    def test_too_short_a_time_tells_nothing(self):
        watching, now = self.watch([page()] * 3)
        with pytest.raises(ReadError, match=r"^http://user:\*\*\*@app:9101: has not been watched for long enough$"):
            watching.read(now)
        watching, now = self.watch([page()] * 8)
        assert watching.read(now + 20)[0].age == 20
        with pytest.raises(ReadError):
            watching.read(now + 61)

    def test_a_long_silence_is_no_window(self):
        watching, _ = self.watch([page(requests=n * 50.0) for n in range(20)])
        watching._take(exposed.read(page(requests=2000.0), 700.0, 1700.0))
        with pytest.raises(ReadError, match="long enough"):
            watching.read(1700.0)

    @pytest.mark.parametrize(
        ("raw", "line"),
        [
            (said("busy", "503 Busy"), "answers 503, so it is no agent"),
            (said("<html></html>"), "answers, but shows no gunicorn: is it an agent, and does its server run?"),
            ("", "nothing answers"),
        ],
    )
    def test_an_agent_that_vanishes_is_one_line_and_what_was_seen_ages(self, raw, line):
        pages = [said(page(requests=n * 10.0)) for n in range(3)]
        with answering(*pages, raw) as (url, _):
            watching = Onlooker(url, window=0.2, interval=0.05)
            for _ in pages:
                watching.look()
                time.sleep(0.05)  # counters of one moment give no rate
            (seen,) = watching.read(time.time())
            assert seen.requests_per_second > 0
            with pytest.raises(ReadError) as raised:
                watching.look()
            assert str(raised.value).endswith(line)
            with pytest.raises(ReadError) as raised:
                watching.read(seen.time + 1)
            assert str(raised.value) == watching.trouble

    def test_it_watches_beside_until_the_block_ends(self):
        pages = [said(page(requests=n * 10.0)) for n in range(1000)]
        with answering(*pages) as (url, was), Onlooker(url, window=1.0, interval=0.05).watching() as watching:
            deadline = time.monotonic() + 10
            while not watching._known or watching._known[1].missing:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert watching.read(time.time())[0].worker_class == "sync"
        assert not any(thread.name == "onlooker" for thread in threading.enumerate())
        assert len(was) > 5


class TestWhatTheAgentShowsForIt:
    """The rest is seen on live servers: tests/tuning/test_signals.py."""

    @pytest.mark.parametrize(("quota", "cores"), [(0.5, 0.5), (None, None), (1000.0, None)])
    def test_cores_are_those_it_is_bound_to_or_the_quota_if_that_is_less(self, monkeypatch, quota, cores):
        bound = float(len(os.sched_getaffinity(0)))
        monkeypatch.setattr(cgroup, "read", lambda _: cgroup.Usage(quota=quota))
        outside = Outside(sidecar=True)  # whose own group is another
        outside._look_at_master(os.getpid())
        assert outside.cores == (cores or bound)
        outside._look_at_master(2**22 + 1)
        assert outside.cores is None
        outside._look_at_master(0)
        assert outside.cores is None

    def test_a_boot_is_known_of_workers_that_began_since(self):
        def worker(pid, age, **note):
            note = {"pid": pid, "started": time.time() - age, "heartbeat_fd": 3, **note}
            return SimpleNamespace(note=note, forked=True)

        outside = Outside()
        outside._look_at_boots([worker(1, 100, booted=True), worker(2, 2, booted=True)], first=True)
        assert outside._boots == {1: 0.0, 2: pytest.approx(2, abs=0.5)}
        outside._look_at_boots([worker(2, 4, booted=True), worker(3, 1, booted=False)], first=False)
        assert outside._boots == {2: pytest.approx(2, abs=0.5)}
        outside._look_at_boots([worker(2, 14, booted=True), worker(3, 11, booted=True)], first=False)
        assert outside._boots == {2: pytest.approx(2, abs=0.5), 3: pytest.approx(11, abs=0.5)}


SIGNALS = Signals("app:9101\x1b[31m", 1e9, 2.0, "sync", 2, 2, 1, 2.0, busy=0.9, queue_p95=0.2, queue_source="proxy")
DECISION = Decision(
    Action.ADD,
    "io_wait",
    "Requests wait.\x07",
    "They do.",
    3,
    4,
    ("cpu",),
    (Advice("GUNICORN_THREADS", "16", "1", "Why.", "Then."),),
    2,
    {"busy": 0.9},
)


class TestAdvice:
    def test_it_names_the_line_to_set_the_numbers_and_nothing_moves_a_terminal(self):
        shown = text.render(text.Advised(SIGNALS, DECISION), [text.Spell(DECISION, 90.0)]).plain
        assert all(each.isprintable() for each in shown.replace("\n", ""))
        lines = shown.splitlines()
        assert lines[0] == "app:9101\\x1b[31m  sync, 2 workers, 2 cores  soon"
        assert "  workers: one more, 2 -> 3" in lines
        assert "    GUNICORN_THREADS=16  # now: 1" in lines
        assert "  * busy                                90 %" in lines
        assert "    wait for a worker, p95              200 ms (the proxy's X-Request-Start)" in lines
        assert "    memory limit                        not known" in lines
        assert "  growth is forbidden by: cpu" in lines

    def test_every_signal_is_shown(self):
        shown = {field for field, _, _ in text._SHOWN}
        elsewhere = {"server", "time", "age", "worker_class", "workers_target", "workers_live", "cores", "servers"}
        made_into_others = {"requests", "queue_source", "master_memory"}
        assert set(Signals.__dataclass_fields__) == shown | elsewhere | made_into_others

    def test_of_a_range_the_worst_moment_is_shown_and_each_row_with_its_time(self):
        well = replace(DECISION, rule="well", urgency=0)
        moments = {
            float(at): text.Advised(replace(SIGNALS, busy=busy, time=at), decision)
            for at, busy, decision in [(0, 0.2, well), (15, 0.8, DECISION), (30, 0.95, DECISION), (45, 0.99, well)]
        }
        assert advise.worst(moments).signals.time == 30
        held = advise.spells(moments, 45.0)
        assert [(each.decision.rule, each.seconds) for each in held] == [("io_wait", 30.0), ("well", 30.0)]

    @pytest.mark.parametrize(
        ("given", "at"),
        [("10m", 400.0), ("0.5s", 999.5), ("999", 999.0), ("1970-01-01T00:10:00+00:00", 600.0)],
    )
    def test_a_moment(self, given, at):
        assert asked.moment(given, 1000.0) == at

    @pytest.mark.parametrize(
        "given", ["", "soon", "-5", "1001", "nan", "inf", "1e999", "9999999999s", "2999-01-01", "٣m"]
    )
    def test_no_moment(self, given):
        with pytest.raises(ValueError, match="--at is"):
            asked.moment(given, 1000.0)

    @pytest.mark.parametrize("given", ["", "30", "m", "14s", "2d", "1e3s", "nans", "-30m"])
    def test_no_range(self, given):
        with pytest.raises(ValueError, match=r"--range is .*, from 15 s to 24 h"):
            asked.span("--range", given, 15.0, 86_400.0)

    @pytest.mark.parametrize(
        ("options", "line"),
        [
            (
                ["--prometheus", "ftp://x"],
                "--prometheus is 'ftp://x', but takes a URL that starts with http:// or https://",
            ),
            (
                ["--agent", "http://x:1", "--at", "10m"],
                "--at and --range need what Prometheus has recorded: name it",
            ),
            (["--watch", "1s"], "--watch is '1s', but takes a time such as 90s, 30m or 2h, from 5 s to 10 min"),
            (["--prometheus", "http://127.0.0.1:{port}"], "http://127.0.0.1:{port}/api/v1/query: nothing answers"),
            (["--agent", "http://127.0.0.1:{port}"], "http://127.0.0.1:{port}/metrics: nothing answers"),
            (["--agent", "http://a", "--prometheus", "http://b"], "python -m observability tuner advise: argument"),
        ],
    )
    def test_nothing_to_decide_on_is_4_and_one_line(self, options, line, capsys):
        port = str(free_port())
        with pytest.raises(SystemExit) as left:
            cli.main(["tuner", "advise", *(each.replace("{port}", port) for each in options)])
        assert left.value.code == 4
        shown = capsys.readouterr()
        assert shown.out == ""
        *said_before, last = shown.err.splitlines()
        assert last.startswith(line.replace("{port}", port))
        assert all(each.startswith("watching") for each in said_before)

    def test_a_setting_that_makes_no_sense_is_4_and_one_line(self, capsys, monkeypatch):
        monkeypatch.setenv("TUNER_QUEUE_SECONDS", "never")
        monkeypatch.setenv("TUNER_CONTROL_TOKEN_FILE", "/nowhere")  # which is none of its business
        nothing = dict.fromkeys(("prometheus", "agent", "server", "at", "range"), None)
        chosen = argparse.Namespace(**nothing, watch="5s", json=False)
        assert advise.run(chosen, lambda: "") == 4
        assert capsys.readouterr().err == "TUNER_QUEUE_SECONDS is 'never', but takes a number from 0.001 to 60\n"
