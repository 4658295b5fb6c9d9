"""`python -m observability grafana`: what it takes, and what runs then."""

import argparse
import os
import sys
from dataclasses import replace

from observability.grafana.settings import Settings
from observability.settings import Settings as Telemetry
from observability.settings import load_or_exit

ABOUT = "bring dashboards and data sources into a Grafana, check them there, bring edits back, and annotate"
_STATUS = "Exit status: 0 well, 1 {}, 2 not even begun, or Grafana went away. More: docs/grafana.md."
_MISSING = (
    'grafana-client is not installed here: `make grafana ARGS="..."` runs this in an environment of its own, '
    "or pip install -r requirements-grafana.txt into one, never into the server's"
)
_FAILED = 2


def add(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.set_defaults(run=run)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    sync = parts.add_parser(
        "sync",
        help="bring the folder, the data sources and the dashboards in; shows a plan first",
        epilog=_STATUS.format("a part failed"),
    )
    sync.add_argument("--dry-run", action="store_true", help="show the plan, and do nothing")
    sync.add_argument("--force", action="store_true", help="overwrite, and remove, also what was changed in Grafana")
    sync.add_argument("--folder", metavar="NAME", help="the folder's title; default: GRAFANA_FOLDER")
    export = parts.add_parser(
        "export",
        help="show what was changed in Grafana, as a difference to the code's JSON",
        epilog=_STATUS.format("there is a difference"),
    )
    export.add_argument("uid", help="the dashboard")
    export.add_argument("--write", action="store_true", help="write it into the dashboard's file as well")
    check = parts.add_parser(
        "check",
        help="ask the data sources how they are, and run every panel's query through Grafana",
        epilog=_STATUS.format("something failed or returned nothing"),
    )
    check.add_argument("uid", nargs="*", help="the dashboards; default: all")
    parts.add_parser(
        "annotate",
        help="write reloads, deploys, deaths of workers and the tuner's decisions into Grafana, until it is ended",
        epilog="It runs until SIGTERM. Exit status: 0 ended, 2 not begun. More: docs/grafana.md.",
    )


def run(chosen: argparse.Namespace) -> int:
    """Run a part, and say in one line what ended it."""
    from observability.grafana.errors import GrafanaError

    settings = load_or_exit(Settings)
    if getattr(chosen, "folder", None):
        settings = replace(settings, folder=chosen.folder)
    try:
        return _part(chosen, settings)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grafana_client", "niquests"):
            raise
        print(_MISSING, file=sys.stderr)
    except GrafanaError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return _FAILED


def _part(chosen: argparse.Namespace, settings: Settings) -> int:
    from observability.grafana import annotate, check, export, sync
    from observability.grafana.client import Grafana

    if chosen.part == "annotate":
        return annotate.run(settings, load_or_exit(Telemetry))
    grafana = Grafana(settings)
    grafana.connect()
    if chosen.part == "sync":
        return sync.run(grafana, settings, dry_run=chosen.dry_run, force=chosen.force)
    if chosen.part == "export":
        return export.run(grafana, settings, chosen.uid, write=chosen.write)
    return check.run(grafana, settings, chosen.uid)
