"""Every setting: environment variable, type, default, one line of help.

A settings class is a frozen dataclass whose fields are made by `setting()`. `load()` reads one from the
environment, and refuses the first senseless value with one line that names the variable, what it got, and
what it takes. `docs/settings.md` is generated from the same declarations.
"""

import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from observability import limits, worker_classes

T = TypeVar("T")
MASK = "***"


class SettingsError(ValueError):
    """A value that is refused: the message is one line for the person who set it."""


class Refused(ValueError):
    """A value with a reason of its own, which completes the sentence "VARIABLE is 'VALUE', ..."."""


@dataclass(frozen=True)
class Kind:
    """How a variable's text becomes a value; `takes` completes the sentence "it takes ..."."""

    takes: str
    parse: Callable[[str], Any]


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:  # also refuses NaN
        raise ValueError
    return value


def integer(low: int, high: int) -> Kind:
    """Make a whole number from `low` to `high`, both included."""
    return Kind(f"a whole number from {low} to {high}", lambda raw: int(_within(int(raw), low, high)))


def number(low: float, high: float) -> Kind:
    """Make a number from `low` to `high`, both included."""
    return Kind(f"a number from {low:g} to {high:g}", lambda raw: _within(float(raw), low, high))


def choice(*names: str) -> Kind:
    """Make one of the names, whatever its case."""

    def parse(raw: str) -> str:
        if raw.lower() not in names:
            raise ValueError
        return raw.lower()

    return Kind("one of " + ", ".join(names), parse)


def _parse_flag(raw: str) -> bool:
    return {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }[raw.lower()]


def _parse_matching(pattern: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError
        return raw

    return parse


def _parse_worker_class(raw: str) -> str:
    if replacement := worker_classes.REMOVED.get(raw.lower()):
        raise Refused(f"which gunicorn no longer has: use {replacement}")
    by_name = {name.lower(): known for name, known in worker_classes.WORKER_CLASSES.items()}
    known = by_name[raw.lower()]
    if not worker_classes.installed(known.package):
        raise Refused(f"which needs the package {known.package}: add it to the requirements")
    return known.name


def _parse_directory(raw: str) -> Path:
    path = Path(raw)
    if not path.is_absolute():
        raise ValueError
    return path


def _parse_readable_file(raw: str) -> Path:
    path = _parse_directory(raw)
    try:
        path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"which cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    return path


def url(*schemes: str) -> Kind:
    """Make a URL with a host, or whatever the scheme needs instead, under one of the schemes."""

    def parse(raw: str) -> str:
        if raw and urlsplit(raw).scheme.split("+")[0] not in schemes:
            raise ValueError
        return raw

    return Kind("a URL that starts with " + " or ".join(f"{scheme}:" for scheme in schemes), parse)


flag = Kind("1 or 0 (true, false, yes, no, on, off)", _parse_flag)
text = Kind("any text on one line", _parse_matching(r"[^\r\n\0]*"))
name = Kind("letters, digits and ._-/: up to 128 of them", _parse_matching(r"[\w./:\-]{0,128}"))
directory = Kind("an absolute path", _parse_directory)
file = Kind("the absolute path of a file, read when it is needed", _parse_directory)
readable_file = Kind("the absolute path of a file", _parse_readable_file)
bind_address = Kind(
    "HOST:PORT or unix:PATH, several joined by commas",
    _parse_matching(r"((unix:[^,]+|\[[0-9a-fA-F:.]+\]:\d{1,5}|[^,:\s]+:\d{1,5}|fd://\d+)(,|$))+"),
)
host = Kind("an IP address or a host name", _parse_matching(r"[0-9A-Za-z.:\-]{1,253}"))
port = integer(1, 65535)
worker_class = Kind("one of " + ", ".join(worker_classes.WORKER_CLASSES), _parse_worker_class)


def setting(
    variable: str, kind: Kind, default: Any, help: str, *, secret: bool = False, shown: str | None = None
) -> Any:
    """Declare one field of a settings class.

    Args:
        variable: the environment variable.
        kind: how its text becomes a value, and what it takes.
        default: the value where the variable is unset or empty; a callable is called at load.
        help: one line, for the reference page.
        secret: whether the value is masked wherever settings are shown.
        shown: what the reference page says of a computed default.
    """
    meta = {"variable": variable, "kind": kind, "help": help, "secret": secret, "shown": shown}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta)


def load(cls: type[T], environ: Mapping[str, str] | None = None) -> T:
    """Read a settings class from the environment.

    Raises:
        SettingsError: a value that its kind refuses.
    """
    source = os.environ if environ is None else environ
    values = {}
    for each in fields(cls):  # type: ignore[arg-type]
        raw = source.get(each.metadata["variable"], "").strip()
        if raw:
            values[each.name] = _parse(each, raw)
    return cls(**values)


def load_or_exit(cls: type[T]) -> T:
    """Read a settings class, or end the process with the one line that says what is wrong."""
    try:
        return load(cls)
    except SettingsError as error:
        sys.exit(str(error))


def _parse(each: "Field[Any]", raw: str) -> Any:
    kind = each.metadata["kind"]
    try:
        return kind.parse(raw)
    except (ValueError, KeyError) as error:
        got = MASK if each.metadata["secret"] else ascii(raw)[:120]
        reason = str(error) if isinstance(error, Refused) else f"but takes {kind.takes}"
        raise SettingsError(f"{each.metadata['variable']} is {got}, {reason}") from None


def masked(value: str) -> str:
    """Hide the password of a URL, so that the rest can be shown."""
    parts = urlsplit(value)
    if not parts.password:
        return value
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", f":{MASK}@")))


def shown(loaded: Any) -> Iterator[tuple[str, Any]]:
    """Yield each variable with its effective value, as it may be logged."""
    for each in fields(loaded):
        value = getattr(loaded, each.name)
        if each.metadata["secret"] and value:
            value = masked(str(value)) if "://" in str(value) else MASK
        yield each.metadata["variable"], value if isinstance(value, int | float | bool | None) else str(value)


def default_of(each: "Field[Any]") -> str:
    """Say a field's default as the reference page does."""
    if each.metadata["shown"]:
        return str(each.metadata["shown"])
    value = each.default_factory() if each.default_factory is not MISSING else each.default
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)


def _state_directory() -> Path:
    """Keep state in memory, apart for each user and each agent port, which is one server's own anyway."""
    base = Path("/dev/shm")  # noqa: S108 - a directory of our own below it, mode 0700, owner checked
    if not base.is_dir():
        base = Path(tempfile.gettempdir())
    return base / f"sightline-{os.getuid()}-{os.environ.get('OBSERVABILITY_AGENT_PORT', '') or 9101}"


@dataclass(frozen=True)
class Settings:
    """What the observability package itself takes."""

    directory: Path = setting(
        "OBSERVABILITY_DIR",
        directory,
        _state_directory,
        "State directory, one a server: slot files, mode 0700. Keep it on tmpfs.",
        shown="/dev/shm/sightline-UID-AGENTPORT",  # noqa: S108 - text for a page
    )
    agent: bool = setting("OBSERVABILITY_AGENT", flag, True, "Start the agent beside the gunicorn master.")
    agent_host: str = setting(
        "OBSERVABILITY_AGENT_HOST",
        host,
        "127.0.0.1",
        "Address that the agent listens on: metrics, health, state.",
    )
    agent_port: int = setting("OBSERVABILITY_AGENT_PORT", port, 9101, "Port that the agent listens on.")
    ready_workers: int = setting(
        "OBSERVABILITY_READY_WORKERS", integer(1, 1024), 1, "Booted workers that /readyz asks for."
    )
    control_token_file: Path | None = setting(
        "OBSERVABILITY_CONTROL_TOKEN_FILE",
        file,
        None,
        "File with the token for POST /workers of the agent; without one nobody changes workers: docs/control.md.",
    )
    max_label_sets: int = setting(
        "OBSERVABILITY_MAX_LABEL_SETS",
        integer(10, 100_000),
        1000,
        "Label sets a metric may have in a worker; what exceeds them goes into one overflow series.",
    )
    environment: str = setting(
        "APP_ENV", name, "development", "Deployment environment: production, staging, development ..."
    )
    service_name: str = setting("OTEL_SERVICE_NAME", name, "sightline", "service.name on spans and log lines.")
    service_version: str = setting(
        "SERVICE_VERSION", name, "", "service.version on spans and log lines, as the build knows it."
    )
    log_format: str = setting(
        "OBSERVABILITY_LOG_FORMAT",
        choice("json", "console"),
        "json",
        "json for machines, console for people.",
    )
    log_level: str = setting(
        "OBSERVABILITY_LOG_LEVEL",
        choice("debug", "info", "warning", "error", "critical"),
        "info",
        "Least severe level that is written.",
    )
    otlp_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        url("http", "https"),
        "",
        "OTLP/HTTP receiver, such as http://127.0.0.1:4318; unset means no exporter and no cost.",
        secret=True,
    )
    sample_ratio: float = setting(
        "OTEL_TRACES_SAMPLER_ARG",
        number(0, 1),
        0.1,
        "Share of new traces that are sampled; a caller's choice wins.",
    )
    slow_seconds: float = setting(
        "OBSERVABILITY_SLOW_SECONDS",
        number(0, 3600),
        1.0,
        "A request at least this long keeps its span though unsampled.",
    )
    blocked_seconds: float = setting(
        "OBSERVABILITY_BLOCKED_SECONDS",
        number(0.05, 3600),
        0.5,
        "An event loop that stands still for so long is counted and logged, with the stack of what blocks it.",
    )
    span_queue: int = setting(
        "OBSERVABILITY_SPAN_QUEUE",
        integer(16, 100_000),
        2048,
        "Ended spans that may wait for export in a worker.",
    )
    export_timeout: float = setting(
        "OBSERVABILITY_EXPORT_TIMEOUT", number(0.1, 60), 5.0, "Seconds that one export of spans may take."
    )
    exit_flush: float = setting(
        "OBSERVABILITY_EXIT_FLUSH_SECONDS",
        number(0, 10),
        2.0,
        "Seconds that a leaving worker gives to its last spans; keep it well below the graceful timeout.",
    )


@dataclass(frozen=True)
class Server:
    """What gunicorn.conf.py takes; names follow gunicorn's own settings."""

    bind: str = setting("GUNICORN_BIND", bind_address, "127.0.0.1:8000", "Address that the service listens on.")
    workers: int = setting(
        "WEB_CONCURRENCY",
        integer(1, 1024),
        limits.default_workers,
        "Worker processes.",
        shown="2 x cores + 1, within the cgroup's CPU and memory limits",
    )
    worker_class: str = setting(
        "GUNICORN_WORKER_CLASS",
        worker_class,
        "gevent",
        "How a worker runs requests: see docs/worker-classes.md.",
    )
    threads: int = setting("GUNICORN_THREADS", integer(1, 1024), 8, "Threads of a gthread worker; others ignore it.")
    worker_connections: int = setting(
        "GUNICORN_WORKER_CONNECTIONS",
        integer(1, 100_000),
        1000,
        "Concurrent connections of a worker of the gevent classes; others do not enforce it.",
    )
    backlog: int = setting("GUNICORN_BACKLOG", integer(1, 65535), 2048, "Connections that may wait to be accepted.")
    timeout: int = setting(
        "GUNICORN_TIMEOUT",
        integer(0, 3600),
        30,
        "Seconds without a heartbeat until a worker is killed; 0 never.",
    )
    graceful_timeout: int = setting(
        "GUNICORN_GRACEFUL_TIMEOUT",
        integer(1, 3600),
        30,
        "Seconds that a leaving worker has to finish its requests.",
    )
    keepalive: int = setting(
        "GUNICORN_KEEPALIVE",
        integer(0, 3600),
        5,
        "Seconds that an idle connection is kept; above the proxy's own.",
    )
    max_requests: int = setting(
        "GUNICORN_MAX_REQUESTS",
        integer(0, 100_000_000),
        0,
        "Requests after which a worker is recycled; 0 never.",
    )
    max_requests_jitter: int | None = setting(
        "GUNICORN_MAX_REQUESTS_JITTER",
        integer(0, 100_000_000),
        None,
        "Random part added to it, so that workers do not leave together.",
        shown="a tenth of GUNICORN_MAX_REQUESTS",
    )
    preload: bool = setting(
        "GUNICORN_PRELOAD",
        flag,
        False,
        "Load the app in the master: less memory, but a reload keeps the old code.",
    )
    forwarded_allow_ips: str = setting(
        "FORWARDED_ALLOW_IPS",
        text,
        "127.0.0.1,::1",
        "Proxies whose X-Forwarded headers are believed; * for all.",
    )
    pidfile: str = setting("GUNICORN_PIDFILE", text, "", "File for the master's pid.")

    @property
    def jitter(self) -> int:
        """Requests of jitter: as set, else a tenth of max_requests."""
        given = self.max_requests_jitter
        return math.ceil(self.max_requests / 10) if given is None else given
