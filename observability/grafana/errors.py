"""What can go wrong on the way to Grafana, said in one line to the person who asked."""

import html
import re
import socket
from typing import Any

from observability.settings import MASK
from observability.top.cells import printable

LONGEST = 300
_QUOTA = re.compile(r"quota|limit (?:reached|exceeded)", re.IGNORECASE)
_MARKUP = re.compile(r"\s*<[^>]*>\s*|\s+")


class GrafanaError(Exception):
    """One line that says what is wrong, and what to do.

    Args:
        line: that line.
        status: Grafana's status; 0 where it gave none.
        body: what it answered, if that was JSON.
    """

    def __init__(self, line: str, status: int = 0, body: Any = None) -> None:
        super().__init__(line)
        self.status = status
        self.body = body if isinstance(body, dict) else {}

    @property
    def ends_all(self) -> bool:
        """Tell whether every other request would fail as well: no Grafana there, wrong token, overloaded."""
        return self.status in (0, 401, 429) or self.status >= 500


class UnavailableError(GrafanaError):
    """Nobody answers there, or not now: it may be otherwise later."""


def of_status(status: int, body: Any, url: str, what: str) -> GrafanaError:
    """Say an answer of 400 and above.

    Args:
        status: HTTP's.
        body: Grafana's JSON, or the text of whoever answered.
        url: Grafana's address, as it may be shown.
        what: what was asked for, as "save the dashboard x".
    """
    said = message(body)
    if status == 404 and not isinstance(body, dict):
        return GrafanaError(f"What answers at {url} is not Grafana, since it lacks its API; is GRAFANA_URL right?")
    if status == 401:
        return GrafanaError(f"Grafana at {url} refuses the token: {said}; is it complete, and not expired?", 401, body)
    if status in (403, 429) and _QUOTA.search(said):
        return GrafanaError(f"Cannot {what}: a quota of Grafana is used up: {said}", status, body)
    if status == 429:
        return UnavailableError(f"Grafana at {url} has had too many requests: {said}; try again later", 429, body)
    if status == 403:
        return GrafanaError(f"The token has no right to {what}: {said}; docs/grafana.md lists the rights", 403, body)
    if status >= 500:
        return UnavailableError(f"Grafana at {url} fails with {status} to {what}: {said}", status, body)
    return GrafanaError(f"Grafana refuses to {what}, with {status}: {said}", status, body)


def message(body: Any) -> str:
    """Return what an answer says to people, on one line that is safe to show."""
    if isinstance(body, dict):
        parts = [body.get(key) for key in ("message", "error", "status")]
        body = next((part for part in parts if isinstance(part, str) and part), "no reason given")
    text = _MARKUP.sub(" ", html.unescape(str(body))).strip()
    return printable(text[:LONGEST]).rstrip(" .") or "no reason given"


def of_connection(error: BaseException, url: str, seconds: float) -> GrafanaError:
    """Say why no answer came."""
    chain = list(_chain(error))
    if any("timeout" in type(each).__name__.lower() for each in chain):
        return UnavailableError(f"No answer from Grafana at {url} within {seconds:g} s")
    if any("redirect" in type(each).__name__.lower() for each in chain):
        return GrafanaError(f"{url} leads elsewhere: set GRAFANA_URL to the address that Grafana itself has")
    return UnavailableError(f"No Grafana at {url}: {_reason(chain)}")


def _reason(chain: list[BaseException]) -> str:
    for each in reversed(chain):
        if isinstance(each, socket.gaierror) or "NameResolution" in type(each).__name__:
            return "the host's name is not known"
        if isinstance(each, OSError) and each.strerror:
            return printable(each.strerror.lower())
    return printable(" ".join(str(chain[-1]).split())[:LONGEST])


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def without(secret: str, error: GrafanaError) -> GrafanaError:
    """Mask a secret, wherever a server or a library may have put it."""
    if secret and secret in error.args[0]:
        error.args = (error.args[0].replace(secret, MASK),)
    return error
