"""`python -m observability`: what an operator runs beside the server."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from observability.grafana import command as grafana_command
from observability.settings import Settings, load, load_or_exit

_AGENT = "serve metrics, health and live state of the server in OBSERVABILITY_DIR"
_TOP = "watch a server and its workers in the terminal; after its death, see what it left"
_DOCTOR = "check the settings, the state directory, the agent and the server, and say what to do"
_TUNER = "turn alerts and saturation into better settings: decide, advise, apply, undo what did not help"
_SERVE = "run the tuner: Alertmanager's webhook, a slow poll, its metrics and its decisions"
_HISTORY = "print what the tuner did, and what came of it"
_ADVISE = "say once what is the matter with the servers, and which setting to change to what; changes nothing"
_SORTED: tuple[str, ...] = ("slot", "pid", "class", "busy", "in flight", "queued", "req/s", "err/s", "p99")
_SORTED += ("CPU", "PSS", "lag", "age", "oldest", "beat")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    chosen = _parser().parse_args(arguments)
    sys.exit(chosen.run(chosen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m observability", description="Commands to run beside the server. Settings: docs/settings.md."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_agent(commands)
    _add_top(commands)
    _add_doctor(commands)
    _add_grafana(commands)
    _add_tuner(commands)
    return parser


def _add_agent(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    agent = commands.add_parser("agent", help=_AGENT, description=_sentence(_AGENT) + ".")
    agent.add_argument("--master", type=int, default=0, help=argparse.SUPPRESS)
    agent.add_argument("--fd", type=int, default=-1, help=argparse.SUPPRESS)
    agent.add_argument("--delay", type=float, default=0.0, help=argparse.SUPPRESS)
    agent.set_defaults(run=_agent)


def _add_top(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    top = commands.add_parser(
        "top",
        help=_TOP,
        description=_sentence(_TOP),
        epilog="Exit status of --once: 0 a live server, 1 what a dead one left, 2 nothing to see. More: docs/top.md.",
    )
    where = top.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        help="the agent; default: OBSERVABILITY_AGENT_HOST and OBSERVABILITY_AGENT_PORT, else OBSERVABILITY_DIR",
    )
    where.add_argument("--directory", type=Path, help="read this state directory, without an agent")
    top.add_argument("--interval", type=seconds, default=2.0, help="seconds between two looks, 0.1 to 60; default 2")
    top.add_argument("--sort", choices=_SORTED, default="slot", metavar="COLUMN", help="one of: " + ", ".join(_SORTED))
    top.add_argument(
        "--once", action="store_true", help="print one table and leave; so does output that is no terminal"
    )
    top.set_defaults(run=_top)


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help=_DOCTOR,
        description=_sentence(_DOCTOR),
        epilog="Run it with the server's environment, as the server's user. Exit status: 0 no problem, 1 a problem.",
    )
    doctor.add_argument("--json", action="store_true", help="write one JSON object")
    doctor.set_defaults(run=_doctor)


def _add_tuner(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    tuner = commands.add_parser("tuner", help=_TUNER, description=_sentence(_TUNER))
    tuners = tuner.add_subparsers(dest="tuner_command", required=True, metavar="COMMAND")
    served = tuners.add_parser("serve", help=_SERVE, description=_sentence(_SERVE))
    served.set_defaults(run=_tuner_serve)
    past = tuners.add_parser("history", help=_HISTORY, description=_sentence(_HISTORY))
    past.add_argument("--directory", type=Path, help="where it remembers; default: TUNER_DIR")
    past.add_argument("--json", action="store_true", help="write one JSON object")
    past.set_defaults(run=_tuner_history)
    _add_advise(tuners)


def _add_advise(tuners: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    advise = tuners.add_parser(
        "advise",
        help=_ADVISE,
        description=_sentence(_ADVISE),
        epilog="Exit status: 0 well, 1 when there is time, 2 soon, 3 now; 4 where there is nothing to decide on.",
    )
    # argparse's own status for an option that it does not take would say "soon"
    setattr(advise, "error", lambda message: advise.exit(4, f"{advise.prog}: {message}\n"))  # noqa: B010
    where = advise.add_mutually_exclusive_group()
    where.add_argument("--prometheus", metavar="URL", help="read from it; default: TUNER_PROMETHEUS_URL")
    where.add_argument(
        "--agent", metavar="URL", help="watch it for a while; default: TUNER_AGENT_URL, else this machine's"
    )
    advise.add_argument("--server", metavar="NAME", help="only this one, as Prometheus calls the instance")
    advise.add_argument("--at", metavar="TIME", help="a recorded moment: 2026-03-04T05:06, Unix seconds, or 10m ago")
    advise.add_argument("--range", metavar="SPAN", help="the worst moment of a recorded range, such as 30m")
    advise.add_argument("--watch", metavar="SPAN", default="20s", help="how long an agent is watched; default 20s")
    advise.add_argument("--json", action="store_true", help="write one JSON object")
    advise.set_defaults(run=_tuner_advise)


def _add_grafana(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = grafana_command.ABOUT
    grafana_command.add(commands.add_parser("grafana", help=about, description=_sentence(about)))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def seconds(text: str) -> float:
    """Read an interval between two looks."""
    value = float(text)
    if not 0.1 <= value <= 60:
        raise argparse.ArgumentTypeError("it takes seconds from 0.1 to 60")
    return value


# Each command imports what it needs by itself: Flask and gevent, Textual, or neither.


def _agent(chosen: argparse.Namespace) -> int:
    from observability.agent import server

    server.serve(load_or_exit(Settings), chosen.master, chosen.fd, chosen.delay)
    return 0


def _top(chosen: argparse.Namespace) -> int:
    from observability.top import command

    return command.run(load_or_exit(Settings), chosen)


def _doctor(chosen: argparse.Namespace) -> int:
    from observability import doctor

    return doctor.run(as_json=chosen.json)


def _tuner_serve(_: argparse.Namespace) -> int:
    from observability.tuning import service

    return service.run()


def _tuner_history(chosen: argparse.Namespace) -> int:
    from observability.tuning import past
    from observability.tuning.settings import Settings as TunerSettings

    return past.run(chosen.directory or load_or_exit(TunerSettings).directory, as_json=chosen.json)


def _tuner_advise(chosen: argparse.Namespace) -> int:
    from observability.top.source import agent_url
    from observability.tuning import advise

    return advise.run(chosen, lambda: agent_url(load(Settings)))
