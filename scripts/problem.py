"""What stops a command, said to the person who gave it."""

import os
import sys
from collections.abc import Callable


class Problem(Exception):
    """What is wrong, and what to do about it; the first line says it all."""


def report(command: Callable[[], int | None]) -> int:
    """Run a command, and return its exit status; a problem is printed, not raised."""
    try:
        return command() or 0
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
