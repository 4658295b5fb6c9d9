"""Kills for want of memory, and when they came.

The kernel counts what it has killed in a cgroup, and says neither what nor when. So the agent, which looks every
second, writes down when it saw the count rise, and a worker's SIGKILL counts as such a kill only if the count has risen
just then: an older one was somebody else's.
"""

import contextlib
import time
from pathlib import Path

import orjson

from observability import limits

FILE = "oom-kills"
RECENT_SECONDS = 3.0  # the agent's second, and the master's
_MOST = 16


class Watch:
    """The agent's look.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._seen = [[0.0, limits.oom_kills()]]  # monotonic seconds at which a count was first seen, and the count
        self._save()

    def look(self) -> None:
        """Write down the count if it has risen."""
        count = limits.oom_kills()
        if count != self._seen[-1][1]:
            self._seen = [*self._seen[-_MOST:], [time.monotonic(), count]]
            self._save()

    def _save(self) -> None:
        new = self._path.with_name(f"{FILE}.new")
        with contextlib.suppress(OSError):
            new.write_bytes(orjson.dumps(self._seen))
            new.replace(self._path)


class Account:
    """The master's account: each rise of the count is one worker's end at most.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._accounted = limits.oom_kills()

    def renew(self) -> None:
        """Take what was killed so far as somebody else's, where no agent tells when it was."""
        if not self._path.exists():
            self._accounted = limits.oom_kills()

    def is_one_more(self) -> bool:
        """Tell whether the count has just risen by one that is not accounted for, and account for it."""
        self._accounted = max(self._accounted, self._older())
        if limits.oom_kills() <= self._accounted:
            return False
        self._accounted += 1
        return True

    def _older(self) -> int:
        """Return the count as it was before the last seconds, as far as the agent has seen it."""
        try:
            seen = orjson.loads(self._path.read_bytes())
            return max((int(count) for at, count in seen if at < time.monotonic() - RECENT_SECONDS), default=0)
        except (OSError, ValueError, TypeError):
            return 0
