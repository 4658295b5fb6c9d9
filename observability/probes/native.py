"""The operating system's own threads and sleep, also where gevent has replaced Python's.

A thread of `threading` that starts under gevent is a greenlet, which stands still with the hub it should watch.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def original(module: str, name: str) -> Any:
    """Return what a standard module had under a name before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(importlib.import_module(module), name)


def start_thread(run: Callable[[], None]) -> None:
    """Run a function in a thread of its own, which ends with the process and is not waited for."""
    original("_thread", "start_new_thread")(run, ())
