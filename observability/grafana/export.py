"""`grafana export`: an edited dashboard, as a difference to the code's JSON that a person can take into its builder."""

import difflib

from observability.grafana import boards, sources, sync
from observability.grafana.boards import Board
from observability.grafana.client import Grafana, Json
from observability.grafana.errors import GrafanaError
from observability.grafana.settings import Settings
from observability.top.cells import printable


def run(grafana: Grafana, settings: Settings, uid: str, *, write: bool) -> int:
    """Print the difference, and write the file if asked to; return 1 if there is one."""
    board = _board(settings, uid)
    there = grafana.dashboard(uid)
    if there is None:
        raise GrafanaError(f"Grafana at {grafana.url} has no dashboard {printable(uid)}: run `grafana sync` first")
    edited = as_code(grafana, settings, there["dashboard"], board.model)
    committed = boards.plain(board.model)
    before, after = (boards.rendered(each).splitlines(keepends=True) for each in (committed, edited))
    name = board.path.name
    found = list(difflib.unified_diff(before, after, f"code/{name}", f"grafana/{name}"))
    print("".join(printable(line[:-1]) + "\n" for line in found), end="")
    if write and found:
        board.path.write_text(boards.rendered(edited))
        print(f"Wrote {board.path}; it stays only if its builder in dashboards/ writes the same.")
    return 1 if found else 0


def _board(settings: Settings, uid: str) -> Board:
    found = {board.uid: board for board in boards.load(settings.dashboards)}
    if uid not in found:
        raise GrafanaError(
            f"No dashboard {printable(uid)} in {settings.dashboards}; there are {', '.join(sorted(found))}"
        )
    return found[uid]


def as_code(grafana: Grafana, settings: Settings, live: Json, model: Json) -> Json:
    """Return a dashboard as code would have it: with the code's data sources, and its order of keys."""
    found = grafana.sources() if sources.addresses(settings) else []
    folder = sync.find_folder(grafana, settings.folder)
    made = sources.plan(settings, folder.uid, settings.folder, found)
    backwards = {uid: kind for kind, uid in made.uids.items()}
    plain: Json = boards.ordered_like(boards.adapted(boards.plain(live), backwards), model)
    began = {each.get("name"): each for each in model.get("templating", {}).get("list", [])}
    for variable in plain.get("templating", {}).get("list", []):
        current = variable.get("current") or {}
        ours = variable.get("type") == "datasource" and current.get("value") in backwards
        if ours and "current" not in began.get(variable.get("name"), {}):
            del variable["current"]  # as a sync has put it there
    return plain
