"""Native mode: services as background processes of this host."""

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from scripts import configs, packages, ports, running, secret_files, services, traffic, venv
from scripts.interrupts import uninterrupted
from scripts.options import ROOT, Options
from scripts.problem import Problem
from scripts.processes import Processes, Service

READY_SECONDS = 60.0
LOG_LINES = 15


def up(options: Options) -> None:
    """Start what does not run yet; when anything fails, stop again what was started."""
    if not Path("/proc/self/stat").exists():
        raise Problem("Native mode needs Linux; elsewhere, start a Docker daemon and give `make up` again")
    processes = Processes(options.run)
    missing = [name for name in services.wanted() if processes.pid(name) is None]
    if not missing:
        print("Everything runs already.")
    numbers = options.ports()
    ports.demand({variable: numbers[variable] for name in missing for variable in services.PORTS[name]})
    venv.ensure()
    _install_monitors(options)
    secret_files.make(services.secrets(options), (services.WEBHOOK_TOKEN, services.CONTROL_TOKEN), 0o600)
    configs.render(options)
    running.remember(options)
    everything = [found for name in services.wanted() if (found := services.service(name, options))]
    try:
        _start([each for each in everything if each.name in missing], processes)
        for each in everything:
            _wait_until_ready(each, processes)
        traffic.first_requests(options.app_port)
    except BaseException:
        with uninterrupted():
            _stop(processes, list(reversed(missing)))
            _forget_if_idle(options, processes)
        raise


def down(options: Options) -> None:
    """End everything, the app first, so that Prometheus sees it go."""
    _stop(Processes(options.run), list(reversed(services.PORTS)))
    _remove_state(options)


def status(options: Options) -> dict[str, str]:
    """Return what each service does, by name."""
    processes = Processes(options.run)
    found = {}
    for name in services.PORTS:
        pid = processes.pid(name)
        if pid is not None:
            found[name] = f"running, pid {pid}"
        elif name in processes.names():
            found[name] = f"ended unasked, see {_shown(processes.log(name))}"
        else:
            found[name] = "not running"
    return found


def logs(options: Options, *, follow: bool) -> None:
    """Print the end of the logs, and go on with what comes."""
    processes = Processes(options.run)
    files = [str(path) for name in services.PORTS if (path := processes.log(name)).exists()]
    if not files:
        raise Problem("There are no logs: `make up` starts what writes some")
    subprocess.run(["tail", "-n", "50", *(["-F"] if follow else []), *files], check=False)


def remove_data(options: Options) -> None:
    """Remove native state; what somebody else put into the directory stays."""
    for name in ("processes", "logs", "data", "prometheus", "alertmanager", "tuner", "secrets"):
        shutil.rmtree(options.run / name, ignore_errors=True)
    (options.run / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        options.run.rmdir()


def _install_monitors(options: Options) -> None:
    lacking = packages.missing(list(services.TOOLS.values()))
    if not lacking:
        return
    try:
        packages.install(lacking, why="Prometheus and Alertmanager")
    except Problem as problem:
        print(f"{problem}. The app and its agent run without: metrics, health and state on {options.agent_port}.")


def _start(some: Sequence[Service], processes: Processes) -> None:
    for each in some:
        print(f"Starting {each.name}", flush=True)
        processes.start(each, ROOT)


def _wait_until_ready(service: Service, processes: Processes) -> None:
    name, deadline = service.name, time.monotonic() + READY_SECONDS
    while not _answers(service.ready):
        if processes.pid(name) is None:
            raise Problem(f"{name} died at start{processes.ending(name)}; {_tail(processes.log(name))}")
        if time.monotonic() > deadline:
            raise Problem(f"{name} is not ready after {READY_SECONDS:.0f} seconds; {_tail(processes.log(name))}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return f"the end of {_shown(log)}:\n" + "\n".join(f"  {line}" for line in lines or ["(nothing)"])


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _stop(processes: Processes, names: Sequence[str]) -> None:
    for name in names:
        if processes.pid(name) is not None:
            print(f"Stopping {name}", flush=True)
        processes.stop(name)


def _forget_if_idle(options: Options, processes: Processes) -> None:
    if not any(processes.pid(name) for name in services.PORTS):
        _remove_state(options)
        running.forget(options)


def _remove_state(options: Options) -> None:
    """Give back the memory of the slot files, unless somebody has chosen another place for them."""
    if "OBSERVABILITY_DIR" not in os.environ:
        shutil.rmtree(services.state_directory(options), ignore_errors=True)
