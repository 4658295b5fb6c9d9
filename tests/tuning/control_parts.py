"""What a test of `POST /workers` stands on: a server of its own that takes changes, and who asks it for them."""

import contextlib
import http.client
import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from tests.server import ROOT, Server, wait_until

TOKEN = "correct-horse-battery"
CLASSES = ("sync", "gthread", "gevent")
GOOD = "from tests.probe_app import create_app\n"
SETTING = "OBSERVABILITY_CONTROL_TOKEN_FILE"


class Ground:
    """A token, an app on disk that a test can change under a server, and servers that end with the block.

    Args:
        directory: for all of it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.token = directory / "token"
        self.token.write_text(TOKEN + "\n")
        self.token.chmod(0o600)
        release = directory / "release"
        release.mkdir()
        self.on_disk = release / "on_disk.py"
        self.on_disk.write_text(GOOD)
        self._running, self._count = ExitStack(), 0

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, app: str = "on_disk:create_app()", **env: Any) -> Server:
        """Start a server that takes changes, of the app on disk."""
        self._count += 1
        directory = self.directory / f"server-{self._count}"
        directory.mkdir()
        search = f"{self.on_disk.parent}{os.pathsep}{ROOT}"
        usual = {SETTING: self.token, "PYTHONPATH": search, "GUNICORN_WORKER_CLASS": "sync"}
        return self._running.enter_context(Server(directory, app, **usual | env))


def ask(server: Server, step: object, expected: object, token: str = TOKEN) -> requests.Response:
    return send(server, {"change": step, "expected": expected}, token)


def send(server: Server, body: object, token: str = TOKEN) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{server.agent_url}/workers", json=body, headers=headers, timeout=60)


def refusal(answer: requests.Response) -> tuple[int, str]:
    assert set(answer.json()) >= {"error", "detail"}
    return answer.status_code, answer.json()["error"]


def workers(server: Server) -> dict[str, float]:
    return server.metrics().by("state", "gunicorn_workers")


def settled(server: Server, count: int) -> None:
    def booted() -> bool:
        found = server.state()
        alive = [worker["booted"] for worker in found["workers"]]
        return alive == [True] * count and found["server"]["workers_target"] == count

    wait_until(booted, what=f"{count} booted workers")


def told(server: Server, body: str) -> list[dict[str, Any]]:
    return [line for line in server.lines() if line["body"] == body]


class Client(threading.Thread):
    """Sends requests until it is told to stop, on a connection that it keeps or on a new one each."""

    def __init__(self, port: int, keeps: bool, over: threading.Event) -> None:
        super().__init__()
        self.port, self.keeps, self.over = port, keeps, over
        self.answered, self.failures = 0, list[str]()

    def run(self) -> None:
        connection = self._connect()
        while not self.over.is_set():
            try:
                connection.request("GET", "/sleep/0.01")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failures.append(str(answer.status))
                if self.keeps and not answer.will_close:
                    continue
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            connection.close()
            connection = self._connect()
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)


class Cut:
    """Stands before an agent, and loses what it says to the first who asks: on the way there, or back."""

    def __init__(self, to: int, back: bool) -> None:
        self.to, self.back, self.lost = to, back, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Cut":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client:
                    self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        asked = client.recv(65536)
        posts = asked.startswith(b"POST")
        while posts and b"expected" not in asked:
            asked += client.recv(65536)
        if posts and not self.back:
            self.lost += 1
            return
        with socket.create_connection(("127.0.0.1", self.to)) as agent:
            agent.sendall(asked.replace(b"keep-alive", b"close"))
            answer = b"".join(iter(lambda: agent.recv(65536), b""))
        if posts:
            self.lost += 1
            assert answer.startswith(b"HTTP/1.1 200"), answer
        else:
            client.sendall(answer)
