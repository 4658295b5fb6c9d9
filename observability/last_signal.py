"""A last word before a signal ends the process, for worker classes that run none of gunicorn's exit hooks.

uvicorn's worker gives its signals back to the system, and then takes TERM and INT for itself. When it has drained, it
restores the handler that it found and raises the signal once more, so that the parent sees what ended it: the handler
that stands here by then runs last, when no request is left. https://github.com/Kludex/uvicorn/pull/1600
"""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def before(act: Callable[[], object]) -> None:
    """Call `act` before a signal ends this process, where nothing else would: call it when the worker is set up.

    Worker classes with handlers of their own keep them.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(Exception):
            act()
        os.kill(os.getpid(), number)

    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
