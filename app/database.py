"""The database: SQLite in WAL mode by default, PostgreSQL by DATABASE_URL, both behind a pool."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, MetaData, NullPool, QueuePool, event, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.problems import Problem
from app.processes import PerProcess
from app.settings import Settings
from observability import annotate, get_logger, watch_pool

RETRY_AFTER_SECONDS = 5
RECYCLE_SECONDS = 1800  # below the idle limits of the usual firewalls and poolers
SQLITE_BUSY_SECONDS = 5
POOL = "primary"  # its name in the metrics; a replica's would be another
BOOT_LOCK = 0x5167_4C17  # any number that nothing else of this database locks

# https://www.postgresql.org/docs/current/libpq-connect.html: a server that has vanished is noticed in seconds
_POSTGRES_ARGS = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

metadata = MetaData()
_log = get_logger("app.database")


class Database:
    """Connections to the service's database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.database
        self._embedded = self._url.get_backend_name() == "sqlite"
        self._engine = PerProcess(self._pooled)
        self._has_tables = False

    def prepare(self) -> None:
        """Create the tables; where the database is away, the first request that needs them does."""
        try:
            self._create_tables()
        except OperationalError as error:
            _log.warning("database.unavailable", error=_reason(error))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection whose work is committed at the end.

        Raises:
            Problem: 503, the database is away, or no connection came free in time.
        """
        try:
            if not self._has_tables:
                self._create_tables()
            with self._engine.get().begin() as connection:
                yield connection
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            annotate(database_error=_reason(error))
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database cannot be reached, or is too busy.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from error

    def _create_tables(self) -> None:
        """Create what is missing; workers that boot together do so one after the other.

        The engine is thrown away: a preloaded app must not carry its connections over the fork.
        """
        engine = self._make(poolclass=NullPool)
        with self._boot_lock(), engine.begin() as connection:
            if not self._embedded:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": BOOT_LOCK})
            metadata.create_all(connection)
        self._has_tables = True

    def _boot_lock(self) -> AbstractContextManager[None]:
        """Lock the embedded database beyond SQLite's own lock, which the switch to WAL does not wait for."""
        if not self._embedded:
            return nullcontext()
        path = Path(str(self._url.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        return _locked(path.with_name(path.name + ".lock"))

    def _pooled(self) -> Engine:
        engine = self._make(
            poolclass=QueuePool,
            pool_size=self._settings.pool_size,
            max_overflow=self._settings.pool_overflow,
            pool_timeout=self._settings.pool_timeout,
            pool_recycle=RECYCLE_SECONDS,
            pool_pre_ping=not self._embedded,
        )
        return watch_pool(engine, name=POOL)

    def _make(self, **pool: Any) -> Engine:
        connect_args = {"timeout": SQLITE_BUSY_SECONDS} if self._embedded else _POSTGRES_ARGS
        # Looked up late: the tracing instrumentation replaces it once the worker has booted.
        engine = sqlalchemy.create_engine(self._url, connect_args=connect_args, **pool)
        if self._embedded:
            event.listen(engine, "connect", _set_pragmas)
        return engine


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _set_pragmas(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _reason(error: Exception) -> str:
    """Say on one line why the database failed, without the statement and its values."""
    return f"{type(error).__name__}: {getattr(error, 'orig', None) or error}".splitlines()[0]
