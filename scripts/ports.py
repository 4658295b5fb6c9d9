"""Whether the ports that are wanted can be had."""

import socket
from collections.abc import Mapping

from scripts.problem import Problem

LOOPBACK = "127.0.0.1"


def free(port: int) -> bool:
    """Say whether a port of the loopback address can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one in TIME_WAIT can be had
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def demand(wanted: Mapping[str, int]) -> None:
    """Refuse the first port that cannot be had, by the setting that changes it.

    Args:
        wanted: ports by variable.
    """
    for variable, port in wanted.items():
        if not free(port):
            other = next((each for each in range(port + 1, 65536) if free(each)), None)
            hint = f"make up {variable}={other or 'PORT'}"
            raise Problem(f"Port {port} is taken: end what listens there, or choose another: {hint}")
