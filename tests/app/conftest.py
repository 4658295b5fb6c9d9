"""Fixtures of the service's tests: the app as a client sees it, and real servers behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import Settings, create_app
from tests.services import Postgres, Redis


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., FlaskClient]:
    """Return a function that makes an app with the settings given, over one data directory, and its client."""

    def client(**settings: object) -> FlaskClient:
        return create_app(Settings(**{"data_directory": tmp_path / "data", **settings})).test_client()

    return client


@pytest.fixture
def client(make: Callable[..., FlaskClient]) -> FlaskClient:
    return make()


@pytest.fixture(params=["sqlite", "postgres"])
def any_client(request: pytest.FixtureRequest, make: Callable[..., FlaskClient]) -> FlaskClient:
    """The app over each database, empty."""
    if request.param == "sqlite":
        return make()
    postgres = request.getfixturevalue("postgres")
    made = make(database_url=postgres.url)
    postgres.query("DELETE FROM todos")
    return made
