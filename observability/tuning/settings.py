"""What the tuner takes from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from observability.settings import (
    SettingsError,
    choice,
    directory,
    host,
    integer,
    load,
    name,
    number,
    port,
    readable_file,
    setting,
    url,
)
from observability.tuning.model import Limits, Mode

# Set by Kubernetes in every container: https://kubernetes.io/docs/concepts/services-networking/service/
_KUBERNETES = "KUBERNETES_SERVICE_HOST"


@dataclass(frozen=True)
class Settings:
    """What `python -m observability tuner serve` takes."""

    mode: str = setting(
        "TUNER_MODE",
        choice(*Mode),
        "recommend",
        "How far the tuner goes: off, recommend (says what it would do), or apply (does it, undoes what did not help).",
    )
    host: str = setting("TUNER_HOST", host, "127.0.0.1", "Address that the tuner listens on: webhook and metrics.")
    port: int = setting("TUNER_PORT", port, 9102, "Port that the tuner listens on.")
    prometheus_url: str = setting(
        "TUNER_PROMETHEUS_URL",
        url("http", "https"),
        "",
        "Prometheus that the tuner asks, with this repository's rules; unset means it watches one agent by itself.",
        secret=True,
    )
    agent_url: str = setting(
        "TUNER_AGENT_URL",
        url("http", "https"),
        "",
        "Agent to watch and to ask for a change; unset means each server's own, as Prometheus names it.",
        secret=True,
    )
    job: str = setting("TUNER_JOB", name, "sightline", "Job of the servers in Prometheus.")
    webhook_token_file: Path | None = setting(
        "TUNER_WEBHOOK_TOKEN_FILE",
        readable_file,
        None,
        "File with the token that Alertmanager sends; unset means no webhook: the tuner then only polls.",
    )
    control_token_file: Path | None = setting(
        "TUNER_CONTROL_TOKEN_FILE",
        readable_file,
        None,
        "File with the token that the agents take changes for; apply needs it.",
    )
    stop_file: Path | None = setting(
        "TUNER_STOP_FILE", directory, None, "A file that switches the tuner off, at once, for as long as it is there."
    )
    directory: Path = setting(
        "TUNER_DIR",
        directory,
        lambda: Path.cwd() / ".run" / "tuner",
        "Where the tuner remembers steps, what came of them, and decisions; one tuner at a time is active in it.",
        shown="WORKING-DIRECTORY/.run/tuner",
    )
    poll_seconds: float = setting(
        "TUNER_POLL_SECONDS", number(1, 3600), 60.0, "Seconds between two looks at the servers when nothing happens."
    )
    watch_seconds: float = setting(
        "TUNER_WATCH_SECONDS",
        number(1, 3600),
        5.0,
        "Seconds between two looks while a step is being watched, or an alert fires.",
    )
    settle_seconds: float = setting(
        "TUNER_SETTLE_SECONDS",
        number(1, 3600),
        60.0,
        "Seconds that workers have to come to a new target; a step whose workers do not has failed.",
    )
    window_seconds: float = setting(
        "TUNER_WINDOW_SECONDS",
        number(1, 3600),
        60.0,
        "Seconds that rates are taken over, as the rules do; a step is judged when such a window lies after it.",
    )
    fresh_seconds: float = setting(
        "TUNER_FRESH_SECONDS", number(1, 3600), 15.0, "Age above which signals decide nothing: two scrapes and a rule."
    )
    grow_seconds: float = setting(
        "TUNER_GROW_SECONDS", number(1, 86_400), 60.0, "Seconds from a change to one worker more, at least."
    )
    shrink_seconds: float = setting(
        "TUNER_SHRINK_SECONDS", number(1, 86_400), 600.0, "Seconds from a change to one worker less, at least."
    )
    idle_seconds: float = setting(
        "TUNER_IDLE_SECONDS",
        number(1, 86_400),
        600.0,
        "Seconds that there must have been little to do before a worker is removed.",
    )
    learned_seconds: float = setting(
        "TUNER_LEARNED_SECONDS",
        number(1, 604_800),
        86_400.0,
        "Seconds that a count of workers is remembered beyond which more did not help.",
    )
    min_workers: int = setting("TUNER_MIN_WORKERS", integer(1, 1024), 2, "Workers that the tuner never goes below.")
    max_workers: int = setting(
        "TUNER_MAX_WORKERS",
        integer(0, 1024),
        0,
        "Workers that the tuner never goes above; 0 leaves it to memory, and to what it has learned.",
    )
    queue_seconds: float = setting(
        "TUNER_QUEUE_SECONDS",
        number(0.001, 60),
        0.05,
        "The objective: 95 of 100 requests wait no longer than this for a worker.",
    )
    actions_per_hour: int = setting(
        "TUNER_ACTIONS_PER_HOUR", integer(0, 60), 6, "Changes of one server in an hour, at most."
    )

    @property
    def limits(self) -> Limits:
        """What people allow, as a decision takes it."""
        return Limits(
            floor=self.min_workers,
            ceiling=self.max_workers,
            queue_objective=self.queue_seconds,
            actions_per_hour=self.actions_per_hour,
            fresh_seconds=self.fresh_seconds,
            grow_seconds=self.grow_seconds,
            shrink_seconds=self.shrink_seconds,
            idle_seconds=self.idle_seconds,
            window_seconds=self.window_seconds,
            learned_seconds=self.learned_seconds,
        )


def beside_kubernetes(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the number of replicas belongs to a platform's autoscaler."""
    return bool(environ.get(_KUBERNETES))


def load_tuner(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the tuner's settings.

    Raises:
        SettingsError: a value that makes no sense, by itself or beside another.
    """
    loaded = load(Settings, environ)
    if loaded.max_workers and loaded.max_workers < loaded.min_workers:
        raise SettingsError(
            f"TUNER_MAX_WORKERS is {loaded.max_workers}, but TUNER_MIN_WORKERS is {loaded.min_workers}: "
            "it takes 0, or no less than that"
        )
    if loaded.mode == Mode.APPLY and loaded.control_token_file is None and not beside_kubernetes(environ):
        raise SettingsError(
            "TUNER_MODE is 'apply', but TUNER_CONTROL_TOKEN_FILE is unset: name the file with the token that "
            "the agents have in OBSERVABILITY_CONTROL_TOKEN_FILE"
        )
    return loaded
