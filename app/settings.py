"""What the service takes from the environment; the server's and the telemetry's own settings are elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from redis import ConnectionPool
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from observability.settings import Kind, directory, flag, integer, name, number, readable_file, setting, url


def _parse_database_url(raw: str) -> str:
    try:
        parsed = make_url(raw)
    except ArgumentError:
        raise ValueError from None
    backend = parsed.get_backend_name()
    if backend == "sqlite" and (parsed.database or ":memory:") != ":memory:":  # workers cannot share memory
        return raw
    if backend in ("postgresql", "postgres"):
        return raw
    raise ValueError


database_url = Kind(
    "a URL such as postgresql://user:password@host:5432/name or sqlite:////path/to/file", _parse_database_url
)


def _parse_redis_url(raw: str) -> str:
    try:
        ConnectionPool.from_url(raw).make_connection()  # connects to nothing yet, but knows every option
    except TypeError as error:
        raise ValueError from error
    return raw


redis_url = Kind("a URL such as redis://:password@host:6379/0, rediss://... or unix:///path", _parse_redis_url)


@dataclass(frozen=True)
class Settings:
    """What the todo service takes."""

    environment: str = setting(
        "APP_ENV", name, "development", "Deployment environment; production refuses FAULTS_ENABLED."
    )
    data_directory: Path = setting(
        "DATA_DIR",
        directory,
        lambda: Path.cwd() / ".run" / "data",
        "Directory of what the workers of this machine share: the embedded database, and word of each write.",
        shown="WORKING-DIRECTORY/.run/data",
    )
    database_url: str = setting(
        "DATABASE_URL",
        database_url,
        "",
        "PostgreSQL database (or an SQLite file); unset means SQLite in DATA_DIR.",
        secret=True,
    )
    database_password_file: Path | None = setting(
        "DATABASE_PASSWORD_FILE",
        readable_file,
        None,
        "File with the password for DATABASE_URL, such as a container's secret; one in the URL gives way to it.",
    )
    pool_size: int = setting(
        "DATABASE_POOL_SIZE", integer(1, 1000), 5, "Database connections that a worker keeps open."
    )
    pool_overflow: int = setting(
        "DATABASE_POOL_OVERFLOW", integer(0, 1000), 10, "Connections beyond those, closed after use."
    )
    pool_timeout: float = setting(
        "DATABASE_POOL_TIMEOUT",
        number(0.1, 60),
        5.0,
        "Seconds that a request waits for a connection until it gets a 503.",
    )
    redis_url: str = setting(
        "REDIS_URL",
        redis_url,
        "",
        "Redis for the cache, which several machines may share; unset means a cache inside each worker.",
        secret=True,
    )
    cache_ttl: int = setting(
        "CACHE_TTL_SECONDS",
        integer(1, 86_400),
        30,
        "Seconds that a todo is cached. A write is seen at once by all workers of a machine, and through Redis by "
        "all machines; where neither holds (several machines without Redis, Redis away during the write), a todo "
        "may be this old.",
    )
    cache_entries: int = setting(
        "CACHE_ENTRIES", integer(1, 1_000_000), 10_000, "Todos that the cache inside a worker holds at most."
    )
    max_body: int = setting(
        "MAX_BODY_BYTES", integer(1024, 1_073_741_824), 131_072, "Bytes of a request body; more gets a 413."
    )
    faults: bool = setting(
        "FAULTS_ENABLED", flag, False, "Serve /faults, which break this service on purpose; never in production."
    )
    agent_url: str = setting(
        "AGENT_URL", url("http", "https"), "http://127.0.0.1:9101", "Where the start page links to the agent."
    )
    prometheus_url: str = setting(
        "PROMETHEUS_URL",
        url("http", "https"),
        "http://127.0.0.1:9090",
        "Where the start page links to Prometheus.",
    )
    alertmanager_url: str = setting(
        "ALERTMANAGER_URL",
        url("http", "https"),
        "http://127.0.0.1:9093",
        "Where the start page links to Alertmanager.",
    )
    grafana_url: str = setting(
        "GRAFANA_URL", url("http", "https"), "http://127.0.0.1:3000", "Where the start page links to Grafana."
    )

    @property
    def production(self) -> bool:
        """Whether this is the environment that people depend on."""
        return self.environment.lower() in ("production", "prod")

    @property
    def faults_served(self) -> bool:
        """Whether /faults is there."""
        return self.faults and not self.production

    @property
    def database(self) -> URL:
        """The database's URL, with the driver that the service brings."""
        if not self.database_url:
            return URL.create("sqlite+pysqlite", database=str(self.data_directory / "todos.sqlite3"))
        parsed = make_url(self.database_url)
        if parsed.get_backend_name() == "sqlite":
            return parsed.set(drivername="sqlite+pysqlite")
        if self.database_password_file is not None:
            parsed = parsed.set(password=self.database_password_file.read_text().strip())
        return parsed.set(drivername="postgresql+psycopg")
