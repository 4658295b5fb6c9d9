"""Who may change the server: whoever knows the token that stands in a file.

The file is read at each request, so that a new token holds at once, and no file means that there is no control.
"""

import hmac
import os
import stat
import time
from pathlib import Path

from observability import logs
from observability.agent.refused import Refused

LEAST_BYTES, MOST_BYTES = 16, 4096  # of a token
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 10.0  # seconds that an address is not listened to after a wrong token
_MOST_ADDRESSES = 1024
_REPEAT_SECONDS = 10.0
_log = logs.get_logger("observability.agent")


class Guard:
    """Tells the right token from others, slowly where others were tried.

    Args:
        path: the file with the token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unauthorized = 0
        self._waits: dict[str, tuple[float, float]] = {}  # by address: until when, and how long that is
        self._logged: dict[str, float] = {}

    def admit(self, address: str, authorization: str) -> None:
        """Let a request pass that bears the token.

        Raises:
            Refused: it does not; or there is no token, or none that can be read.
        """
        token = self._token()
        until, wait = self._waits.get(address, (0.0, 0.0))
        if (left := until - time.monotonic()) > 0:
            self.unauthorized += 1
            raise Refused(429, "wait", f"wrong tokens came from {address}: ask again in {left:.0f} s", seconds=left)
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token)
        if right and scheme.lower() == "bearer":
            self._waits.pop(address, None)
            return
        self._let_wait(address, min(_LONGEST_WAIT, wait * 2 or _FIRST_WAIT))
        raise Refused(401, "unauthorized", "the header Authorization takes Bearer and the token")

    def _let_wait(self, address: str, seconds: float) -> None:
        self.unauthorized += 1
        if len(self._waits) >= _MOST_ADDRESSES:
            self._waits.pop(min(self._waits, key=self._waits.__getitem__))
        self._waits[address] = time.monotonic() + seconds, seconds
        self._warn("a change of workers was asked for without the right token", address)

    def _token(self) -> bytes:
        try:
            found = self._read()
        except FileNotFoundError:
            raise Refused(404, "off", "there is no token file, so nobody changes workers here") from None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        if not LEAST_BYTES <= len(found) <= MOST_BYTES:
            raise self._unusable(f"it takes a token of {LEAST_BYTES} to {MOST_BYTES} bytes")
        return found

    def _read(self) -> bytes:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer must not hold us
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise OSError(0, "it is no regular file")
            if mode & stat.S_IROTH and "open" not in self._logged:
                self._logged["open"] = time.monotonic()  # told once
                _log.warning("anybody on this machine may read the control token", file=str(self.path))
            return os.read(fd, MOST_BYTES + 1).strip()
        finally:
            os.close(fd)

    def _unusable(self, reason: str) -> Refused:
        self._warn(f"the control token cannot be used: {reason}")
        return Refused(503, "no_token", f"the agent cannot use its token file: {reason}")

    def _warn(self, message: str, address: str = "") -> None:
        """Log a warning, the same at most every few seconds: whoever asks must not fill the log."""
        now = time.monotonic()
        if now - self._logged.get(message, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._logged[message] = now
            more = {"client.address": address, "refused_so_far": self.unauthorized} if address else {}
            _log.warning(message, file=str(self.path), **more)
