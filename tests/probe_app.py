"""A small Flask app that does what a test asks for: waits, fails, streams, crashes."""

import os
import signal
import threading
import time
from collections.abc import Iterator

from flask import Flask, Response, request

import observability

THINGS = observability.counter("probe_things_total", "Things that the probe counted.", ["kind"])


def create_app() -> Flask:  # noqa: C901 - one route each
    app = Flask(__name__)
    observability.instrument(app)

    @app.get("/")
    def index() -> str:
        return "ok"

    @app.route("/items/<int:number>", methods=["GET", "POST", "PUT"])
    def item(number: int) -> dict[str, object]:
        observability.annotate(item=number)
        return {"number": number, "worker": os.getpid()}

    @app.get("/count/<kind>")
    def count(kind: str) -> str:
        THINGS.labels(kind).inc()
        return "counted"

    @app.get("/sleep/<seconds>")
    def sleep(seconds: str) -> str:
        time.sleep(float(seconds))
        return "slept"

    @app.get("/burn/<seconds>")
    def burn(seconds: str) -> str:
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            pass
        return "burnt"

    @app.get("/hold")
    def hold() -> str:
        return str(sum(range(10**12)))  # a loop in C, with the GIL held and no look at signals: for hours

    @app.get("/eat")
    def eat() -> str:
        eaten = []
        while True:  # until the kernel has had enough
            eaten.append(bytearray(1_000_000))

    @app.get("/fail")
    def fail() -> str:
        raise ValueError("probe failed\nwith a second line")

    @app.get("/status/<int:code>")
    def status(code: int) -> tuple[str, int]:
        return "status", code

    @app.get("/stream/<int:chunks>")
    def stream(chunks: int) -> Response:
        pause, broken = float(request.args.get("pause", "0")), request.args.get("fail")

        def body() -> Iterator[bytes]:
            for number in range(chunks):
                time.sleep(pause)
                if broken == str(number):
                    raise RuntimeError("the stream broke")
                yield b"x" * 1000

        return Response(body(), content_type="application/octet-stream")

    @app.get("/file")
    def file() -> Response:
        from flask import send_file

        return send_file(__file__, mimetype="text/plain")

    @app.get("/die/<how>")
    def die(how: str) -> str:
        if how.startswith("exit"):
            os._exit(int(how[4:]))
        signal.raise_signal(getattr(signal, f"SIG{how}"))  # to this thread, as its own fault would
        return "alive"

    @app.get("/fork")
    def fork() -> str:
        pid = os.fork()
        if pid == 0:
            THINGS.labels("forked").inc()
            time.sleep(1)
            os._exit(0)
        time.sleep(0.5)
        return "forked"

    @app.get("/log/<level>")
    def log(level: str) -> str:
        log = observability.get_logger("probe")
        getattr(log, level)("probe says", password="hunter2", thread=threading.get_ident())
        return "logged"

    return app
