"""The log: one valid JSON object a line, whatever is logged, wherever it goes."""

import contextvars
import json
import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import catalogue, context, events, lines, logs, redact, store
from observability.console import Console
from observability.stdout import LONGEST, PIPE_BUF, Output

ROOT = Path(__file__).parents[2]


class Sink:
    """Stands where standard output is, and keeps what is written."""

    longest = LONGEST

    def __init__(self) -> None:
        self.data = b""
        self.takes = True

    def write(self, line: bytes) -> bool:
        self.data += line if self.takes else b""
        return self.takes

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.decode().splitlines()]


@pytest.fixture
def sink(monkeypatch):
    sink = Sink()
    monkeypatch.setattr(events, "output", sink)
    monkeypatch.setattr(events, "threshold", logging.DEBUG)
    monkeypatch.setattr(events, "encode", lines.encode)
    return sink


def counted(metric, *labels):
    """Read a counter of this process."""
    recorder = store.child(metric, *labels)
    recorder.inc(0)
    return recorder.store.cells[recorder.places[0]]


def run(code: str, stdout: Any = subprocess.PIPE, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the log configured from the environment, as a server's process has it."""
    prelude = "from observability import logs\nfrom observability.settings import Settings, load\n"
    return subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, "OBSERVABILITY_LOG_LEVEL": "info", **environ},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


def parsed(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode in (0, 1), result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_line_has_opentelemetrys_names(sink):
    logs.emit("warning", "cache.lost", {"size": 3})
    [line] = sink.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    assert (line["severity_text"], line["severity_number"]) == ("WARN", 13)
    assert (line["event.name"], line["body"], line["size"]) == ("cache.lost", "cache.lost", 3)
    assert line["process.pid"] == os.getpid()
    assert "trace_id" not in line


@pytest.mark.parametrize(
    ("level", "text", "number"),
    [
        ("debug", "DEBUG", 5),
        ("info", "INFO", 9),
        ("warning", "WARN", 13),
        ("error", "ERROR", 17),
        ("critical", "FATAL", 21),
    ],
)
def test_each_level_has_its_severity_and_is_counted(sink, level, text, number):
    before = counted(catalogue.LOG_MESSAGES, level)
    logs.emit(level, "x", {})
    assert (sink.lines[0]["severity_text"], sink.lines[0]["severity_number"]) == (text, number)
    assert counted(catalogue.LOG_MESSAGES, level) == before + 1


def test_lines_below_the_threshold_are_neither_written_nor_counted(sink, monkeypatch):
    monkeypatch.setattr(events, "threshold", logging.WARNING)
    before = counted(catalogue.LOG_MESSAGES, "info")
    logs.emit("info", "x", {})
    assert sink.data == b""
    assert counted(catalogue.LOG_MESSAGES, "info") == before


def test_a_line_that_is_not_taken_is_counted_as_dropped(sink):
    sink.takes = False
    before = counted(catalogue.LOG_LINES_DROPPED), counted(catalogue.LOG_MESSAGES, "info")
    logs.emit("info", "x", {})
    assert (counted(catalogue.LOG_LINES_DROPPED), counted(catalogue.LOG_MESSAGES, "info")) == (before[0] + 1, before[1])


def test_a_failing_encoder_raises_nothing_and_is_counted(sink, monkeypatch):
    def fail(*_):
        raise RuntimeError("encoder")

    monkeypatch.setattr(events, "encode", fail)
    before = counted(catalogue.LOG_LINES_DROPPED)
    logs.emit("info", "x", {})
    logs.write("info", "x", "y", {})
    assert counted(catalogue.LOG_LINES_DROPPED) == before + 2


class TestRequest:
    def test_its_ids_stand_in_its_lines(self, sink):
        def inside():
            context.current.set(context.RequestContext("a" * 32, "b" * 16, "01"))
            logs.emit("info", "x", {})
            logs.write("error", "app", "y", {})

        contextvars.copy_context().run(inside)
        for line in sink.lines:
            assert (line["trace_id"], line["span_id"], line["trace_flags"]) == ("a" * 32, "b" * 16, "01")

    def test_a_line_may_be_said_to_be_a_requests(self, sink):
        logs.emit("info", "x", {}, context.RequestContext("c" * 32, "d" * 16, "00"))
        assert sink.lines[0]["trace_id"] == "c" * 32

    def test_annotate_works_in_threads_that_run_in_a_copy_of_its_context(self):
        request = context.RequestContext("a" * 32, "b" * 16, "00")

        def inside():
            context.current.set(request)
            context.annotate(user=1)
            copies = [contextvars.copy_context() for _ in range(8)]
            threads = [
                threading.Thread(target=copy.run, args=(lambda n=n: context.annotate(**{f"t{n}": n}),))
                for n, copy in enumerate(copies)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        contextvars.copy_context().run(inside)
        assert request.fields == {"user": 1, **{f"t{n}": n for n in range(8)}}

    def test_annotate_outside_of_one_does_nothing(self):
        context.annotate(user=1)
        assert context.current.get() is None

    def test_annotate_is_bounded_and_still_updates(self):
        request = context.RequestContext("a" * 32, "b" * 16, "00")

        def inside():
            context.current.set(request)
            for n in range(1000):
                context.annotate(**{f"f{n}": n})
            context.annotate(f0="last", more=1)

        contextvars.copy_context().run(inside)
        assert len(request.fields) == context.MOST_FIELDS
        assert request.fields["f0"] == "last"

    def test_annotate_works_in_greenlets(self):
        code = """
            from gevent import monkey; monkey.patch_all()
            import contextvars, gevent
            from observability import context
            logs.configure(load(Settings))
            def handle(n):
                request = context.RequestContext(f"{n:032x}", "b" * 16, "00")
                context.current.set(request)
                gevent.sleep(0.01)
                child = gevent.spawn(contextvars.copy_context().run, context.annotate, child=n)
                gevent.joinall([child, gevent.spawn(gevent.sleep, 0.01)])
                context.annotate(own=n)
                logs.emit("info", "http.server.request", request.fields)
            gevent.joinall([gevent.spawn(handle, n) for n in range(50)])
        """
        found = parsed(run(code))
        assert sorted(int(line["trace_id"], 16) for line in found) == list(range(50))
        assert all(line["own"] == line["child"] == int(line["trace_id"], 16) for line in found)


class TestMasking:
    @pytest.mark.parametrize(
        "key",
        [
            *("password", "PASSWORD", "db_passwd", "userPassword", "passphrase", "client_secret", "token"),
            *("accessToken", "access-token", "x-api-key", "apikey", "api.key", "Authorization", "Set-Cookie", "cookie"),
            *("session", "session_id", "aws_credentials", "private_key", "PRIVATE-KEY", "SENTRY_DSN", "dsn", "auth"),
            *("http.request.header.authorization", "jwt", "pwd", "secretary"),
        ],
    )
    def test_values_under_secret_like_keys_are_masked(self, sink, key):
        logs.emit("info", "x", {key: "hunter2"})
        logs.emit("info", "x", {"outer": {"list": [{key: "hunter2"}]}})
        logs.emit("info", "x", {"headers": [(key, "hunter2"), ("Host", "h")]})
        logs.get_logger("app")
        assert b"hunter2" not in sink.data
        assert sink.lines[0][key] == "***"

    @pytest.mark.parametrize(
        "key",
        [
            "author",
            "monkey",
            "passed",
            "compass",
            "authority",
            "keyboard",
            "session_count",
            "tokens_total",
            "max_tokens",
        ],
    )
    def test_numbers_and_innocent_keys_stay(self, sink, key):
        logs.emit("info", "x", {key: 7})
        assert sink.lines[0][key] == 7

    def test_what_is_about_a_secret_is_shown_only_as_a_number(self, sink):
        logs.emit("info", "x", {"tokens_total": "hunter2", "token_count": 3, "pin_token": 1234, "password": None})
        [line] = sink.lines
        shown = {key: line[key] for key in ("tokens_total", "token_count", "pin_token", "password")}
        assert shown == {"tokens_total": "***", "token_count": 3, "pin_token": "***", "password": None}

    def test_structures_of_all_kinds_are_masked_inside(self, sink):
        @dataclass
        class Login:
            user: str
            password: str

        class Pair(NamedTuple):
            token: str

        class Headers:
            def items(self):
                return [("Cookie", "hunter2"), ("Accept", "*/*")]

        logs.emit(
            "info",
            "x",
            {"a": Login("ann", "hunter2"), "b": Pair("hunter2"), "c": Headers(), "d": ({"pwd": "hunter2"},)},
        )
        [line] = sink.lines
        assert b"hunter2" not in sink.data
        assert line["a"] == {"user": "ann", "password": "***"}
        assert line["c"] == {"Cookie": "***", "Accept": "*/*"}

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            ("postgresql://u:hunter2@db/x", "postgresql://u:***@db/x"),
            ("redis://:hunter2@cache", "redis://:***@cache"),
            ("at amqp://u:p@ss:hunter2@h/ and http://ok/", "at amqp://u:***@h/ and http://ok/"),
            ("http://host:8000/a@b", "http://host:8000/a@b"),
            ("http://host/a:b@c", "http://host/a:b@c"),
        ],
    )
    def test_passwords_of_urls_are_masked_in_any_text(self, sink, text, masked):
        logs.emit("info", "x", {"url": text, "nested": [text]})
        logs.write("info", "app", text, {})
        first, second = sink.lines
        assert (first["url"], first["nested"], second["body"]) == (masked, [masked], masked)

    def test_a_long_text_without_a_url_costs_little(self):
        begun = time.monotonic()
        redact.text("://" + "a" * 32_000 + "@" * 10 + "://a:" * 3000)
        assert time.monotonic() - begun < 1

    def test_extra_fields_and_exception_texts_are_masked(self, sink):
        try:
            raise ConnectionError("postgresql://u:hunter2@db refused")
        except ConnectionError as error:
            logs.write("error", "app", "no database", {"Authorization": "hunter2"}, error)
        assert b"hunter2" not in sink.data
        assert sink.lines[0]["exception.message"] == "postgresql://u:***@db refused"

    def test_many_keys_of_an_attacker_do_not_pile_up(self, sink):
        for n in range(20_000):
            logs.emit("info", "x", {f"key{n}": 1})
        assert len(lines._keys) <= 4096
        assert len(redact._verdicts) <= 4096


class Hostile:
    """Raises wherever it can."""

    def __repr__(self):
        raise ValueError("no repr")

    __str__ = __repr__

    def items(self):
        raise KeyError("no items")


class Endless:
    def items(self):
        n = 0
        while True:
            yield n, "v"
            n += 1


def circular():
    loop: dict[str, Any] = {}
    loop["self"] = [loop]
    return loop


MAKERS = {  # by name, since Hypothesis itself trips over the repr of some
    "huge": lambda: 10**5000,
    "just too small": lambda: -(2**63) - 1,
    "hostile": Hostile,
    "circular": circular,
    "endless": Endless,
    "exception": lambda: Exception("\n{}"),
    "type": lambda: int,
    "object": object,
}
hostile_text = st.text(st.characters() | st.sampled_from('\n\r\x00\x1b\x7f\x85\u2028\u2029\u202e\ud800\udfff"\\{}'))
hostile_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | hostile_text
    | st.binary()
    | st.sampled_from(list(MAKERS)).map(lambda name: MAKERS[name]())
    | st.datetimes()
    | st.decimals()
    | st.uuids(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(hostile_text | st.integers(), inner)
        | st.sets(st.integers())
    ),
    max_leaves=12,
)


class TestHostileInput:
    @given(
        level=st.sampled_from(list(events.SEVERITIES)),
        name=hostile_text,
        fields=st.dictionaries(hostile_text, hostile_value),
    )
    def test_one_call_is_one_valid_line(self, level, name, fields):
        self.check(lambda: logs.emit(level, name, fields), level)

    @given(
        logger=hostile_text,
        body=hostile_value,
        fields=st.dictionaries(hostile_text, hostile_value),
        message=hostile_text,
    )
    def test_one_write_with_an_exception_is_one_valid_line(self, logger, body, fields, message):
        try:
            raise ValueError(message)
        except ValueError as error:
            caught = error
        line = self.check(lambda: logs.write("error", logger, body, fields, caught), "error")
        assert line["exception.type"] == "ValueError"
        assert "Traceback" in line["exception.stacktrace"] or line["log.truncated"]

    @given(fields=st.dictionaries(hostile_text, hostile_value), event=hostile_text)
    def test_console_lines_cannot_be_forged_either(self, fields, event):
        sink = self.run(lambda: logs.emit("info", event, fields), Console(colors=False))
        assert len(sink.data.decode().splitlines()) == 1
        assert b"\x1b" not in sink.data

    def check(self, call, level):
        sink = self.run(call, lines.encode)
        assert sink.data.endswith(b"\n")
        assert len(sink.data) <= PIPE_BUF
        [text] = sink.data.decode().splitlines()  # splits at U+2028, U+0085 and the like, too
        line = json.loads(text)
        assert line["severity_text"] == events.SEVERITIES[level][0]
        assert line["process.pid"] == os.getpid()
        return line

    def run(self, call, form):
        sink, former = Sink(), (events.output, events.encode, events.threshold)
        sink.longest = PIPE_BUF
        lost = counted(catalogue.LOG_LINES_DROPPED)
        events.output, events.encode, events.threshold = sink, form, logging.DEBUG
        try:
            call()
        finally:
            events.output, events.encode, events.threshold = former
        assert counted(catalogue.LOG_LINES_DROPPED) == lost
        return sink

    def test_no_field_takes_the_place_of_sightlines_own(self, sink):
        logs.emit("info", "x", {"timestamp": "1970", "trace_id": "f" * 32, "severity_text": "OK", "worker": 99})
        [line] = sink.lines
        assert line["severity_text"] == "INFO"
        assert "trace_id" not in line
        assert line["field.timestamp"] == "1970"
        assert line["field.trace_id"] == "f" * 32

    def test_exceptions_whose_text_raises_are_logged(self, sink):
        class BadError(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        try:
            raise BadError
        except BadError as error:
            logs.write("error", "app", "x", {}, error)
        assert "BadError" in sink.lines[0]["exception.type"]

    def test_endless_recursion_is_logged(self, sink):
        def down():
            down()

        try:
            down()
        except RecursionError as error:
            logs.write("error", "app", "x", {}, error)
        assert sink.lines[0]["exception.type"] == "RecursionError"


class TestLength:
    @pytest.mark.parametrize("longest", [PIPE_BUF, LONGEST])
    def test_long_values_give_way_and_the_rest_stays(self, longest):
        line = {"timestamp": "t", "body": "b" * 100_000, "short": "s", "nested": {"a": ["\n" * 50_000]}}
        data = lines.encode(line, longest)
        assert longest * 0.9 < len(data) <= longest
        read = json.loads(data)
        assert read["log.truncated"] is True
        assert (read["timestamp"], read["short"]) == ("t", "s")
        assert read["body"].startswith("bbb")

    def test_a_stack_trace_keeps_its_end(self):
        trace = "begin" + "\n  x" * 5000 + "\nValueError: the end"
        read = json.loads(lines.encode({"body": "x", "exception.stacktrace": trace}, PIPE_BUF))
        assert read["exception.stacktrace"].endswith("ValueError: the end")
        assert "begin" not in read["exception.stacktrace"]

    def test_many_fields_leave_sightlines_own(self):
        line = {
            "timestamp": "2026-01-01T00:00:00.000000Z",
            "trace_id": "a" * 32,
            **{f"k{n}": "v" * 99 for n in range(9999)},
        }
        data = lines.encode(line, PIPE_BUF)
        read = json.loads(data)
        assert len(data) <= PIPE_BUF
        assert (read["timestamp"], read["trace_id"]) == (line["timestamp"], line["trace_id"])

    def test_lines_of_several_processes_in_one_pipe_stay_whole(self):
        code = """
            import os
            logs.configure(load(Settings))
            for n in range(3): os.fork()
            log = logs.get_logger("app")
            for n in range(300):
                log.info("x" * (n * 40), n=n, more="\\n" * n)
            logs.emit("info", "end", {})
            while True:
                try: os.wait()
                except ChildProcessError: break
        """
        found = parsed(run(code))
        assert len(found) == 8 * 301
        assert len({line["process.pid"] for line in found}) == 8
        assert sum(line["body"] == "end" for line in found) == 8


class TestOutput:
    def test_the_shared_descriptor_stays_blocking(self):
        read, write = os.pipe()
        output = Output(write)
        assert output.longest == PIPE_BUF
        assert output.write(b"x\n")
        assert os.get_blocking(write)
        assert os.read(read, 10) == b"x\n"

    def test_a_full_pipe_is_waited_for_then_given_up_at_once_until_it_takes_again(self):
        read, write = os.pipe()
        output = Output(write)
        line = b"x" * 4095 + b"\n"
        for _ in range(16):
            assert output.write(line)
        begun = time.monotonic()
        assert not output.write(line)
        assert 0.5 < time.monotonic() - begun < 3
        begun = time.monotonic()
        assert not any(output.write(line) for _ in range(100))
        assert time.monotonic() - begun < 0.5
        os.read(read, 4096 * 4)
        assert output.write(line)

    def test_a_reader_that_comes_back_in_time_loses_nothing(self):
        read, write = os.pipe()
        output = Output(write)
        line = b"x" * 4095 + b"\n"
        for _ in range(16):
            assert output.write(line)
        timer = threading.Timer(0.2, os.read, (read, 65536))
        timer.start()
        assert output.write(line)
        timer.join()

    def test_a_full_socket_is_given_up_too(self):
        ours, _theirs = socket.socketpair()
        output = Output(ours.fileno())
        line = b"y" * 8191 + b"\n"
        begun = time.monotonic()
        while output.write(line):
            assert time.monotonic() - begun < 30
        assert not output.write(line)
        assert ours.getblocking()

    def test_a_broken_pipe_a_closed_descriptor_and_a_full_disk_raise_nothing(self):
        read, write = os.pipe()
        output = Output(write)
        os.close(read)
        assert not output.write(b"x\n")
        os.close(write)
        assert not Output(987).write(b"x\n")
        with Path("/dev/full").open("wb", buffering=0) as full:
            assert not Output(full.fileno()).write(b"x\n")

    def test_it_follows_a_redirection(self, tmp_path):
        _read, write = os.pipe()
        output = Output(write)
        with (tmp_path / "log").open("wb") as file:
            os.dup2(file.fileno(), write)
        output.open()
        assert output.longest == LONGEST
        assert output.write(b"x\n")
        assert (tmp_path / "log").read_bytes() == b"x\n"

    def test_greenlets_run_on_while_the_pipe_is_full_and_the_hub_never_waits(self):
        code = """
            from gevent import monkey; monkey.patch_all()
            import gevent, os, time
            from observability import events, stdout, store, catalogue
            logs.configure(load(Settings))
            read, write = os.pipe()
            events.output = stdout.Output(write)
            ticks = []
            def tick():
                while True:
                    ticks.append(1); gevent.sleep(0.02)
            gevent.spawn(tick)
            for n in range(100):
                logs.emit("info", "x", {"fill": "x" * 4000})
                if n > 20: break
            between = len(ticks)
            events.output._blocked = False
            begun = time.monotonic()
            gevent.get_hub().loop.run_callback(logs.emit, "info", "hub", {})
            gevent.sleep(0)
            in_hub = time.monotonic() - begun
            events.output = stdout.Output(1)
            logs.emit("info", "end", {"ticks": between, "in_hub": in_hub})
        """
        [line] = parsed(run(code))
        assert line["ticks"] > 10
        assert line["in_hub"] < 0.5


class TestSources:
    """Whatever writes, the form is the same."""

    def test_libraries_warnings_and_uncaught_exceptions(self):
        code = """
            import logging, sys, threading, warnings
            logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
            old = logging.getLogger("old"); old.addHandler(logging.StreamHandler(sys.stdout)); old.propagate = False
            logs.configure(load(Settings)); logs.configure(load(Settings))
            logging.getLogger("lib").warning("hello %s", "world", extra={"password": "hunter2", "size": 3})
            old.error("old")
            logging.getLogger("lib").debug("not this")
            logging.getLogger("lib").error("wrong %d", "format")
            warnings.warn("careful")
            logs.get_logger("app").info("made %s", "it", n=1)
            logs.get_logger("app").info("made %d", "wrong", n=1)
            log = logs.get_logger("app").bind(bound=1)
            try: 1 / 0
            except ZeroDivisionError:
                log.exception("failed")
                logging.getLogger("lib").exception("failed too")
            def die(): raise KeyError("in thread")
            thread = threading.Thread(target=die, name="t1"); thread.start(); thread.join()
            class Bad:
                def __del__(self): raise OSError("in del")
            Bad()
            raise LookupError("at last")
        """
        result = run(code, SERVICE_VERSION="1.2", OTEL_SERVICE_NAME="shop", APP_ENV="staging")
        found = parsed(result)
        assert result.returncode == 1
        assert result.stderr == ""
        by_body = {line["body"]: line for line in found}
        assert len(found) == len(by_body) == 11
        hello = by_body["hello world"]
        assert (hello["logger"], hello["password"], hello["size"]) == ("lib", "***", 3)
        assert by_body["old"]["severity_text"] == "ERROR"
        assert by_body["wrong %d"]["args"] == ["format"]
        assert by_body["made it"]["n"] == 1
        assert by_body["made %d"]["args"] == ["wrong"]
        assert by_body["failed"]["bound"] == 1
        for body in ("failed", "failed too"):
            assert by_body[body]["exception.type"] == "ZeroDivisionError"
            assert by_body[body]["exception.stacktrace"].startswith("Traceback")
        assert by_body["uncaught exception in a thread"]["thread.name"] == "t1"
        assert by_body["uncaught exception"]["exception.message"] == "at last"
        assert by_body["uncaught exception"]["severity_text"] == "FATAL"
        [ignored] = [line for line in found if line.get("exception.message") == "in del"]
        assert ignored["severity_text"] == "ERROR"
        [warned] = [line for line in found if line["logger"] == "py.warnings"]
        assert "UserWarning: careful" in warned["body"]
        for line in found:
            named = line["service.name"], line["service.version"], line["deployment.environment.name"]
            assert named == ("shop", "1.2", "staging")

    def test_flask_werkzeug_sqlalchemy_and_gunicorn(self):
        code = """
            import flask, sqlalchemy, logging
            from gunicorn.config import Config
            from observability import gunicorn_log
            app = flask.Flask("todo"); app.logger.warning("flask's own handler so far, on stderr")
            logs.configure(load(Settings))
            app.logger.warning("from flask")
            logging.getLogger("werkzeug").warning("from werkzeug")
            engine = sqlalchemy.create_engine("sqlite://", echo=True)
            with engine.connect() as connection: connection.execute(sqlalchemy.text("select 41"))
            config = Config()
            logger = gunicorn_log.Logger(config)
            for _ in range(3): logger.setup(config)
            logger.reopen_files()
            logger.info("Listening at: %s", "x")
            logger.access(None, None, None, None)
            assert not logger.access_log_enabled
            reaped = []
            def fail(*_): raise ValueError("callback")
            gunicorn_log.on_reaped += [fail, lambda *args: reaped.append(args)]
            logger.debug("Reaped unknown child process (pid:%s, status:%s)", 12, 9)
            assert reaped == [(12, 9)]
            from observability import store, catalogue
            logger.warning("Invalid request from ip=1.2.3.4: x\\n{}")
            child = store.child(catalogue.INVALID_REQUESTS)
            assert child.store.cells[child.places[0]] == 1
        """
        found = parsed(run(code))
        bodies = [line["body"] for line in found]
        loggers = {line["body"]: line["logger"] for line in found}
        assert loggers["from flask"] == "todo"
        assert loggers["from werkzeug"] == "werkzeug"
        assert loggers["select 41"].startswith("sqlalchemy.engine")
        assert bodies.count("Listening at: x") == 1
        assert loggers["Listening at: x"] == "gunicorn"
        assert "telemetry failed, the server goes on" in bodies
        assert "Invalid request from ip=1.2.3.4: x\n{}" in bodies

    def test_what_fails_in_greenlets(self):
        code = """
            from gevent import monkey; monkey.patch_all()
            import gevent
            logs.configure(load(Settings)); logs.watch_gevent()
            def die(): raise KeyError("in greenlet")
            gevent.spawn(die).join()
        """
        result = run(code)
        [line] = parsed(result)
        assert (line["logger"], line["exception.type"]) == ("gevent", "KeyError")
        assert result.stderr == ""

    def test_a_monkey_patch_after_configure_and_forks_stop_nothing(self):
        code = """
            import os, logging, signal, threading, time
            logs.configure(load(Settings))
            logs.bind_process(worker=1)
            def chatter():
                while True: logging.getLogger("thread").debug("x"); logs.get_logger("t").debug("y")
            threading.Thread(target=chatter, daemon=True).start()
            signal.signal(signal.SIGALRM, lambda *_: logging.getLogger("signal").info("in a handler"))
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            for _ in range(200): logging.getLogger("main").info("x")
            signal.setitimer(signal.ITIMER_REAL, 0)
            children = []
            for n in range(10):
                pid = os.fork()
                if not pid:
                    from gevent import monkey; monkey.patch_all()
                    logs.bind_process(worker=n + 2)
                    logging.getLogger("child").info("forked")
                    os._exit(0)
                children.append(pid)
            for pid in children: assert os.waitpid(pid, 0)[1] == 0
            logging.getLogger("main").info("end")
        """
        found = parsed(run(code))
        children = [line for line in found if line["body"] == "forked"]
        assert sorted(line["worker"] for line in children) == list(range(2, 12))
        assert len({line["process.pid"] for line in children}) == 10
        assert sum(line["body"] == "x" for line in found) == 200
        assert any(line["body"] == "in a handler" for line in found)
        assert found[-1]["body"] == "end"

    def test_structlogs_own_loggers_and_context_variables_end_there_too(self):
        code = """
            import structlog
            logs.configure(load(Settings))
            structlog.contextvars.bind_contextvars(tenant="t1")
            structlog.get_logger("direct").warning("direct", stack_info=True)
        """
        [line] = parsed(run(code))
        assert (line["logger"], line["tenant"], line["severity_text"]) == ("direct", "t1", "WARN")
        assert "File" in line["code.stacktrace"]

    def test_the_level_is_a_setting(self):
        code = """
            import logging
            logs.configure(load(Settings))
            for name in ("debug", "info", "warning", "error", "critical"):
                getattr(logging.getLogger("std"), name)(name)
                getattr(logs.get_logger("app"), name)(name)
        """
        assert len(parsed(run(code, OBSERVABILITY_LOG_LEVEL="error"))) == 4
        assert len(parsed(run(code, OBSERVABILITY_LOG_LEVEL="debug"))) == 10


class TestConsole:
    def test_people_get_text_without_colours_into_a_pipe(self):
        code = """
            logs.configure(load(Settings))
            logs.get_logger("app").info("made\\nforged", todo="a\\nb", password="hunter2")
            try: raise ValueError("x\\n2026-01-01T00:00:00Z [info] forged")
            except ValueError: logs.get_logger("app").exception("failed")
        """
        result = run(code, OBSERVABILITY_LOG_FORMAT="console")
        text = result.stdout.splitlines()
        assert "made\\nforged" in text[0]
        assert "todo=a\\nb" in text[0]
        assert "hunter2" not in result.stdout
        assert "\x1b" not in result.stdout
        assert all(line.startswith("    | ") for line in text[2:])
        assert "forged" in text[-1]

    def test_people_get_colours_on_a_terminal(self):
        line = {"timestamp": "t", "severity_text": "INFO", "body": "b", "n": 1}
        assert b"\x1b" in Console(colors=True)(line, PIPE_BUF)
        assert len(Console(colors=True)({**line, "n": "x" * 9999}, PIPE_BUF)) <= PIPE_BUF
