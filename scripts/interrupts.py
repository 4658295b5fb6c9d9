"""Ctrl-C, a closed terminal and TERM are one: KeyboardInterrupt, but never in the middle of a step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(*_: object) -> None:
    """Raise, but once: make passes on what the terminal has sent to all already, and that must not cut short what
    is being cleaned up by then."""
    for each in SIGNALS:
        signal.signal(each, lambda *_: None)
    raise KeyboardInterrupt


def install() -> None:
    """Make the first of the signals raise KeyboardInterrupt, and the others after it nothing."""
    for each in SIGNALS:
        signal.signal(each, _interrupt)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold the signals back until the block has ended; then raise KeyboardInterrupt if one came."""
    pending: list[int] = []
    before = {each: signal.signal(each, lambda signum, _: pending.append(signum)) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if pending:
        _interrupt()
