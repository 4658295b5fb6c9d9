"""Faults that are asked for again and again, and why other alerts fire beside the one that is meant."""

from contextlib import AbstractContextManager
from typing import Final

from tests.prove.load import ask, pressing
from tests.prove.stack import Stack

FAILED: Final = {"SloAvailabilityBurning": "the fault fails requests, or takes them along: users feel it"}
SLOW: Final = {"SloLatencyBurning": "the requests of the fault take longer than the objective allows"}
WAITING: Final = {"RequestsQueueing": "requests wait behind those of the fault: users feel it"}
LOGGED: Final = {"LogErrors": "each worker's end is logged as an error"}
FULL: Final = {"WorkersSaturated": "the fault keeps every worker busy"}
QUEUE: Final = {"ListenBacklogGrowing": "what full workers cannot take waits there"}


def faults(stack: Stack, path: str, clients: int, pause: float = 0.0) -> AbstractContextManager[None]:
    """Have clients ask for one of the app's faults again and again."""
    return pressing(clients, lambda _: ask(f"{stack.server.url}/faults/{path}"), pause)
