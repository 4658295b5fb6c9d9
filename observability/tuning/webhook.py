"""What Alertmanager sends: who may, what it must look like, and that it is taken once.

A notification wakes the loop and does nothing else: what it says is never acted upon, the signals are asked first.
https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

import hashlib
import hmac
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from observability.tuning.memory import Memory

MOST_BYTES = 1024 * 1024
MOST_WAITING = 100
_MOST_ALERTS = 500  # of one notification that are told apart
_MOST_FIRING = 1000
_FIRING_SECONDS = 3600.0  # an alert whose end was never told is forgotten after so long
_TOKEN_BYTES = 4096

Result = Literal["accepted", "repeated", "dropped"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Alert(msgspec.Struct, rename="camel"):
    """One alert of a notification; what Alertmanager adds to it later is no concern."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: Moment
    ends_at: Moment
    fingerprint: str = ""
    generator_url: str = msgspec.field(default="", name="generatorURL")


class Notification(msgspec.Struct, rename="camel"):
    """What Alertmanager sends to a webhook, in version 4."""

    version: Literal["4"]
    group_key: str
    status: Literal["firing", "resolved"]
    receiver: str
    group_labels: dict[str, str]
    common_labels: dict[str, str]
    common_annotations: dict[str, str]
    alerts: list[Alert]
    external_url: str = msgspec.field(default="", name="externalURL")
    truncated_alerts: int = 0

    def keys(self) -> list[str]:
        """Name what is told: a group's alerts by when they began, and whether they have ended."""
        alerts = self.alerts[:_MOST_ALERTS]
        return [_short(self.group_key, each.starts_at.isoformat(), each.status) for each in alerts]


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


class MalformedError(ValueError):
    """A body that is no notification: the message says where."""


_decoder = msgspec.json.Decoder(Notification)


def parse(body: bytes) -> Notification:
    """Read a notification.

    Raises:
        MalformedError: it is not one.
    """
    try:
        notification = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(str(error)) from None
    if not notification.alerts:
        raise MalformedError("Expected at least one alert - at `$.alerts`")
    return notification


class Token:
    """A secret in a file, read again when the file is another.

    Args:
        path: the file; None takes no token at all.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._value = b""

    def matches(self, authorization: str) -> bool:
        """Tell whether a header bears the token, in a time that does not depend on how much of it is right."""
        scheme, _, given = authorization.partition(" ")
        expected = self._read()
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), expected)
        return right and bool(expected) and scheme.lower() == "bearer"

    def _read(self) -> bytes:
        """Return the token; nothing where the file cannot be read, and then nobody has it."""
        if self.path is None:
            return b""
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                with self.path.open("rb") as file:
                    self._value = file.read(_TOKEN_BYTES).strip()
                self._stamp = stamp
        except OSError:
            self._stamp, self._value = (), b""
        return self._value


@dataclass(frozen=True)
class Told:
    """What a notification says, for the log: nothing is decided by it."""

    alert: str
    servers: tuple[str, ...]
    status: str


class Inbox:
    """Takes notifications from the web server, and hands them to the loop.

    Args:
        memory: knows what was taken before.
        wake: is called when something new has come.
        clock: tells Unix seconds.
    """

    def __init__(self, memory: Memory, wake: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self._memory, self._wake, self._clock = memory, wake, clock
        self._waiting: deque[Told] = deque()
        self._firing: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, notification: Notification) -> Result:
        """Take a notification, once."""
        keys, now = notification.keys(), self._clock()
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return "dropped"
            if not self._memory.first_time(keys, now):
                return "repeated"
            self._waiting.append(_told(notification))
            self._note_firing(notification, now)
        self._wake()
        return "accepted"

    def _note_firing(self, notification: Notification, now: float) -> None:
        for alert in notification.alerts[:_MOST_ALERTS]:
            key = _short(notification.group_key, str(sorted(alert.labels.items())))
            self._firing.pop(key, None)
            if alert.status == "firing" and len(self._firing) < _MOST_FIRING:
                self._firing[key] = now

    def drain(self) -> list[Told]:
        """Return what has come since the last call."""
        with self._lock:
            found = list(self._waiting)
            self._waiting.clear()
        return found

    def firing(self) -> bool:
        """Tell whether an alert fires whose end was not told yet."""
        now = self._clock()
        with self._lock:
            self._firing = {key: since for key, since in self._firing.items() if 0 <= now - since < _FIRING_SECONDS}
            return bool(self._firing)


def _told(notification: Notification) -> Told:
    labels = [alert.labels for alert in notification.alerts[:_MOST_ALERTS]]
    names = sorted({each.get("alertname", "?")[:100] for each in labels})
    servers = sorted({each["instance"][:100] for each in labels if "instance" in each})
    return Told(", ".join(names[:5]), tuple(servers[:10]), notification.status)


class Switch:
    """The kill switch: a file whose presence means off.

    Args:
        path: the file; None has no switch.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def off(self) -> bool:
        """Tell whether the file is there; where that cannot be told, it is taken to be."""
        if self.path is None:
            return False
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True
