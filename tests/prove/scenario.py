"""A fault, and the alerts that are for it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.prove.stack import Setup, Stack


@dataclass(frozen=True)
class Scenario:
    """One fault in one server.

    Args:
        name: as in `make prove ARGS=NAME`.
        about: what is injected, in a sentence.
        alerts: the alerts that it proves.
        inject: holds the fault while its block runs.
        related: alerts that may fire as well, each with the reason.
        setup: what runs before the fault.
        arrange: begins what has to be there before the servers, and may change the setup; the stack's `extra` is what
            it returns.
        true_scale: whether it is run with the shipped durations too.
        only_true_scale: whether it is run with the shipped durations alone.
        alone: whether nothing else may run on the machine meanwhile.
        settle: seconds of health before the fault.
        lacking: says why this machine cannot run it, or nothing.
    """

    name: str
    about: str
    alerts: tuple[str, ...]
    inject: Callable[[Stack], AbstractContextManager[Any]]
    related: Mapping[str, str] = field(default_factory=dict)
    setup: Setup = field(default_factory=Setup)
    arrange: Callable[[Setup, ExitStack], Any] | None = None
    true_scale: bool = False
    only_true_scale: bool = False
    alone: bool = False
    settle: float = 12.0
    lacking: Callable[[], str] = str

    def scales(self) -> list[bool]:
        """Return whether each of its runs is compressed."""
        compressed = [] if self.only_true_scale else [True]
        return compressed + ([False] if self.true_scale or self.only_true_scale else [])
