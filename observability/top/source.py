"""Where states come from: the agent, or a state directory that is read without it, also after the server's death."""

import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests

from observability import previous, stacks
from observability.agent.view import View
from observability.settings import Settings
from observability.top import state
from observability.top.state import State

_CONNECT_SECONDS, _ANSWER_SECONDS, _STACK_SECONDS = 1.0, 5.0, 8.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what the agent listens on, and where that answers


class UnreachableError(RuntimeError):
    """No answer, or none of an agent; the message is for a person."""


@dataclass(frozen=True)
class Snapshot:
    """One look at the server; without a state where there was nothing to see.

    Args:
        origin: where it was read.
        state: what was read.
        trouble: why it is not what was asked for.
        end: how the server ended, as far as its directory says.
        at: monotonic seconds.
    """

    origin: str
    state: State | None = None
    trouble: str = ""
    end: dict[str, Any] | None = None
    at: float = field(default_factory=time.monotonic)

    @property
    def alive(self) -> bool:
        """Whether a live server was seen."""
        return self.state is not None and self.state.alive


def agent_url(settings: Settings) -> str:
    """Return where the agent of these settings answers to this machine."""
    host = _EVERYWHERE.get(settings.agent_host, settings.agent_host)
    return f"http://[{host}]:{settings.agent_port}" if ":" in host else f"http://{host}:{settings.agent_port}"


def ask(url: str, answer_seconds: float = _ANSWER_SECONDS) -> requests.Response:
    """Ask an agent; a proxy stands between only where it is on another machine.

    Raises:
        UnreachableError: there is no answer.
    """
    with requests.Session() as session:
        session.trust_env = not _is_loopback(urlsplit(url).hostname or "")
        try:
            return session.get(url, timeout=(_CONNECT_SECONDS, answer_seconds), allow_redirects=False)
        except requests.Timeout:
            raise UnreachableError("no answer in time") from None
        except requests.ConnectionError:
            raise UnreachableError("nothing answers") from None
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(str(error)) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Source:
    """Looks at one server: through its agent, else through its directory.

    Args:
        url: the agent; empty to read the directory only.
        directory: the state directory on this machine; None where there is none to fall back to.
    """

    def __init__(self, url: str, directory: Path | None) -> None:
        self.url = url.rstrip("/")
        self.directory = directory
        self._view = View(directory) if directory is not None else None

    def poll(self) -> Snapshot:
        """Look once; whatever fails is said in the snapshot."""
        trouble = ""
        if self.url:
            try:
                return self._completed(Snapshot(self.url, self._ask_state()))
            except UnreachableError as error:
                trouble = f"{self.url}: {error}"
        if self._view is None or self.directory is None:
            return Snapshot(self.url, trouble=trouble)
        if not self.directory.is_dir():
            missing = f"{self.directory} is no directory"
            return Snapshot(self.url or str(self.directory), trouble="; ".join(filter(None, [trouble, missing])))
        return self._completed(self._read(self._view, trouble))

    def _ask_state(self) -> State:
        answer = ask(f"{self.url}/state?dead=1")
        if answer.status_code != requests.codes.ok:
            raise UnreachableError(f"answers {answer.status_code}, so it is no agent")
        try:
            return state.decode(answer.content)
        except msgspec.MsgspecError:
            raise UnreachableError("answers something else, so it is no agent") from None

    def _read(self, view: View, trouble: str) -> Snapshot:
        origin = str(self.directory)
        try:
            return Snapshot(origin, state.convert(view.state(dead=True)), trouble)
        except Exception as error:  # a directory that changes, or is damaged, while it is read
            return Snapshot(origin, trouble=f"{origin}: {error}")

    def _completed(self, snapshot: Snapshot) -> Snapshot:
        """Add how the server ended, if it did."""
        if snapshot.alive or self.directory is None:
            return snapshot
        return Snapshot(snapshot.origin, snapshot.state, snapshot.trouble, previous_end(self.directory), snapshot.at)

    def stack(self, slot: int) -> str:
        """Return where a worker's threads stand, or one line that says why that is not known; it may take seconds."""
        found, trouble = None, "the worker is gone, or does not take the signal that asks for one"
        try:
            if self.url:
                answer = ask(f"{self.url}/workers/{slot}/stack", _STACK_SECONDS)
                found = answer.text if answer.status_code == requests.codes.ok else None
            elif self.directory is not None:
                found = stacks.ask(self.directory, slot)
        except UnreachableError as error:
            trouble = f"{self.url}: {error}"
        except OSError as error:
            trouble = f"{self.directory}: {error}"
        return found or f"No stack: {trouble}."


def previous_end(directory: Path) -> dict[str, Any] | None:
    """Return how the server of a directory ended; None where nothing says so, or that cannot be read."""
    try:
        return previous.read(directory)
    except Exception:
        return None
