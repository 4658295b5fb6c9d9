"""What native mode runs: the app and its agent, Prometheus, Alertmanager, the tuner, and a minute of sample traffic."""

import os
import sys
from pathlib import Path

from scripts import packages
from scripts.options import ROOT, Options
from scripts.ports import LOOPBACK
from scripts.processes import Service

PYTHON = ROOT / ".venv/bin/python"
PORTS = {
    "prometheus": ("PROMETHEUS_PORT",),
    "alertmanager": ("ALERTMANAGER_PORT",),
    "app": ("APP_PORT", "AGENT_PORT"),
    "tuner": ("TUNER_PORT",),
}
TOOLS = {"prometheus": packages.PROMETHEUS, "alertmanager": packages.ALERTMANAGER}
LINKED = ("AGENT_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")  # from the app's start page
WEBHOOK_TOKEN, CONTROL_TOKEN = "webhook_token", "control_token"
MAKE_VARIABLES = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")  # of no concern to a service


def wanted() -> list[str]:
    """Return the names of what can run here: what is installed, or can be."""
    return [name for name in PORTS if name not in TOOLS or TOOLS[name].path() or packages.installable()]


def service(name: str, options: Options) -> Service | None:
    """Return what is to be run under a name; None if its program is not installed."""
    if name == "app":
        return _app(options)
    if name == "tuner":
        return _tuner(options)
    program = TOOLS[name].path()
    if program is None:
        return None
    return (_prometheus if name == "prometheus" else _alertmanager)(options, program)


def state_directory(options: Options) -> Path:
    """Return where the slot files go: the service's own default, spelled out so that `make down` can remove it."""
    memory = Path("/dev/shm")
    return (memory if memory.is_dir() else options.run) / f"sightline-{os.getuid()}-{options.agent_port}"


def secrets(options: Options) -> Path:
    """Return the directory of what the tuner, Alertmanager and the agent know of each other."""
    return options.run / "secrets"


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}


def _app(options: Options) -> Service:
    defaults = {
        "DATA_DIR": str(options.run / "data"),
        "OBSERVABILITY_DIR": str(state_directory(options)),
        "OBSERVABILITY_CONTROL_TOKEN_FILE": str(secrets(options) / CONTROL_TOKEN),
        **{
            f"{variable.removesuffix('_PORT')}_URL": f"http://{LOOPBACK}:{options.ports()[variable]}"
            for variable in LINKED
        },
    }
    fixed = {
        "GUNICORN_BIND": f"{LOOPBACK}:{options.app_port}",
        "OBSERVABILITY_AGENT_HOST": LOOPBACK,
        "OBSERVABILITY_AGENT_PORT": str(options.agent_port),
        "PYTHONUNBUFFERED": "1",
    }
    return Service(
        "app",
        # The script, not `-m gunicorn`: after USR2 that one has gunicorn's own directory, and its `http`, first on
        # the path. Under Python, since the script's own first line breaks when the directory is moved.
        [str(PYTHON), str(PYTHON.with_name("gunicorn"))],
        defaults | _environ() | fixed,
        ready=f"http://{LOOPBACK}:{options.agent_port}/readyz",
        stop_seconds=_graceful_seconds() + 10,
    )


def _graceful_seconds() -> float:
    given = os.environ.get("GUNICORN_GRACEFUL_TIMEOUT", "")
    return float(given) if given.isdigit() else 30.0  # observability/settings.py; nonsense is refused there


def _prometheus(options: Options, program: str) -> Service:
    home, address = options.run / "prometheus", f"{LOOPBACK}:{options.prometheus_port}"
    command = [
        program,
        f"--config.file={home}/prometheus.yml",
        f"--storage.tsdb.path={home}/data",
        "--storage.tsdb.retention.time=35d",
        "--enable-feature=exemplar-storage",
        f"--web.listen-address={address}",
        f"--web.external-url=http://{address}/",
    ]
    return Service("prometheus", command, _environ(), ready=f"http://{address}/-/ready", stop_seconds=20)


def _alertmanager(options: Options, program: str) -> Service:
    home, address = options.run / "alertmanager", f"{LOOPBACK}:{options.alertmanager_port}"
    command = [
        program,
        f"--config.file={home}/alertmanager.yml",
        f"--storage.path={home}/data",
        "--cluster.listen-address=",  # one alone needs no cluster
        f"--web.listen-address={address}",
        f"--web.external-url=http://{address}/",
    ]
    return Service("alertmanager", command, _environ(), ready=f"http://{address}/-/ready")


def _tuner(options: Options) -> Service:
    address = f"{LOOPBACK}:{options.tuner_port}"
    prometheus = f"http://{LOOPBACK}:{options.prometheus_port}" if TOOLS["prometheus"].path() else ""
    defaults = {
        "TUNER_PROMETHEUS_URL": prometheus,
        "TUNER_AGENT_URL": f"http://{LOOPBACK}:{options.agent_port}",
        "TUNER_DIR": str(options.run / "tuner"),
        "TUNER_STOP_FILE": str(options.run / "tuner" / "stop"),
        "TUNER_WEBHOOK_TOKEN_FILE": str(secrets(options) / WEBHOOK_TOKEN),
        "TUNER_CONTROL_TOKEN_FILE": str(secrets(options) / CONTROL_TOKEN),
    }
    fixed = {"TUNER_HOST": LOOPBACK, "TUNER_PORT": str(options.tuner_port), "PYTHONUNBUFFERED": "1"}
    command = [str(PYTHON), "-m", "observability", "tuner", "serve"]
    return Service("tuner", command, defaults | _environ() | fixed, ready=f"http://{address}/livez")


def traffic(options: Options) -> Service:
    """Return the sample traffic, which ends by itself."""
    command = [sys.executable, "-m", "scripts.traffic", str(options.app_port), str(options.traffic_seconds)]
    return Service("traffic", command, _environ(), stop_seconds=5)
