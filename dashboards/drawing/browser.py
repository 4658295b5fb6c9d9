"""Bundle the page with the packages that package-lock.json pins, and let Chromium paint it."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
WIDTH: Final = 1600
# Where Grafana's styles and icons look for files, and the packages that have them.
_INTER: Final = "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"
_ROBOTO_MONO: Final = "@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2"
SERVED: Final = {
    "public/build/img/icons": "@grafana/ui/dist/public/img/icons",
    "public/fonts/inter/Inter-Regular.woff2": _INTER,
    "public/fonts/inter/Inter-Medium.woff2": _INTER,
    "public/fonts/roboto/L0xTDF4xlVMF-BfR8bXMIhJHg45mwgGEFl0_3vrtSM1J-gEPT5Ese6hmHSh0mQ.woff2": _ROBOTO_MONO,
}
# as in src/main.tsx: pixels of a row of Grafana's grid, above all rows, and below them
ROW, HEAD, FOOT = 38, 96, 16
_INSTALL_SECONDS, _BUNDLE_SECONDS, _PAINT_SECONDS = 600, 120, 120
_PATIENCE_MS = 15_000  # of the page's own time: fonts, icons, frames

Json = dict[str, Any]


class Missing(Exception):
    """A program that is needed is not there, or has failed: one line for the user."""


def packages() -> Path:
    """Return the directory whose node_modules has the pinned packages, and install them if it is not there."""
    lock = HERE / "package-lock.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sightline"
    found = cache / f"drawing-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            made = Path(directory) / "made"
            made.mkdir()
            for name in ("package.json", lock.name, ".npmrc"):
                shutil.copy(HERE / name, made)
            _run([_program("npm"), "ci"], made, _INSTALL_SECONDS)
            made.rename(found)
    return found


def bundle(directory: Path) -> None:
    """Write the page into a directory, with all that it loads."""
    installed = packages() / "node_modules"
    options = ["--bundle", "--minify", "--jsx=automatic", "--loader:.ttf=empty"]
    mode = '--define:process.env.NODE_ENV="production"'
    command: list[str | Path] = [installed / ".bin/esbuild", HERE / "src/main.tsx", *options, mode, "--log-level=error"]
    _run([*command, f"--outfile={directory / 'page.js'}"], HERE, _BUNDLE_SECONDS, NODE_PATH=str(installed))
    shutil.copy(HERE / "page.html", directory)
    for place, package in SERVED.items():
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        (directory / place).symlink_to(installed / package)


def paint(recorded: Json, page: Path, picture: Path) -> None:
    """Paint one recorded dashboard as PNG.

    Args:
        recorded: what `Recorder.record` returned.
        page: a directory that `bundle` has filled.
        picture: the file to write.
    """
    (page / "recorded.js").write_text(f"window.recorded = {json.dumps(recorded)};\n")
    with _served(page) as (address, failures), tempfile.TemporaryDirectory() as profile:
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"),
            "--disable-lcd-text",  # colours at the edges of letters would be half of the file
            *(f"--user-data-dir={profile}", f"--virtual-time-budget={_PATIENCE_MS}"),
            *(f"--window-size={WIDTH},{height(recorded['dashboard'])}", f"--screenshot={picture}"),
        ]
        _run([_program(*BROWSERS), *options, f"{address}/page.html"], page, _PAINT_SECONDS)
    if failures:
        picture.unlink(missing_ok=True)
        raise Missing(f"{picture.name} is not whole: {failures[0]}")


def shrink(pictures: Sequence[Path]) -> None:
    """Write pictures anew with 256 colours each: less than half of the bytes."""
    node_path = str(packages() / "node_modules")
    _run([_program("node"), HERE / "smaller.cjs", *pictures], HERE, _BUNDLE_SECONDS, NODE_PATH=node_path)


def height(dashboard: Json) -> int:
    """Return the pixels that a dashboard's picture is high."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    return int(HEAD + rows * ROW + FOOT)


@contextmanager
def _served(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a directory on a free port of loopback, and gather what the page says of its failures.

    A page from a file may not load its icons.
    """
    failures: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take a failure."""
            failures.append(self.rfile.read(int(self.headers["Content-Length"])).decode(errors="replace"))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", failures
    finally:
        server.shutdown()
        server.server_close()


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise Missing(f"Needs one of {', '.join(names)}: apt-get install nodejs npm chromium")
    return found


def _run(command: Sequence[str | Path], directory: Path, seconds: float, **env: str) -> None:
    try:
        subprocess.run(
            command, cwd=directory, env=os.environ | env, check=True, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines()
        raise Missing(f"{Path(command[0]).name} failed: {' '.join(lines[:3])}") from error
