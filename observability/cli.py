"""`python -m observability`: what an operator runs beside the server."""

import argparse
from collections.abc import Sequence

from observability.settings import Settings, load_or_exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m observability", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    agent = commands.add_parser("agent", help="serve metrics, health and live state of the server in OBSERVABILITY_DIR")
    agent.add_argument("--master", type=int, default=0, help=argparse.SUPPRESS)
    agent.add_argument("--fd", type=int, default=-1, help=argparse.SUPPRESS)
    agent.add_argument("--delay", type=float, default=0.0, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    _agent(chosen)


def _agent(chosen: argparse.Namespace) -> None:
    from observability.agent import server  # imports Flask and gevent, which no other command needs

    server.serve(load_or_exit(Settings), chosen.master, chosen.fd, chosen.delay)
