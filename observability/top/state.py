"""What the agent's `/state` says, typed: any number may be missing, and what is new is ignored."""

from typing import Any

import msgspec
from msgspec import Struct, field


class Flight(Struct):
    """One request in flight."""

    method: str = ""
    path: str = ""
    trace_id: str = ""
    ident: int = 0
    age_seconds: float | None = None


class Durations(Struct):
    """A slot's histogram of durations: how many ended in each bucket, not cumulative."""

    bounds: list[float | str] = []
    counts: list[float] = []


class Worker(Struct):
    """One worker, or what the last owner of a slot left."""

    slot: int
    pid: int | None = None
    worker_class: str | None = None
    live: bool = True
    booted: bool = True
    ended: float | None = None
    age_seconds: float | None = None
    heartbeat_age_seconds: float | None = None
    timeout_seconds: float | None = None
    requests: float | None = None
    errors: float | None = None
    busy_seconds: float | None = None
    busy_ratio: float | None = None
    in_flight: float | None = None
    capacity: float | None = None
    queued: float | None = None
    lag_seconds: float | None = None
    cpu_seconds: float | None = None
    rss_bytes: float | None = None
    pss_bytes: float | None = None
    oldest_request_seconds: float | None = None
    durations: Durations | None = None
    now: list[Flight] = []

    @property
    def timed(self) -> bool:
        """Whether its ages are true: it lives, or somebody saw when it died."""
        return self.live or self.ended is not None

    @property
    def age(self) -> float | None:
        """How long it has lived, in seconds."""
        return self.age_seconds if self.timed else None

    @property
    def oldest(self) -> float | None:
        """The age of its oldest request in seconds; None where nothing is in flight."""
        if not self.timed:
            return None
        ages = [flight.age_seconds for flight in self.now if flight.age_seconds is not None]
        return max(ages) if ages else self.oldest_request_seconds or None


class Master(Struct):
    """One gunicorn master; two while a binary upgrade is under way."""

    pid: int | None = None
    age_seconds: float | None = None
    worker_class: str | None = None
    upgraded_from: int | None = None


class Listener(Struct):
    """A listening socket, and the connections that wait to be accepted."""

    address: str = ""
    kind: str = ""
    backlog: float | None = None
    backlog_limit: float | None = None


class Exit(Struct):
    """The end of one worker."""

    time: float | None = None
    slot: int | None = None
    pid: int | None = None
    cause: str = ""
    signal: str | None = None
    code: int | None = None
    age_seconds: float | None = None
    requests: float | None = None


class Server(Struct):
    """The server as a whole."""

    workers_target: float | None = None
    workers_live: float | None = None
    busy_ratio: float | None = None
    listeners: list[Listener] = []
    cpu_quota: float | None = None
    memory_limit_bytes: float | None = None
    memory_used_bytes: float | None = None
    last_exits: list[Exit] = []


class Agent(Struct):
    """The process that answers."""

    corrupt_files: dict[str, str] = {}


class State(Struct):
    """One server at one moment."""

    time: float | None = None
    masters: list[Master] = []
    server: Server = field(default_factory=Server)
    workers: list[Worker] = []
    dead: list[Worker] = []
    agent: Agent = field(default_factory=Agent)

    @property
    def alive(self) -> bool:
        """Whether a master or a worker lives."""
        return bool(self.masters or self.workers)

    @property
    def last_sign(self) -> float | None:
        """Unix time of the last that is known of the dead: when the last one was seen dead, or did something."""
        signs = [worker.ended for worker in self.dead if worker.ended]
        if self.time is not None:
            ages = [worker.age_seconds for worker in self.dead if not worker.timed]
            ages += [flight.age_seconds for worker in self.dead if not worker.timed for flight in worker.now]
            signs += [self.time - age for age in ages if age is not None]
        return max(signs, default=None)

    @property
    def shown(self) -> list[Worker]:
        """The workers; of a dead server those that it left."""
        return self.workers if self.alive else self.dead


def decode(answer: bytes) -> State:
    """Read what an agent answered.

    Raises:
        msgspec.MsgspecError: it is no JSON of this form.
    """
    return msgspec.json.decode(answer, type=State)


def convert(said: dict[str, Any]) -> State:
    """Read the object behind `/state`.

    Raises:
        msgspec.MsgspecError: it has another form.
    """
    return msgspec.convert(said, State)
