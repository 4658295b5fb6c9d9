"""The first moment inside a process's asyncio loop, told to those who wait for one.

Some worker classes make their loop only when they run, after every server hook. What measures requests is the first of
ours to stand inside it, but lies below what watches it.
"""

from collections.abc import Callable

# Each is called once, inside the running loop, and may not raise.
on_first_loop: list[Callable[[], None]] = []


def entered() -> None:
    """Say that the caller runs inside the process's event loop; cheap, so that every request may say it."""
    while on_first_loop:
        on_first_loop.pop()()
