"""One worker more or less, by signal to the master, and only where that is safe: `POST /workers`.

It is compare and set: who asks says how many workers he believes are wanted, and whoever is wrong changes nothing. So
two who ask at once cannot do it twice, and nothing is lost by asking again. docs/control.md tells what it answers.
"""

import functools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import gevent
import msgspec
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from observability import catalogue, logs, serving, slots
from observability.agent import check_config
from observability.agent.guard import Guard
from observability.agent.refused import Refused
from observability.agent.view import View
from observability.probes import process, sockets

MOST_WORKERS = slots.MAX_SLOTS // 2  # in a reload the new ones live beside the old ones
RELOAD_SECONDS = 10.0  # after a reload was seen
SETTLE_SECONDS = 60.0  # after which a change that has not come to its end is no reason any more to refuse another one
TAKEN_SECONDS = 3.0  # in which the master is to take a signal
_LOOK_SECONDS = 0.02
_MOST_BYTES = 1024
_log = logs.get_logger("observability.agent")


class Change(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is asked for.

    Args:
        change: 1 for one worker more, -1 for one less.
        expected: workers that are wanted now, as the one who asks believes.
    """

    change: Literal[1, -1]
    expected: Annotated[int, msgspec.Meta(ge=0, le=slots.MAX_SLOTS)]

    @property
    def target(self) -> int:
        """How many workers are to be wanted then."""
        return self.expected + self.change


@dataclass(frozen=True)
class Seen:
    """The server at the moment of a request.

    Args:
        target: workers that the master wants; None where it does not say.
        live: workers that live.
        booted: of those, the ones that have loaded the app.
        masters: live masters.
        stopping: what shows that the master is on its way down, or stands still.
        reloaded: seconds since a reload was seen.
        changing: the target of a change that has not settled.
        preload: whether the master has loaded the app.
    """

    target: int | None
    live: int
    booted: int
    masters: int = 1
    stopping: str = ""
    reloaded: float = inf
    changing: int | None = None
    preload: bool = False


# What stands in the way of a change, by the word that the answer says; the first that applies.
_OBSTACLES: tuple[tuple[str, Callable[[Seen, Change], bool], str], ...] = (
    ("unseen", lambda seen, _: not seen.masters or seen.target is None, "the master says nothing of its workers"),
    ("upgrading", lambda seen, _: seen.masters > 1, "two masters run: an upgrade is under way"),
    ("stopping", lambda seen, _: bool(seen.stopping), "the master {seen.stopping}"),
    ("target", lambda seen, change: seen.target != change.expected, "{seen.target} workers are wanted, not {expected}"),
    ("reloading", lambda seen, _: seen.reloaded < RELOAD_SECONDS, "the server was reloaded {seen.reloaded:.0f} s ago"),
    ("unsettled", lambda seen, _: seen.changing is not None, "a change to {seen.changing} workers has not settled"),
    ("unsettled", lambda seen, _: seen.live != seen.target, "{seen.live} workers live, {seen.target} are wanted"),
    ("unsettled", lambda seen, _: seen.booted != seen.live, "{seen.booted} of {seen.live} workers have booted"),
    ("limit", lambda _, change: not 1 <= change.target <= MOST_WORKERS, "there are 1 to {most} workers"),
)


def obstacle(seen: Seen, change: Change) -> Refused | None:
    """Return what stands in the way of a change; None where nothing does."""
    for error, applies, detail in _OBSTACLES:
        if applies(seen, change):
            sentence = detail.format(seen=seen, expected=change.expected, most=MOST_WORKERS)
            return Refused(409, error, sentence, target=seen.target, live=seen.live)
    return None


class Control:
    """The hand on one master.

    Args:
        view: the server; its master is this process's parent.
        token_file: who may.
    """

    def __init__(self, view: View, token_file: Path) -> None:
        self.view = view
        self.guard = Guard(token_file)
        self.changes = 0
        self._started = _stat(view.master)[1]
        self._listens = bool(self._listeners())
        self._busy = False
        self._changing: tuple[int, float] | None = None  # a change's target, and until when it may take
        self._reloads = 0.0
        self._reloaded = -inf

    def state(self) -> dict[str, int]:
        """Return what `/state` says of it."""
        return {"changes": self.changes, "unauthorized": self.guard.unauthorized}

    def look(self) -> Seen:
        """See how the server is; call it now and then, since a reload is known by the time at which it was seen."""
        page, readings, workers = self.view.look()
        forked = [worker for worker in workers if worker.reading.forked]
        target, now = page.value(catalogue.WORKERS, "target"), time.monotonic()
        live, booted = len(forked), sum(worker.booted for worker in forked)
        masters = [reading for reading in readings if reading.role == "master" and reading.live]
        reloads = page.value(catalogue.RELOADS) or 0.0
        if reloads != self._reloads:
            self._reloads, self._reloaded = reloads, now
        if self._changing and ({target, live, booted} == {self._changing[0]} or now >= self._changing[1]):
            self._changing = None
        return Seen(
            target=None if target is None else int(target),
            live=live,
            booted=booted,
            masters=len(masters),
            stopping=self._stopping(),
            reloaded=now - self._reloaded,
            changing=self._changing[0] if self._changing else None,
            preload=any(reading.note.get("preload", False) for reading in masters),
        )

    def change(self, change: Change, address: str, admit: Callable[[], None]) -> int:
        """Make a change, and return how many workers are wanted now.

        Args:
            change: what is asked for.
            address: who asks, for the log.
            admit: refuses whoever may not; asked once more where much time has passed, since the token may have gone.

        Raises:
            Refused: nothing was done; or, as `unconfirmed`, the master has not yet taken what it was told.
        """
        if self._busy:
            raise Refused(409, "busy", "another change is being made")
        self._busy = True
        try:
            seen = self._refuse_unless_safe(change)
            # One less boots nothing, and must go also where there is no memory for a check.
            if change.change > 0 and not seen.preload:
                self._refuse_unless_bootable(address)
                self._refuse_unless_safe(change)  # that took its time
                admit()
            return self._signal(change, address)
        finally:
            self._busy = False

    def _refuse_unless_safe(self, change: Change) -> Seen:
        seen = self.look()
        if refused := obstacle(seen, change):
            raise refused
        return seen

    def _refuse_unless_bootable(self, address: str) -> None:
        """Check what is on disk, in a thread of its own: all others are answered meanwhile."""
        try:
            reason = gevent.get_hub().threadpool.apply(check_config.check, (self.view.master,))
        except check_config.UncheckedError as error:
            raise Refused(422, "unchecked", f"what a new worker would run cannot be checked: {error}") from None
        if reason:
            _log.warning("no worker is added, since it could not boot", reason=reason, **{"client.address": address})
            raise Refused(422, "broken", f"what is on disk does not boot: {reason}")

    def _signal(self, change: Change, address: str) -> int:
        if not self._is_ours():
            raise Refused(409, "stopping", "the master is gone")
        number = signal.SIGTTIN if change.change > 0 else signal.SIGTTOU
        os.kill(self.view.master, number)
        self._changing = change.target, time.monotonic() + SETTLE_SECONDS
        self.changes += 1
        taken = self._wait_for(change.target)
        told = {"client.address": address, "workers_before": change.expected, "workers_after": change.target}
        _log.info("workers changed" if taken else "a change of workers is not taken yet", signal=number.name, **told)
        if not taken:
            raise Refused(504, "unconfirmed", f"the master was told, and does not want {change.target} workers yet")
        return change.target

    def _wait_for(self, target: int) -> bool:
        """Wait until the master wants so many workers, and tell whether it does: from then on all see it."""
        deadline = time.monotonic() + TAKEN_SECONDS
        while self.view.look()[0].value(catalogue.WORKERS, "target") != target:
            if time.monotonic() >= deadline:
                return False
            gevent.sleep(_LOOK_SECONDS)
        return True

    def _is_ours(self) -> bool:
        """Tell whether the master's pid is still the master's: to another process the signal would be fatal."""
        return os.getppid() == self.view.master and _stat(self.view.master)[1] == self._started

    def _stopping(self) -> str:
        """Return what shows that the master does not listen to us: first of all it closes its sockets as it stops."""
        if not self._is_ours():
            return "is gone"
        if _stat(self.view.master)[0] in "Tt":
            return "is stopped by a signal"
        return "has closed its sockets: it is stopping" if self._listens and not self._listeners() else ""

    def _listeners(self) -> list[sockets.Listener]:
        """Return the sockets that the master listens on; none with reuse_port, where each worker has its own."""
        own = sockets.inodes_of(os.getpid())  # the agent's, which the master holds too
        return sockets.listeners(sockets.inodes_of(self.view.master) - own)


def _stat(pid: int) -> tuple[str, str]:
    """Return a process's state, and when it was started (proc(5)): empty where there is none."""
    try:
        fields = process.content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return "", ""
    return fields[0].decode(), fields[19].decode()


def install(app: Flask, control: Control) -> None:
    """Add the route to the agent's interface."""

    @app.post("/workers")
    def workers() -> Response:
        address = request.remote_addr or ""
        admit = functools.partial(control.guard.admit, address, request.headers.get("Authorization", ""))
        try:
            admit()
            change = _read()
            request.environ[serving.CONNECTION].cancel()  # each wait from here on has an end of its own, and later
            return _answer(200, {"target": control.change(change, address, admit)})
        except Refused as refused:
            return _answer(refused.status, refused.body)


def _read() -> Change:
    """Read the request's body.

    Raises:
        Refused: it is none, or too long.
    """
    if request.mimetype != "application/json":
        raise Refused(415, "malformed", "it takes application/json")
    request.max_content_length = _MOST_BYTES
    try:
        data = request.get_data(cache=False)
        if len(data) >= _MOST_BYTES:  # what comes in chunks is cut there
            raise RequestEntityTooLarge
        return msgspec.json.decode(data, type=Change)
    except HTTPException as error:
        raise Refused(error.code or 400, "malformed", f"the body: {error.description}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError, OSError) as error:  # OSError: it was not sent to its end
        raise Refused(400, "malformed", str(error)) from None


def _answer(status: int, body: dict[str, Any]) -> Response:
    answer = jsonify(body)
    answer.status_code = status
    answer.headers["Connection"] = "close"  # the time limit of this one may be gone
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if status == 429:
        answer.headers["Retry-After"] = str(int(body["seconds"]) + 1)
    return answer
