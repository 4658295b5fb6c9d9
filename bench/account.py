"""Where one request's microseconds go: each part by itself, in one process, with nothing else running.

A part is run in a loop and an empty loop is subtracted; rounds go through all parts in turn, and the median is shown.
The CPU time is the calling thread's, so a thread that exports spans does not count. Where valgrind is installed,
callgrind counts each part's instructions, which do not depend on how busy the machine is.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import maths, report
from bench.peers import ROOT
from bench.receiver import Receiver
from observability import catalogue, logs, queue_time, request_lines, traces, wsgi
from observability.settings import Settings as Ours
from observability.store import Store

Call = Callable[[], object]
ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/todos",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "wrk",
    "wsgi.url_scheme": "http",
    "werkzeug.request": SimpleNamespace(url_rule=SimpleNamespace(rule="/todos")),
}
HEADERS = [("Content-Type", "application/json"), ("Content-Length", "731")]
BODY = b"x" * 731
LABELS = ("GET", "/todos", 200, "http", "")

# What is measured: names, in the table's order, and what each is. `rest of` a part is what its measured parts leave.
PARTS: dict[str, str] = {
    "request": "one whole request: the middleware around an app that answers at once, no receiver set",
    "trace ids": "join the caller's trace, or begin one",
    "queue time": "read `X-Request-Start`, where a proxy sends it; not part of the whole",
    "flight record": "enter the request into those in flight, and take it out",
    "slot and metrics": "change the slot's numbers and three histograms",
    "log line: text": "put the request's values into the text that its kind's lines share",
    "log line: write": "the system call, here into a file",
    "log line: count": "count the line",
    "log line, annotated": "a whole line to which the app has added a field; not part of the whole",
    "request, unsampled": "one whole request with a receiver set, not sampled: no span is built",
    "request, sampled": "one whole request with a receiver set, sampled: span, exemplar, queue for export",
}
SPAN_PARTS = ("request, unsampled", "request, sampled")


@dataclass(frozen=True)
class Settings:
    """How often.

    Args:
        rounds: through all parts.
        loops: of each part in a round.
        instructions: whether callgrind counts too.
    """

    rounds: int = 25
    loops: int = 4000
    instructions: bool = True
    quick: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rounds", type=int, help="rounds through all parts")
    parser.add_argument("--no-instructions", action="store_true", help="leave callgrind out")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what the command line asks for."""
    base = Settings(3, 200, instructions=False, quick=True) if options.quick else Settings()
    counts = base.instructions and not options.no_instructions
    return Settings(options.rounds or base.rounds, base.loops, counts, base.quick)


@contextlib.contextmanager
def prepared(directory: Path, endpoint: str) -> Iterator[dict[str, Call]]:
    """Yield each part as a call, ready to be repeated.

    The process is as a worker is: its store claims a slot, and its log writes to a file.

    Args:
        directory: where the slot and the log are.
        endpoint: a receiver of traces.
    """
    store = Store(directory / "state")
    store.claims_lazily = False  # gunicorn's hooks claim
    store.claim()
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    before, logs.output.fd = logs.output.fd, log
    logs.configure(Ours())
    started: list[Any] = []
    try:
        yield _parts(store, endpoint, started)
    finally:
        for tracing in started:
            tracing.stop(0.0)
        logs.output.fd = before
        logs.output.open()
        os.close(log)
        store.slot.close()


def _parts(store: Store, endpoint: str, started: list[Any]) -> dict[str, Call]:
    meter = wsgi.Middleware(_answer, store)
    meter.settle()
    bare = _served(_answer)
    found: dict[str, Call] = {"nothing": _nothing, "bare app": bare, "request": _served(meter)}
    found |= {"trace ids": _trace_ids(), "queue time": _queue_time()}
    found |= {"flight record": _flight(store), "slot and metrics": _slot(store, meter), **_line(meter)}
    for name, ratio in zip(SPAN_PARTS, (0.0, 1.0), strict=True):
        traces.start(Ours(otlp_endpoint=endpoint, sample_ratio=ratio, span_queue=100_000), "bench/worker-1")
        started.append(traces._tracing)
        traces._tracing = None
        found[name] = _traced(_served(meter), started[-1])
    return found


def _nothing() -> None:
    """Cost what calling a part costs."""


def _answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ARG001 - WSGI's signature
    start_response("200 OK", HEADERS)
    return [BODY]


def _start(status: str, headers: Any, exc_info: Any = None) -> Call:  # noqa: ARG001 - WSGI's signature
    return _nothing


def _served(app: Any) -> Call:
    """Serve one request as a server does: call, iterate, close."""

    def serve() -> None:
        body = app(ENVIRON.copy(), _start)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    return serve


def _traced(serve: Call, tracing: Any) -> Call:
    """Serve with tracing on; it is put in place at each call, since other parts go without."""

    def traced() -> None:
        traces._tracing = tracing
        serve()
        traces._tracing = None

    return traced


def _trace_ids() -> Call:
    request = traces.TracedRequest("", "", "")
    return lambda: traces.begin(request, ENVIRON)


def _queue_time() -> Call:
    header = f"t={time.time():.3f}"
    return lambda: queue_time.queue_seconds(header, time.time())


def _flight(store: Store) -> Call:
    flight = store.slot.flight
    return lambda: flight.leave(flight.enter("GET", "/todos", "0" * 32, 1.0))


def _slot(store: Store, meter: wsgi.Middleware) -> Call:
    """Count one request, found by its labels, which is in no flight record."""
    measured = wsgi.WSGIRequest(meter, ENVIRON.copy(), "/todos")
    store.slot.flight.leave(measured.flight)
    measured.flight, measured.sent = 0, len(BODY)

    def count() -> None:
        measured._count(store, meter.kind(LABELS))

    return count


def _line(meter: wsgi.Middleware) -> dict[str, Call]:
    """Split the log line: its text, its writing, and its counting."""
    measured = wsgi.WSGIRequest(meter, ENVIRON.copy(), "/todos")
    measured.route, measured.status, measured.sent = "/todos", 200, len(BODY)
    line = meter.kind(LABELS).line
    data = line.text(measured, 0.0007, None)

    def annotated() -> None:
        measured.fields = {"todo_id": 7}
        request_lines.write(measured, "http", "", 0.0007, None)

    recorder = meter.store.child(catalogue.LOG_MESSAGES, "info")
    return {
        "log line: text": lambda: line.text(measured, 0.0007, None),
        "log line: write": lambda: logs.output.write(data),
        "log line: count": recorder.inc,
        "log line, annotated": annotated,
    }


def time_us(call: Call, loops: int) -> float:
    """Return the CPU time of one call in microseconds, the loop included."""
    begun = time.thread_time_ns()
    for _ in range(loops):
        call()
    return (time.thread_time_ns() - begun) / loops / 1e3


def net(found: dict[str, float]) -> dict[str, float]:
    """Return the parts without what is not theirs: the loop around them, or the app under them."""
    whole = ("request", *SPAN_PARTS)
    return {name: found[name] - found["bare app" if name in whole else "nothing"] for name in PARTS}


def run(settings: Settings) -> dict[str, Any]:
    """Measure, and return the result."""
    begun = time.monotonic()
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = stack.enter_context(Receiver())
        calls = stack.enter_context(prepared(directory, receiver.endpoint))
        for call in calls.values():
            time_us(call, settings.loops // 4)  # warm-up
        for number in range(1, settings.rounds + 1):
            rounds.append(net({name: time_us(call, settings.loops) for name, call in calls.items()}))
            report.say(f"account: round {number} of {settings.rounds}: request {rounds[-1]['request']:.1f} us")
    counted = instructions() if settings.instructions else {}
    return report.result(
        "account",
        quick=settings.quick,
        seconds=time.monotonic() - begun,
        settings=vars(settings),
        rounds=rounds,
        medians={"us": maths.medians(rounds), "instructions": counted},
        ratios={},
        values={},
    )


def rest(parts: dict[str, float]) -> float:
    """Return what the whole request takes beyond its measured parts: the middleware itself."""
    apart = ("queue time", "log line, annotated", "request", *SPAN_PARTS)
    return parts["request"] - sum(value for name, value in parts.items() if name not in apart)


def tables(found: dict[str, Any]) -> str:
    """Return the account as a Markdown table."""
    times, counts = found["medians"]["us"], found["medians"]["instructions"]
    rows = [_row(name, what, times[name], counts.get(name)) for name, what in PARTS.items()]
    others = rest(counts) if counts else None
    middle = (
        "the middleware itself",
        "request object, clocks, `start_response`, the body's wrapper",
        rest(times),
        others,
    )
    rows.insert(list(PARTS).index("request, unsampled"), _row(*middle))
    return report.markdown(("Part", "What it does", "CPU, µs", "Instructions"), rows)


def _row(name: str, what: str, time_taken: float, count: float | None) -> tuple[str, ...]:
    return name, what, f"{time_taken:.2f}", "" if count is None else f"{count:,.0f}"


def instructions(loops: int = 200) -> dict[str, float]:
    """Count each part's instructions with callgrind; empty where it is not installed.

    One process runs under valgrind. It does one part's loop after the other as its standard input tells, and its
    counters are set to zero before a loop and read after it.
    """
    if not (shutil.which("valgrind") and shutil.which("callgrind_control")):
        report.say("account: no valgrind, so no instruction counts")
        return {}
    report.say("account: counting instructions under callgrind, which takes a minute")
    with tempfile.TemporaryDirectory() as name, Receiver() as receiver:
        out = Path(name) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet", sys.executable]
        command += ["-m", "bench.account", receiver.endpoint, str(loops)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environ(Path(name))
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            found = {}
            for line in process.stdout:  # the name of a part that is about to run, or of one that is done
                state, _, part = line.strip().partition(" ")
                if state == "begin":
                    _control("--zero", process.pid)
                elif state == "end":
                    _control("--dump", process.pid)
                    dumps = sorted(out.parent.glob("callgrind.out.*"), key=lambda each: int(each.suffix[1:]))
                    found[part] = _total(dumps[-1]) / loops
                    report.say(f"account: {part}: {found[part]:,.0f} instructions")
                process.stdin.write("go on\n")
                process.stdin.flush()
            process.wait(60)
        finally:
            process.kill()
            process.wait()
    return net(found)


def _environ(directory: Path) -> dict[str, str]:
    return os.environ | {"OBSERVABILITY_DIR": str(directory / "state"), "PYTHONHASHSEED": "0"}


def _control(option: str, pid: int) -> None:
    subprocess.run(["callgrind_control", option, str(pid)], check=True, capture_output=True, timeout=120)


def _total(dump: Path) -> int:
    """Read a dump's total: https://valgrind.org/docs/manual/cl-format.html."""
    for line in dump.read_text().splitlines():
        if line.startswith(("totals:", "summary:")):
            return int(line.partition(":")[2].split()[0])
    raise ValueError(f"{dump} has no total")


def _under_valgrind(endpoint: str, loops: int) -> None:
    """Run each part's loop when told, and say when it begins and ends."""
    with tempfile.TemporaryDirectory() as name, prepared(Path(name), endpoint) as calls:
        for part, call in calls.items():
            for _ in range(20):
                call()
            _say_and_wait(f"begin {part}")
            for _ in range(loops):
                call()
            _say_and_wait(f"end {part}")


def _say_and_wait(text: str) -> None:
    os.write(1, f"{text}\n".encode())
    os.read(0, 100)


if __name__ == "__main__":
    _under_valgrind(sys.argv[1], int(sys.argv[2]))
