"""Standard output as a place for lines: each is written whole or not at all, and none waits for long.

No lock is held: one `write` of a line is one system call. To a pipe, a line of at most PIPE_BUF bytes is never torn
by other writers' lines (pipe(7)), so that is the most a line may have there.
"""

import os
import select
import stat
import sys
import time
from collections.abc import Callable

PIPE_BUF = 4096  # POSIX lets it be 512, but Linux has had 4096 for good
LONGEST = 32 * 1024
PATIENCE = 1.0
_PAUSE = 0.01


def _native_poll() -> Callable[[], "select.poll"]:
    """Return the operating system's poll, even where gevent has replaced it: a look at once needs no hub."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("select", "poll") if monkey else select.poll


def _occupy(fd: int) -> None:
    """Keep the number of a closed standard descriptor from the next file opened: what is printed would overwrite it.

    Writing to it fails as before, and is counted.
    """
    try:
        os.fstat(fd)
    except OSError:
        null = os.open(os.devnull, os.O_RDONLY)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)


class Output:
    """A file descriptor that takes lines.

    Args:
        fd: the descriptor; never changed, since other processes share what it stands for.
    """

    def __init__(self, fd: int = 1) -> None:
        self.fd = fd
        self._own = -1
        self.open()

    def open(self) -> None:
        """Look anew at what the descriptor is; needed after a dup2 onto it."""
        self._target = self.fd
        self._waits = self._blocked = self._torn = False
        self.longest = LONGEST
        for fd in (0, 1, 2):
            _occupy(fd)
        try:
            mode = os.fstat(self.fd).st_mode
        except OSError:
            return  # closed: every write will fail, and be counted
        if stat.S_ISFIFO(mode):
            self.longest = PIPE_BUF
            self._target = self._reopened()
        shared = self._target == self.fd  # then only a look beforehand tells whether a write would wait
        self._waits = shared and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self.isatty())

    def _reopened(self) -> int:
        """Open the pipe once more, non-blocking, which leaves the shared descriptor as it is.

        Return the descriptor itself where that is refused, such as to a user other than the pipe's owner.
        """
        try:
            fd = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return self.fd
        if self._own < 0:
            self._own = fd
        else:  # replaced in one step: a thread that writes now must not meet a number that is closed, or reused
            os.dup2(fd, self._own, inheritable=False)
            os.close(fd)
        return self._own

    def isatty(self) -> bool:
        """Tell whether people look at it."""
        return os.isatty(self.fd)

    def write(self, line: bytes) -> bool:
        """Write one line, its line feed included; False where it was given up.

        A full pipe is waited for as long as PATIENCE, cooperatively; from then on lines are given up at once, until
        it takes one again.
        """
        deadline = 0.0
        if self._torn:
            line = b"\n" + line
        while True:
            try:
                if self._waits and not self._ready():
                    raise BlockingIOError
                written = os.write(self._target, line)
                if written == len(line):
                    self._blocked = self._torn = False
                    return True
                self._torn = True
                line = line[written:]
            except BlockingIOError:
                pass
            except OSError:
                return False
            deadline = deadline or time.monotonic() + PATIENCE
            if self._blocked or not self._pause(deadline):
                self._blocked = True
                return False

    def _ready(self) -> bool:
        poll = _native_poll()()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _pause(self, deadline: float) -> bool:
        """Let others run; False where the time is over, or where this is gevent's hub, which may not wait."""
        if time.monotonic() >= deadline:
            return False
        try:
            time.sleep(_PAUSE)
        except Exception:  # gevent's BlockingSwitchOutError
            return False
        return True
