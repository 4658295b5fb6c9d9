"""What the annotator remembers: how far it has looked, and what waits for Grafana. One small file, always whole."""

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from observability.grafana.errors import GrafanaError
from observability.grafana.events import Annotation

_NAME = "annotator.json"
_MOST_BYTES = 512 * 1024 * 1024


class State(msgspec.Struct):
    """All of it.

    A file may still have `versions`, by job alone: they are passed over, since they do not say where they ran.

    Args:
        looked_until: Unix time in seconds; 0 for never.
        deployed: `events.Versions`, as rows of job, environment and versions, since JSON has no pairs for keys.
        pending: what is to be sent, the oldest first.
        dropped: annotations that were given up, of all times.
    """

    looked_until: float = 0.0
    deployed: list[tuple[str, str, dict[str, float]]] = msgspec.field(default_factory=list)
    pending: list[Annotation] = msgspec.field(default_factory=list)
    dropped: int = 0


class Spool:
    """The file, and the lock that keeps others from it.

    Args:
        directory: where it is; made if it is missing.

    Raises:
        GrafanaError: the directory cannot be written to, or another annotator has it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / _NAME
        self._draft = directory / f"{_NAME}.draft"
        self._saved = b""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(b"")
        except BlockingIOError:
            raise GrafanaError(f"Another annotator works in {directory}: end it, or set GRAFANA_SPOOL") from None
        except OSError as error:
            raise GrafanaError(f"GRAFANA_SPOOL: {directory} cannot be written to: {error.strerror}") from None

    def load(self) -> State:
        """Read what was saved last; nothing where there is nothing, or no file of ours.

        Raises:
            ValueError: the file is not what `save` writes.
        """
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            return msgspec.json.decode(self.path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()

    def save(self, state: State) -> None:
        """Write all of it, so that a reader sees the old file or the new one, whenever this process is killed.

        Raises:
            OSError: the disk is full, or not there.
        """
        data = msgspec.json.encode(state)
        if data != self._saved or not self.path.exists():
            self._write(data)
            self._draft.replace(self.path)
            self._saved = data

    def touch(self) -> None:
        """Show that the annotator works, even where nothing can be written any more."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def _write(self, data: bytes) -> None:
        try:
            with self._draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._draft.unlink()  # what is half-written takes room on a full disk
            raise
