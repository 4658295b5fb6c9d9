"""What a sync would do: one step for each thing, with a reason where nothing or something unusual is done."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from observability.top.cells import printable

CREATE, UPDATE, REMOVE = "create", "update", "remove"
USE, UNCHANGED, KEEP = "use", "unchanged", "keep"
ACTIONS = (CREATE, UPDATE, REMOVE)
_DONE = {CREATE: "created", UPDATE: "updated", REMOVE: "removed", USE: "used", UNCHANGED: "unchanged", KEEP: "kept"}


@dataclass(frozen=True)
class Step:
    """One thing, and what is to be done with it.

    Args:
        action: create, update, remove, use, unchanged, or keep.
        kind: folder, data source, or dashboard.
        uid: its uid.
        title: its title or name.
        why: what a person should know of it.
    """

    action: str
    kind: str
    uid: str
    title: str
    why: str = ""

    def __str__(self) -> str:
        why = f"  ({self.why})" if self.why else ""
        return printable(f"{self.action:<10} {self.kind:<12} {self.uid:<28} {self.title}{why}")


def summary(steps: Iterable[Step]) -> str:
    """Count steps by what they do, as "2 created, 1 kept"."""
    counted = Counter(step.action for step in steps)
    return ", ".join(f"{counted[action]} {done}" for action, done in _DONE.items() if counted[action]) or "nothing"
