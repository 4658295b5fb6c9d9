"""`python -m bench`: measure, show the progress, and end with one `name value target` a row."""

import argparse
import sys
from types import ModuleType
from typing import Any

from bench import account, footprint, overhead, pages, peers, report, scale, scrape

BENCHMARKS: dict[str, ModuleType] = {
    "overhead": overhead,
    "scrape": scrape,
    "footprint": footprint,
    "account": account,
    "scale": scale,
}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        _common(command)
        module.add_arguments(command)
    _common(commands.add_parser("all", help="all of these, one after the other"))
    commands.add_parser("pages", help="write tables and pictures anew from the results that are there")
    commands.add_parser("pins", help="pin the peers' requirements anew")
    return top


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quick", action="store_true", help="see that it works: small numbers that mean nothing")


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    module = BENCHMARKS[name]
    found: dict[str, Any] = module.run(module.settings_of(options))
    print(module.tables(found))
    report.say(f"written: {report.write(found).relative_to(peers.ROOT)}, after {found['seconds']} s")
    if not found["quick"]:
        pages.write()
    return found


def _all(quick: bool) -> list[dict[str, Any]]:
    arguments = ["--quick"] if quick else []
    return [_run(name, parser().parse_args([name, *arguments])) for name in BENCHMARKS]


def main() -> int:
    """Run what was asked for."""
    options = parser().parse_args()
    if options.command == "pins":
        peers.compile_pins()
        return 0
    if options.command == "pages":
        pages.write()
        return 0
    found = _all(options.quick) if options.command == "all" else [_run(options.command, options)]
    print(report.last_lines(row for each in found for row in each["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
