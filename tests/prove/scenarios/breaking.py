"""An app whose start can be broken while it is served."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.prove.stack import Setup, Stack

APP: Final = "tests.prove.breakable_app:create_app()"


def arrange(setup: Setup, around: ExitStack) -> Path:
    """Tell the app which file breaks it."""
    path = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="sightline-prove-"))) / "broken"
    setup.env["BREAKS_THE_START"] = path
    return path


@contextmanager
def broken(stack: Stack, how: str) -> Iterator[None]:
    """Have workers that start meanwhile fail."""
    path: Path = stack.extra
    path.write_text(how)
    try:
        yield
    finally:
        path.unlink()
