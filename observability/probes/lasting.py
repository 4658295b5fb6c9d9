"""Counters over members that come and go: what one that is gone had counted stays in the sum."""

from collections.abc import Mapping
from typing import Any


class Lasting:
    """One counter that never goes back, such as a slot's CPU time over all its workers."""

    def __init__(self) -> None:
        self._gone = 0.0
        self._members: Mapping[Any, float] = {}

    def update(self, members: Mapping[Any, float]) -> None:
        """Take what each present member has counted; one that counts less than before is a new one."""
        for key, last in self._members.items():
            if members.get(key, -1.0) < last:
                self._gone += last
        self._members = members

    @property
    def total(self) -> float:
        """The sum over all members that were ever seen."""
        return self._gone + sum(self._members.values())
