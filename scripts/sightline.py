"""The commands `make up`, `down`, `status`, `logs`, `traffic` and `clean`: one shape for both modes."""

import contextlib
import os
import shutil
import sys
from dataclasses import replace

from scripts import addresses, containers, interrupts, native, running, services, traffic
from scripts.options import ROOT, Options, load
from scripts.problem import Problem, report
from scripts.processes import Processes

TRAFFIC = "traffic"
CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache")


def up(options: Options) -> None:
    """Start everything, and say where it is."""
    with running.alone(options):
        before = running.recall(options)
        options = replace(options, mode=_mode(options, before))
        if before is not None:
            _refuse_change(options, before)
            options = before
        if options.mode == "native":
            native.up(options)
        else:
            containers.up(options)
            running.remember(options)
            traffic.first_requests(options.app_port)
        _start_traffic(options)
    print(addresses.table(options))


def down(options: Options) -> None:
    """Stop everything that `make up` started."""
    with running.alone(options):
        before = running.recall(options)
        if before is None:
            print("Nothing is running.")
            return
        Processes(before.run).stop(TRAFFIC)
        if before.mode == "native":
            native.down(before)
        else:
            containers.down(before)
        running.forget(before)


def status(options: Options) -> None:
    """Say what runs."""
    before = running.recall(options)
    if before is None:
        print("Nothing is running: `make up` starts it.")
    elif before.mode == "containers":
        containers.status(before)
    else:
        for name, state in native.status(before).items():
            print(f"  {name:<12}  {state}")
        print(addresses.table(before))


def logs(options: Options) -> None:
    """Print the end of the logs, and go on with what comes unless FOLLOW=0."""
    before = running.recall(options)
    follow = os.environ.get("FOLLOW", "1") != "0"
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        if before is not None and before.mode == "containers":
            containers.logs(before, follow=follow)
        else:
            native.logs(options, follow=follow)


def more_traffic(options: Options) -> None:
    """Send sample traffic in the foreground."""
    before = running.recall(options)
    if before is None:
        raise Problem("Nothing is running: `make up` starts it")
    traffic.send(before.app_port, options.traffic_seconds)


def clean(options: Options) -> None:
    """Stop everything, and remove what was made, but for the virtual environment."""
    before = running.recall(options)
    down(options)
    if before is not None and before.mode == "containers":
        containers.remove_volumes(before)
    native.remove_data(options)
    for name in CACHES:
        shutil.rmtree(ROOT / name, ignore_errors=True)


def _start_traffic(options: Options) -> None:
    processes = Processes(options.run)
    if options.traffic_seconds and processes.pid(TRAFFIC) is None:
        processes.start(services.traffic(options), ROOT)


def _mode(options: Options, before: Options | None) -> str:
    if options.mode == "native":
        return "native"
    if options.mode == "auto" and before is not None:
        return before.mode
    lack = containers.lacking()
    if not lack:
        return "containers"
    if options.mode == "containers":
        raise Problem(f"MODE=containers cannot be had: {lack}")
    print(f"Native mode, since {lack}.")
    return "native"


def _refuse_change(options: Options, before: Options) -> None:
    if before.mode != options.mode:
        raise Problem(f"It runs already, in {before.mode} mode: give `make down` first")
    for variable, port in options.ports().items():
        if variable in os.environ and before.ports()[variable] != port:
            raise Problem(f"It runs already with {variable}={before.ports()[variable]}: give `make down` first")


COMMANDS = {"up": up, "down": down, "status": status, "logs": logs, "traffic": more_traffic, "clean": clean}


def main() -> None:
    """Run the command that was named."""
    interrupts.install()
    command = COMMANDS[sys.argv[1]]
    command(load())


if __name__ == "__main__":
    sys.exit(report(main))
