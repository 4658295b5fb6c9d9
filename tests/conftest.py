"""Fixtures that any test may ask for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests record in this process away from a server that runs on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OBSERVABILITY_DIR", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server, which ends with the test."""
    with ExitStack() as running:
        count = 0

        def start(app: str = "tests.probe_app:create_app()", **env: Any) -> Server:
            nonlocal count
            count += 1
            directory = tmp_path / f"server-{count}"
            directory.mkdir()
            return running.enter_context(Server(directory, app, **env))

        yield start
