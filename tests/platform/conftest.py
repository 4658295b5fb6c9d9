"""Fixtures of the platform's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform.make import Make


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Give a Makefile of the test's own; what it leaves running is ended."""
    made = Make(tmp_path / "run")
    yield made
    made.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Make, str]]:
    """Give a running platform with sample traffic, and what `make up` printed."""
    made = Make(
        tmp_path_factory.mktemp("platform") / "run", TRAFFIC_SECONDS=600
    )  # longer than the tests; ended with them
    result = made("up")
    yield made, result.stdout + result.stderr
    made.end()
