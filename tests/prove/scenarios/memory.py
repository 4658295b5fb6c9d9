"""Servers with little memory, and requests that use it up."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.prove.load import ask
from tests.prove.scenarios.pressure import faults
from tests.prove.stack import Setup, Stack
from tests.server import wait_until

LIMIT_MIB: Final = 360
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


def no_group() -> str:
    """Say why there can be no control group with a limit of memory."""
    base = _V1 if _V1.is_dir() else _V2
    controlled = _V1.is_dir() or "memory" in _read(_V2 / "cgroup.subtree_control")
    return "" if controlled and os.access(base, os.W_OK) else "no control group with a limit of memory can be made here"


def no_group_of_version_2() -> str:
    """Say why the agent would not see such a group."""
    return no_group() or ("memory is in control groups of version 1, which the agent does not read" * _V1.is_dir())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def limit(setup: Setup, around: ExitStack) -> None:
    """Put the server into a control group of its own, with a limit of memory."""
    group = around.enter_context(control_group(f"{LIMIT_MIB}M"))
    # A shell puts itself there, and becomes gunicorn: this process and its other children stay where they are.
    setup.prefix = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))


@contextmanager
def control_group(limit: str) -> Iterator[Path]:
    """Make a control group with a limit of memory, and remove it once it is empty."""
    base, name = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    group = Path(tempfile.mkdtemp(prefix="sightline-prove-", dir=base))
    try:
        (group / name).write_text(limit)
        yield group
        wait_until(lambda: not (group / "cgroup.procs").read_text().strip(), 20, "an empty control group")
    finally:
        group.rmdir()


def leak_fast(stack: Stack) -> AbstractContextManager[None]:
    """Leak more than there is."""
    return faults(stack, "leak?mib=32", clients=2, pause=0.3)


def leak_slowly(stack: Stack) -> AbstractContextManager[None]:
    """Leak a little, and go on."""
    return faults(stack, "leak?mib=1", clients=1, pause=0.5)


@contextmanager
def leak_nearly_all(stack: Stack) -> Iterator[None]:
    """Leak until nine tenths and a little more are used, and keep it."""

    def used() -> float:
        page = stack.server.metrics()
        return page.sum("cgroup_memory_used_bytes") / page.sum("cgroup_memory_limit_bytes")

    while used() < 0.92:
        stack.server.get("/faults/leak?mib=4")
    yield
    for _ in range(20):  # whichever worker answers frees what it keeps
        ask(f"{stack.server.url}/faults/leak", "DELETE")
