"""A control group with a limit of memory for a server, which its agent can read.

The agent reads control groups of version 2. Where memory is in those of version 1, the kernel keeps the limit all the
same; the server is then given a directory in the place of /sys/fs/cgroup, laid out as version 2 has it, whose numbers
are the group's own and follow them.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.prove.scenarios.memory import control_group, no_group
from tests.prove_tuning.scenario import Setup

ROOT: Final = Path("/sys/fs/cgroup")
COPIED: Final = "the kernel's limit is a control group of version 1; the agent reads its numbers laid out as version 2"
_EVERY_SECONDS: Final = 0.25
_V1: Final = (ROOT / "memory").is_dir()
# A shell puts itself into the group, hides what is mounted behind the copy, and becomes gunicorn.
_INTO = 'echo $$ > "$0" && exec "$@"'
_BEHIND = 'echo $$ > "$0" && mount --bind "$1" /sys/fs/cgroup && shift && exec "$@"'


class Group:
    """A control group with a limit of memory.

    Args:
        path: its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def limit(self) -> int:
        """The bytes that may be used."""
        return int((self.path / ("memory.limit_in_bytes" if _V1 else "memory.max")).read_text())

    @limit.setter
    def limit(self, size: float) -> None:
        (self.path / ("memory.limit_in_bytes" if _V1 else "memory.max")).write_text(str(round(size)))

    @property
    def used(self) -> int:
        """The bytes in use, without file pages that can be dropped at once."""
        return max(0, self.current - self._stat("total_inactive_file" if _V1 else "inactive_file"))

    @property
    def current(self) -> int:
        """The bytes in use, whatever for."""
        return int((self.path / ("memory.usage_in_bytes" if _V1 else "memory.current")).read_text())

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        return _field(self.path / ("memory.oom_control" if _V1 else "memory.events"), "oom_kill")

    def _stat(self, name: str) -> int:
        return _field(self.path / "memory.stat", name)

    def copy(self, directory: Path) -> None:
        """Write what it says as version 2 would."""
        files = {
            "memory.max": self.limit,
            "memory.current": self.current,
            "memory.stat": f"inactive_file {self._stat('total_inactive_file')}",
            "memory.events": f"oom_kill {self.kills}",
        }
        for name, text in files.items():
            draft = directory / f".{name}"
            draft.write_text(f"{text}\n")
            draft.replace(directory / name)


def _field(path: Path, name: str) -> int:
    found = dict(line.split() for line in path.read_text().splitlines())
    return int(found.get(name, 0))


def lacking() -> str:
    """Say why a server cannot be given such a group here."""
    if why := no_group():
        return why
    return "" if not _V1 or shutil.which("unshare") else "unshare is not installed"


def grouped(setup: Setup, around: ExitStack, limit: str, directory: Path) -> Group:
    """Put the server into a control group of its own, as its agent can see it."""
    group = Group(around.enter_context(control_group(limit)))
    procs = str(group.path / "cgroup.procs")
    if _V1:
        around.enter_context(_copied(group, directory))
        setup.prefix = ("unshare", "--mount", "sh", "-c", _BEHIND, procs, str(directory))
    else:
        setup.prefix = ("sh", "-c", _INTO, procs)
    return group


@contextmanager
def _copied(group: Group, directory: Path) -> Iterator[None]:
    """Keep a copy of a group's numbers up to date while the block runs."""
    over = threading.Event()
    (directory / "cgroup.controllers").write_text("memory\n")

    def follow() -> None:
        while not over.wait(_EVERY_SECONDS):
            with contextlib.suppress(OSError):
                group.copy(directory)

    group.copy(directory)
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
