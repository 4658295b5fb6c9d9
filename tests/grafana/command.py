"""`python -m observability grafana`, run as a user does: a process in the environment that `make grafana` makes."""

import os
import subprocess
from pathlib import Path
from typing import Any

from scripts import venv
from tests.grafana.server import TOKEN
from tests.server import ROOT, end

PYTHON = ROOT / venv.GRAFANA.directory / "bin/python"


def environ(url: str, **more: object) -> dict[str, str]:
    """Return an environment that holds nothing of the one that the tests run in, but for where programs are."""
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    ours = {"GRAFANA_URL": url, "GRAFANA_TOKEN": TOKEN, "GRAFANA_TIMEOUT": "5", "PYTHONDONTWRITEBYTECODE": "1"}
    return inherited | ours | {key: str(value) for key, value in more.items()}


class Command:
    """The command for one Grafana, with settings of a test's own."""

    def __init__(self, url: str, **settings: object) -> None:
        self.url, self.settings = url, settings

    def __call__(self, *arguments: str, **more: object) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [str(PYTHON), "-m", "observability", "grafana", *arguments],
            cwd=ROOT,
            env=environ(self.url, **(self.settings | more)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert TOKEN not in done.stdout + done.stderr, "the token is nobody's business"
        return done


class Annotator:
    """`grafana annotate` in the background; it ends with its block.

    Args:
        directory: for its spool and its log.
        url: Grafana's.
        settings: more variables.
    """

    def __init__(self, directory: Path, url: str, **settings: object) -> None:
        directory.mkdir(exist_ok=True)
        self.spool, self.log_path = directory / "spool", directory / "log"
        quick = {"GRAFANA_ANNOTATION_WINDOW": 2, "GRAFANA_ANNOTATION_DELAY": 1.5, "GRAFANA_ANNOTATION_INTERVAL": 0.2}
        self.environ = environ(url, **({"GRAFANA_SPOOL": self.spool} | quick | settings))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Annotator":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None
        assert TOKEN not in self.log(), "the token is nobody's business"

    def start(self) -> None:
        command = [str(PYTHON), "-m", "observability", "grafana", "annotate"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environ, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def state(self) -> Any:
        import json

        path = self.spool / "annotator.json"
        return json.loads(path.read_text()) if path.exists() else {}
