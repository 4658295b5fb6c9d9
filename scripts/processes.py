"""Background processes: started in a session of their own, and ended by the very id that started them.

A record names a process by id, boot and start time, so that an id that was used again is never taken for it. What
the process leaves behind, such as the new master after a binary upgrade (USR2), is known by its session and by a
token in its environment.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.interrupts import uninterrupted

POLL_SECONDS = 0.1
TOKEN = "SIGHTLINE_PROCESS"
RECORDED = {"pid", "identity", "token", "stop_seconds"}


@dataclass(frozen=True)
class Service:
    """A program that runs in the background.

    Args:
        name: names its record and its log.
        command: program and arguments.
        environ: environment variables, whole.
        ready: URL that answers 200 once it serves; "" if nothing is to be waited for.
        stop_seconds: what it is given to end by itself.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    ready: str = ""
    stop_seconds: float = 10


class Processes:
    """The processes that were started with their records in one directory."""

    def __init__(self, run: Path) -> None:
        """Keep records and logs below `run`."""
        self.records, self.logs = run / "processes", run / "logs"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def names(self) -> list[str]:
        """Return the names of all records, whether their processes live or not."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def log(self, name: str) -> Path:
        """Return where a process writes."""
        return self.logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Return the id of a process that is running."""
        return _owner(self._record(name))

    def ending(self, name: str) -> str:
        """Say how a process ended that was started from here; "" if that cannot be known."""
        status = self._children[name].poll() if name in self._children else None
        if status is None:
            return ""
        return f" (exit status {status})" if status >= 0 else f" (signal {-status})"

    def start(self, service: Service, cwd: Path) -> None:
        """Start a process that outlives this one, and record it; the log of its last run is kept as `.log.1`."""
        for directory in (self.records, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        log = self.log(service.name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        token = uuid.uuid4().hex
        with uninterrupted(), log.open("ab") as output:
            process = self._children[service.name] = subprocess.Popen(
                service.command,
                cwd=cwd,
                env={**service.environ, TOKEN: token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._keep(
                service.name,
                {
                    "pid": process.pid,
                    "identity": identity(process.pid),
                    "token": token,
                    "stop_seconds": service.stop_seconds,
                },
            )

    def stop(self, name: str) -> bool:
        """End a process, and forget it: TERM, then KILL for it and what it left behind.

        Returns:
            whether there was one to end.
        """
        record = self._record(name)
        running = _owner(record) is not None
        if running:
            _end(record)
        (self.records / f"{name}.json").unlink(missing_ok=True)
        return running

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads((self.records / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) and record.keys() >= RECORDED else {}

    def _keep(self, name: str, record: dict[str, Any]) -> None:
        """Write a record at once, so that a reader never sees half of it."""
        draft = self.records / f"{name}.draft"
        draft.write_text(json.dumps(record))
        draft.replace(self.records / f"{name}.json")


def identity(pid: int) -> str | None:
    """Name a live process so that no other one, ever, has the same name."""
    stat = _stat(pid)
    if stat is None or stat[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {stat[19]}"  # proc(5): field 22, start time since boot


def _stat(pid: int) -> list[str] | None:
    """Read /proc/PID/stat from its third field on: what comes before may hold blanks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _owner(record: dict[str, Any]) -> int | None:
    """Return the process of a record, or else the oldest that it left behind."""
    if not record:
        return None
    if record["identity"] is not None and identity(record["pid"]) == record["identity"]:
        return int(record["pid"])
    return next(iter(_family(record)), None)


def _family(record: dict[str, Any]) -> list[int]:
    """Return the live processes of a record's session, the oldest first."""
    token = f"{TOKEN}={record['token']}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(path.name))
        if stat is None or stat[0] in "ZX" or int(stat[3]) != record["pid"]:
            continue
        try:
            ours = token in (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone, or somebody else's
        if ours:
            found.append((int(stat[19]), int(path.name)))
    return [pid for _, pid in sorted(found)]


def _end(record: dict[str, Any]) -> None:
    asked: set[int] = set()
    deadline = time.monotonic() + record["stop_seconds"]
    while (pid := _owner(record)) is not None and time.monotonic() < deadline:
        if pid not in asked:
            _signal(pid, signal.SIGTERM)
            asked.add(pid)
        time.sleep(POLL_SECONDS)
    for member in _family(record):
        _signal(member, signal.SIGKILL)
    while _family(record):  # KILL cannot be refused, only take a moment
        time.sleep(POLL_SECONDS)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has gone meanwhile
        os.kill(pid, number)
