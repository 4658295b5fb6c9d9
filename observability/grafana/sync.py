"""`grafana sync`: the folder, the data sources and the dashboards, brought into a Grafana.

What was last synced is written into the message of the dashboard's version, which every save makes anew: so a dashboard
whose newest version has our message is as we left it, and one that has another was changed by somebody. That holds
whatever Grafana makes of the JSON itself, which it completes and migrates to newer schemas; a hash inside the dashboard
would have to be compared with that, would be seen by people as a tag, or would be lost as an unknown field.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

from observability.grafana import boards, sources
from observability.grafana.boards import Board
from observability.grafana.client import Grafana
from observability.grafana.errors import GrafanaError
from observability.grafana.plan import ACTIONS, CREATE, KEEP, REMOVE, UNCHANGED, UPDATE, USE, Step, summary
from observability.grafana.settings import Settings
from observability.grafana.sources import Sources

Json = dict[str, Any]
KIND = "dashboard"
_MESSAGE = "Synced by Sightline, "
_OURS = re.compile(rf"^{_MESSAGE}([0-9a-f]{{32}})$")
_CONFLICTS = (409, 412)  # somebody else was quicker: of data sources and folders, of dashboards
_ATTEMPTS = 3


def run(grafana: Grafana, settings: Settings, *, dry_run: bool, force: bool) -> int:
    """Print the plan, carry it out, and say what became of it; return 1 if a part of it failed."""
    sync = Sync(grafana, settings, force=force)
    steps = sync.plan()
    print(f"Grafana {grafana.version} at {grafana.url}, {len(steps)} steps:")
    print("\n".join(f"  {step}" for step in steps))
    if dry_run:
        print(f"Nothing was done; it would be: {summary(steps)}.")
        return 0
    done, failed = [], 0
    for step in steps:
        try:
            done.append(sync.carry_out(step))
        except GrafanaError as error:
            if error.ends_all:
                print(f"Until then: {summary(done)}.", flush=True)
                raise
            failed += 1
            print(error, file=sys.stderr)
    print(f"Done: {summary(done)}" + (f", {failed} failed." if failed else "."))
    return 1 if failed else 0


class Sync:
    """One sync.

    Args:
        grafana: where to.
        settings: the folder, the addresses, and the directory of the dashboards.
        force: whether what others changed is overwritten.
    """

    def __init__(self, grafana: Grafana, settings: Settings, *, force: bool) -> None:
        self.grafana, self.settings, self.force = grafana, settings, force
        self.boards = {board.uid: board for board in boards.load(settings.dashboards)}
        self.folder = ""
        self.sources = Sources("")
        self.wanted: dict[str, Json] = {}

    def plan(self) -> list[Step]:
        """Look at what is there, and say what is to be done; the order is that of doing it."""
        folder = find_folder(self.grafana, self.settings.folder)
        self.folder = folder.uid
        found = self.grafana.sources() if sources.addresses(self.settings) else []
        self.sources = sources.plan(self.settings, self.folder, self.settings.folder, found, force=self.force)
        names = source_names(self.sources, found)
        self.wanted = {
            uid: boards.chosen(boards.adapted(boards.plain(board.model), self.sources.uids), names)
            for uid, board in self.boards.items()
        }
        there = (
            [] if folder.action == CREATE else [str(each["uid"]) for each in self.grafana.dashboards_in(self.folder)]
        )
        left = [step for uid in sorted(set(there) - self.boards.keys()) for step in self._left_over(uid)]
        last = [step for step in self.sources.steps if step.action == REMOVE]
        first = [step for step in self.sources.steps if step.action != REMOVE]
        return [folder, *first, *map(self._board, self.boards.values()), *left, *last]

    def _board(self, board: Board) -> Step:
        there = self.grafana.dashboard(board.uid)
        if there is None:
            return Step(CREATE, KIND, board.uid, board.title)
        if there.get("meta", {}).get("provisioned"):
            return Step(KEEP, KIND, board.uid, board.title, "provisioned from a file there, which wins")
        versions = self.grafana.versions(board.uid)
        synced = _synced(versions[:1])
        if synced == boards.digest(self.wanted[board.uid]):
            return Step(UNCHANGED, KIND, board.uid, board.title)
        if synced or self.force:
            return Step(UPDATE, KIND, board.uid, board.title, "" if synced else f"overwrites: {_who(versions)}")
        return Step(KEEP, KIND, board.uid, board.title, f"{_who(versions)}; --force overwrites it")

    def _left_over(self, uid: str) -> list[Step]:
        """Say what to do with a dashboard of the folder that is not among ours: nothing, unless a sync made it."""
        there = self.grafana.dashboard(uid)
        versions = self.grafana.versions(uid) if there else []
        if there is None or not _synced(versions):
            return []
        title = str(there["dashboard"].get("title"))
        if _synced(versions[:1]) or self.force:
            return [Step(REMOVE, KIND, uid, title)]
        return [Step(KEEP, KIND, uid, title, f"{_who(versions)}; --force removes it")]

    def carry_out(self, step: Step) -> Step:
        """Do one step; return it, or what it turned into since somebody else was at it meanwhile.

        Raises:
            GrafanaError: Grafana refused it.
        """
        if step.action not in ACTIONS:
            return step
        if step.kind == "folder":
            return self._make_folder(step)
        if step.action == REMOVE:
            return self._remove_source(step) if step.kind == sources.KIND else self._remove_board(step)
        return _saved(step, self._source_to_save if step.kind == sources.KIND else self._board_to_save)

    def _make_folder(self, step: Step) -> Step:
        try:
            self.grafana.create_folder(step.title, step.uid)
        except GrafanaError as error:
            if error.status not in _CONFLICTS:
                raise
            there = find_folder(self.grafana, self.settings.folder)
            if (there.action, there.uid) != (USE, step.uid):  # all else was planned with that uid
                raise
            return _said(there)
        return step

    def _source_to_save(self, uid: str) -> tuple[Step, Callable[[], None]]:
        there = self.grafana.source(uid)
        return sources.judged(self.sources, uid, there, force=self.force), lambda: self._save_source(uid, there)

    def _save_source(self, uid: str, there: Json | None) -> None:
        body = self.sources.bodies[uid]
        if there is None:
            self.grafana.create_source(body)
        else:
            self.grafana.update_source(body | {"version": there["version"]})

    def _remove_source(self, step: Step) -> Step:
        there = self.grafana.source(step.uid)  # the API removes whatever is there: so look as late as can be
        if there is None:
            return step  # it is gone already
        judged = sources.removal(there, force=self.force)
        if judged.action != REMOVE:
            return _said(judged)
        self.grafana.remove_source(step.uid)
        return judged

    def _board_to_save(self, uid: str) -> tuple[Step, Callable[[], None]]:
        there = self.grafana.dashboard(uid)
        judged = self._board(self.boards[uid])  # after it was read: whoever saves later is noticed by Grafana
        return judged, lambda: self._save_board(uid, there)

    def _save_board(self, uid: str, there: Json | None) -> None:
        wanted = self.wanted[uid]
        model: Json = {**wanted, "id": None}
        folder = self.folder
        if there is not None:
            model |= {"id": there["dashboard"]["id"], "version": there["dashboard"]["version"]}
            folder = str(there.get("meta", {}).get("folderUid", folder))  # where people have put it
        self.grafana.save(model, folder, _MESSAGE + boards.digest(wanted))

    def _remove_board(self, step: Step) -> Step:
        for judged in self._left_over(step.uid):  # the API removes whatever is there: so look as late as can be
            if judged.action != REMOVE:
                return _said(judged)
            self.grafana.remove_dashboard(step.uid)
            return judged
        return step  # it is gone already


def _saved(step: Step, look: Callable[[str], tuple[Step, Callable[[], None]]]) -> Step:
    """Save over the version that was judged; where that is the newest no longer, judge anew.

    Args:
        step: what was planned.
        look: judges what there is under a uid now, and gives what saves over that.
    """
    for attempt in range(_ATTEMPTS):
        judged, save = look(step.uid)
        if judged.action != step.action:
            _said(judged)
        if judged.action not in ACTIONS:
            return judged
        try:
            save()
        except GrafanaError as error:
            conflict = error.status in _CONFLICTS and error.body.get("status") != "plugin-dashboard"
            if not conflict or attempt == _ATTEMPTS - 1:
                raise
        else:
            return judged
    raise AssertionError("the last attempt either returns or raises")


def _said(judged: Step) -> Step:
    """Print what a step has turned into."""
    print(f"  {judged}", flush=True)
    return judged


def find_folder(grafana: Grafana, title: str) -> Step:
    """Find the folder, by the uid that a sync gives it, since people may have renamed it, or by its title."""
    uid = "sightline" if title == "Sightline" else f"sightline-{boards.digest(title)[:8]}"
    found = grafana.folders()
    by_uid, by_title = (
        [each for each in found if each.get(key) == wanted] for key, wanted in (("uid", uid), ("title", title))
    )
    for there in by_uid + by_title:
        return Step(USE, "folder", str(there["uid"]), str(there.get("title")))
    return Step(CREATE, "folder", uid, title)


def source_names(made: Sources, found: list[Json]) -> dict[str, tuple[str, str]]:
    """Return name and uid of each type's data source."""
    names = {str(each["uid"]): str(each.get("name")) for each in found}
    names |= {uid: str(body["name"]) for uid, body in made.bodies.items()}
    return {kind: (names[uid], uid) for kind, uid in made.uids.items()}


def _synced(versions: list[Json]) -> str:
    """Return what the newest of the versions that a sync made says that it saved, or nothing."""
    for each in versions:
        if ours := _OURS.match(str(each.get("message", ""))):
            return ours[1]
    return ""


def _who(versions: list[Json]) -> str:
    if not versions:
        return "not made by a sync"
    newest = versions[0]
    verb = "changed there" if _synced(versions) else "made there"
    return f"{verb} by {newest.get('createdBy') or 'somebody'}, version {newest['version']}"
