"""`python -m observability tuner serve`: the loop in one thread, the web server in another, and one tuner at a time."""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server
from typing import Any

from gevent import socket

from observability import logs, serving, store
from observability.settings import Settings as LogSettings
from observability.settings import SettingsError, load, shown
from observability.tuning import onlooker
from observability.tuning.action import Control
from observability.tuning.loop import Loop
from observability.tuning.memory import Memory
from observability.tuning.model import Mode
from observability.tuning.prometheus import Prometheus
from observability.tuning.reader import Reader
from observability.tuning.server import create_tuner_app
from observability.tuning.settings import Settings, beside_kubernetes, load_tuner
from observability.tuning.tally import Tally
from observability.tuning.voice import LOGGER, Voice
from observability.tuning.webhook import Inbox, Token

_RETRY_SECONDS = 1.0
_BEAT_SECONDS = 120.0  # a round may ask many servers, each for a while; nothing in it may take longer than this
_END_SECONDS = 5.0
_LOOKS = 12  # at an agent within a window
_USUAL_AGENT = "http://127.0.0.1:9101"


class Tuner:
    """One tuner: it stands by until the directory is its own, then it goes round until it is told to stop.

    Args:
        settings: what people chose.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self.memory = Memory(settings.directory, self._state)
        self.voice = Voice(self.memory, self.tally, settings.poll_seconds)
        self.wake = threading.Event()
        self.inbox = Inbox(self.memory, self.wake.set)
        self.loop: Loop | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tuner", daemon=True)

    def _state(self, reason: str) -> None:
        if reason:
            self.voice.trouble("state", reason)
        else:
            self.voice.over("state")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is under way, which is given a moment."""
        self._stopping.set()
        if self.loop is not None:
            self.loop.stop()
        self._thread.join(_END_SECONDS)

    def live(self) -> tuple[bool, str]:
        """Tell whether the loop still goes round."""
        if not self._thread.is_alive():
            return False, "the loop has ended"
        if self.loop is None:
            return True, "stands by"
        still = time.monotonic() - self.loop.beat
        return still < _BEAT_SECONDS, f"the loop moved {still:.0f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Tell whether a notification would be heeded."""
        if self.loop is None:
            return False, "stands by: another tuner is active in TUNER_DIR"
        if not self.loop.rounds:
            return False, "has not looked yet"
        return True, f"{self.loop.fresh} servers with fresh signals"

    def _run(self) -> None:
        lock = self._own()
        if lock is None:
            return
        try:
            if problem := self.memory.load():
                self.voice.trouble("state", f"{self.memory.path} was unreadable and is set aside: {problem}")
                self.voice.over("state")
            with _reader(self.settings) as reader:
                self.loop = self._make_loop(reader)
                if not self._stopping.is_set():
                    self.loop.run()
        except Exception:
            self.voice.ended()
        finally:
            os.close(lock)

    def _own(self) -> int | None:
        """Wait until no other tuner is active in the directory; None if this one is to stop first."""
        path = self.settings.directory / "lock"
        while not self._stopping.is_set():
            try:
                return _locked(path)
            except BlockingIOError:
                self.voice.once("standby", str(path), "another tuner is active: this one stands by")
            except OSError as error:
                self.voice.trouble("state", f"{path}: {error.strerror}")
            self._stopping.wait(_RETRY_SECONDS)
        return None

    def _make_loop(self, reader: Reader) -> Loop:
        settings, kubernetes = self.settings, beside_kubernetes()
        mode = Mode(settings.mode)
        if kubernetes:
            self.voice.note("beside Kubernetes the tuner advises on settings within a replica, and applies nothing")
            mode = Mode.RECOMMEND if mode is Mode.APPLY else mode
        self.voice.over("state")
        self.voice.note("the tuner is active", mode=mode.value)
        hand = None
        if mode is Mode.APPLY and settings.control_token_file is not None:
            hand = Control(settings.agent_url, settings.control_token_file)
        memory, voice, inbox, wake = self.memory, self.voice, self.inbox, self.wake
        return Loop(settings, mode, reader, hand, memory, voice, inbox, wake, within_replica=kubernetes)


@contextmanager
def _reader(settings: Settings) -> Iterator[Reader]:
    """Give what reads signals: of Prometheus, or of one agent that is watched meanwhile."""
    window, idle = settings.window_seconds, settings.idle_seconds
    if settings.prometheus_url:
        yield Prometheus(settings.prometheus_url, settings.job, window, idle=idle)
        return
    interval = min(onlooker.INTERVAL_SECONDS, window / _LOOKS)
    agent = settings.agent_url or _USUAL_AGENT
    with onlooker.Onlooker(agent, window, interval, idle=idle).watching() as watching:
        yield watching


def _locked(path: Path) -> int:
    """Take the lock, which the kernel gives back however this process ends.

    Raises:
        BlockingIOError: another one has it.
        OSError: the directory cannot be used.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def run() -> int:
    """Serve until TERM or an interrupt; a setting that makes no sense, or a port that is taken, is one line."""
    try:
        settings, logging = load_tuner(), load(LogSettings)
    except SettingsError as error:
        sys.exit(str(error))
    store.STORE.claims_lazily = False  # the tuner is no worker
    listener = _listen(settings)
    logs.configure(logging)
    logs.bind_process(role="tuner")
    logs.get_logger(LOGGER).info("settings", **dict(shown(settings)))
    tuner = Tuner(settings)
    tuner.start()
    host, port = listener.getsockname()[:2]
    logs.get_logger(LOGGER).info("tuner listens", address=f"http://{host}:{port}")
    app = create_tuner_app(
        tuner.inbox,
        Token(settings.webhook_token_file),
        tuner.memory,
        tuner.tally,
        tuner.voice,
        tuner.live,
        tuner.ready,
    )
    with suppress(KeyboardInterrupt):
        serving.serve(listener, app, LOGGER)
    tuner.stop()
    return 0


def _listen(settings: Settings) -> Any:
    family = AF_INET6 if ":" in settings.host else AF_INET
    try:
        made = create_server((settings.host, settings.port), family=family, backlog=serving.MAX_CONNECTIONS)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # Python adds the address
        sys.exit(f"TUNER_PORT is {settings.port} on {settings.host}, which cannot be listened on: {reason}")
    return socket.socket(fileno=made.detach())
