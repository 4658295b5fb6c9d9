"""Runs what is to be proven, some at a time, and keeps each result at once."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.prove.stack import STOPPED, Stopped

Say = Callable[[str], None]
Result = dict[str, Any]
Keep = Callable[[Result], list[str]]


@dataclass(frozen=True)
class Task:
    """One thing to run.

    Args:
        name: how its progress is called.
        run: takes a function that shows the progress, and returns the result.
        keep: keeps the result, and says what was not as it should be.
        alone: whether nothing else may run meanwhile.
    """

    name: str
    run: Callable[[Say], Result]
    keep: Keep
    alone: bool = False


def say(name: str, text: str) -> None:
    """Show progress."""
    print(f"{time.strftime('%H:%M:%S')}  {name}: {text}", file=sys.stderr, flush=True)


def _run(task: Task, lock: threading.Lock) -> bool:
    """Run a task, keep its result at once, and say whether it was as it should be."""
    say(task.name, "starts")
    try:
        found = task.run(partial(say, task.name))
    except Stopped:
        return False
    except BaseException as error:  # a test's tools fail with a BaseException of pytest's
        traceback.print_exc()
        say(task.name, f"FAILED: {type(error).__name__}")
        return False
    with lock:
        wrong = task.keep(found)
    say(task.name, f"{'FAILED: ' + '; '.join(wrong) if wrong else 'ok'}, after {found['seconds']:.0f} s")
    return not wrong


def run(wanted: Iterable[Task], jobs: int) -> bool:
    """Run all, some at a time, and those that stand alone in the end."""
    wanted, lock = list(wanted), threading.Lock()
    together = [task for task in wanted if not task.alone]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            ended = list(pool.map(lambda task: STOPPED.is_set() or _run(task, lock), together))
        except KeyboardInterrupt:
            STOPPED.set()  # leaving the block waits for what runs
            raise
    return all([*ended, *[_run(task, lock) for task in wanted if task.alone]])
