"""Take the picture of `top` in docs/images: a real server under load, drawn by Textual, painted by Chromium.

python -m scripts.picture
"""

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from observability.top.columns import BY_TITLE
from observability.top.screen import Top
from observability.top.source import Source
from scripts.options import ROOT

PICTURE = ROOT / "docs/images/top.png"
SIZE = (120, 12)
WORKERS = 4
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# path, clients, the longest pause between two requests of each, and how long it waits for an answer, in seconds
LOAD = (
    ("/todos", 6, 0.1, 1),
    ("/faults/sleep?seconds=20", 5, 1.0, 30),
    ("/faults/sleep?seconds=0.2", 5, 0.1, 1),
    ("/faults/fail?rate=0.3", 2, 0.5, 1),
    ("/faults/cpu?seconds=0.2", 1, 0.1, 1),
)
_LOOK_SECONDS, _KILL_SECONDS, _START_SECONDS = 16.0, 9.0, 30.0


class Server:
    """A server that lives while its block runs.

    Args:
        directory: where its state, data and log go.
    """

    def __init__(self, directory: Path) -> None:
        app, agent = _free_port(), _free_port()
        self.url, self.agent_url = f"http://127.0.0.1:{app}", f"http://127.0.0.1:{agent}"
        self.state_directory = directory / "state"
        self._log = directory / "server.log"
        self._env = os.environ | {
            "GUNICORN_BIND": f"127.0.0.1:{app}",
            "GUNICORN_WORKER_CLASS": "gthread",
            "GUNICORN_THREADS": "4",
            "GUNICORN_GRACEFUL_TIMEOUT": "1",
            "WEB_CONCURRENCY": str(WORKERS),
            "OBSERVABILITY_DIR": str(self.state_directory),
            "OBSERVABILITY_AGENT_PORT": str(agent),
            "OBSERVABILITY_READY_WORKERS": str(WORKERS),
            "DATA_DIR": str(directory),
            "FAULTS_ENABLED": "1",
        }

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            gunicorn = str(Path(sys.executable).with_name("gunicorn"))
            self._process = subprocess.Popen([gunicorn], cwd=ROOT, env=self._env, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError(self._log.read_text()[-2000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(_START_SECONDS)

    def _ready(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"{self.agent_url}/readyz", timeout=5).ok
        return False

    def kill_a_worker(self) -> None:
        """Kill the last worker, as the kernel does when memory is short."""
        worker = requests.get(f"{self.agent_url}/state", timeout=5).json()["workers"][-1]
        os.kill(worker["pid"], signal.SIGKILL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> int:
    """Take the picture, and return 1 where nothing can paint it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"Needs one of {', '.join(BROWSERS)} to paint the picture")
        return 1
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Server(directory) as server, _load(server.url):
            svg = asyncio.run(_draw(server))
        _paint(browser, directory, svg)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1024} kB")
    return 0


@contextmanager
def _load(url: str) -> Iterator[None]:
    """Send requests while the block runs."""
    done = threading.Event()

    def client(path: str, pause: float, patience: float) -> None:
        while not done.wait(random.uniform(0, pause)):
            with suppress(requests.RequestException):
                requests.get(url + path, timeout=patience)

    for path, clients, pause, patience in LOAD:
        for _ in range(clients):
            threading.Thread(target=client, args=(path, pause, patience), daemon=True).start()
    try:
        yield
    finally:
        done.set()


async def _draw(server: Server) -> str:
    """Watch the server for a while, kill a worker meanwhile, and return what is on the screen."""
    app = Top(Source(server.agent_url, server.state_directory), 2.0, BY_TITLE["busy"])
    async with app.run_test(size=SIZE) as pilot:
        begun, killed = time.monotonic(), False
        while (passed := time.monotonic() - begun) < _LOOK_SECONDS:
            await pilot.pause(0.2)
            if passed > _KILL_SECONDS and not killed:
                server.kill_a_worker()
                killed = True
        return app.export_screenshot()


def _paint(browser: str, directory: Path, svg: str) -> None:
    """Paint the SVG with a font of this machine: the one that it names would come from the network."""
    plain = re.sub(r"@font-face \{[^}]*\}", "", svg).replace("Fira Code", "DejaVu Sans Mono")
    (directory / "top.svg").write_text(plain)
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', plain)
    assert found is not None
    width, height = (int(float(each)) for each in found.groups())
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--default-background-color=00000000",
    ]
    subprocess.run(
        [
            *(browser, *options, f"--user-data-dir={directory / 'browser'}", f"--window-size={width},{height}"),
            *(f"--screenshot={PICTURE}", (directory / "top.svg").as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )


if __name__ == "__main__":
    sys.exit(main())
