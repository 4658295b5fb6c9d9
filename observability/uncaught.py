"""What nobody caught goes to the log: exceptions of the main thread, of threads, of finalizers, and of greenlets."""

import sys
import threading
from types import TracebackType
from typing import Any

from observability.events import write


def take_over_hooks() -> None:
    """Log what nobody caught; a hook that was somebody's (an error tracker's, say) still runs afterwards."""
    previous = sys.excepthook, threading.excepthook, sys.unraisablehook

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        write("critical", "python", "uncaught exception", {}, (kind, error, trace))
        if previous[0] is not sys.__excepthook__:
            previous[0](kind, error, trace)

    def uncaught_in_thread(args: Any) -> None:
        if args.exc_type is not SystemExit:
            name = getattr(args.thread, "name", "")
            write("error", "python", "uncaught exception in a thread", {"thread.name": name}, args.exc_value)
        if previous[1] is not threading.__excepthook__:
            previous[1](args)

    def unraisable(args: Any) -> None:
        fields = {"object": args.object} if args.object is not None else {}
        write("error", "python", args.err_msg or "exception ignored", fields, args.exc_value)
        if previous[2] is not sys.__unraisablehook__:
            previous[2](args)

    if not hasattr(sys.excepthook, "is_sightline"):
        uncaught.is_sightline = True  # type: ignore[attr-defined]
        sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, uncaught_in_thread, unraisable


def watch_gevent() -> None:
    """Let gevent's hub write what fails in greenlets to the log."""
    import gevent.hub

    def print_exception(_hub: Any, where: object, _kind: Any, error: Any, _trace: Any) -> None:
        write("error", "gevent", "uncaught exception in a greenlet", {"greenlet": where}, error)

    gevent.hub.Hub.print_exception = print_exception
