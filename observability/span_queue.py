"""Ended spans on their way out: a bounded queue that a thread, or under gevent a greenlet, empties.

A request only appends. What finds no room, cannot be exported, or is left at the end is counted as dropped, each span
exactly once.
"""

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from opentelemetry import context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from observability import catalogue, store
from observability.otlp import Sender
from observability.server_span import ServerSpan

BATCH = 512
INTERVAL = 5.0


def _count(outcome: str, spans: int) -> None:
    if spans:
        store.child(catalogue.SPANS, outcome).inc(spans)


class SpanQueue(SpanProcessor):
    """The queue of this process.

    Args:
        make_sender: called in the thread that uses what it makes, and anew after a fork.
        size: spans that may wait.
        interval: seconds that a span waits at most.
    """

    def __init__(self, make_sender: Callable[[], Sender], size: int, interval: float = INTERVAL) -> None:
        self._make_sender = make_sender
        self._size = size
        self._interval = interval
        self._reset()
        self._start()
        itself = weakref.ref(self)

        def begin_anew() -> None:
            queue = itself()
            if queue is not None:
                queue._reset()

        os.register_at_fork(after_in_child=begin_anew)

    def _reset(self) -> None:
        """Be new and empty: at first, and in a forked child, whose parent exports what waited then."""
        self._waiting: deque[ReadableSpan | ServerSpan] = deque()
        self._in_hand: deque[Sequence[ReadableSpan | ServerSpan]] = (
            deque()
        )  # the batch under way; who takes it out counts it
        self._wake = threading.Lock()  # as a signal: its release never waits, not even in a signal handler
        self._wake.acquire()
        self._done = threading.Event()
        self._stopping = self._closed = False
        self._thread: threading.Thread | None = None
        self._sender: Sender | None = None

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: spans wait, then are dropped and counted
            self._thread.start()

    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take an ended span."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.put(span)

    def put(self, span: ReadableSpan | ServerSpan) -> bool:
        """Take a span, and return whether there was room."""
        if self._closed or len(self._waiting) >= self._size:
            _count("dropped", 1)
            return False
        self._waiting.append(span)
        if self._thread is None:
            self._start()
        if self._closed:  # meanwhile
            self._drop_waiting()
        elif 2 * len(self._waiting) >= min(self._size, 2 * BATCH):
            self._nudge()
        return True

    def _nudge(self) -> None:
        if self._wake.locked():
            with contextlib.suppress(RuntimeError):  # another one nudged first
                self._wake.release()

    def _run(self) -> None:
        done = self._done  # a forked child replaces it
        try:
            with suppress_instrumentation():
                self._sender = self._make_sender()
                while not self._closed:
                    self._export_waiting()
                    if self._stopping and not self._waiting:
                        break
                    self._wake.acquire(timeout=self._interval)
        finally:
            done.set()

    def _export_waiting(self) -> None:
        while self._waiting and not self._closed:
            batch: list[ReadableSpan | ServerSpan] = []
            with contextlib.suppress(IndexError):
                while len(batch) < BATCH:
                    batch.append(self._waiting.popleft())
            self._export(batch)

    def _export(self, batch: Sequence[ReadableSpan | ServerSpan]) -> None:
        self._in_hand.append(batch)
        taken = self._sender.send(batch) if self._sender else 0
        with contextlib.suppress(IndexError):  # stop() gave it up, and has counted it
            self._in_hand.pop()
            _count("exported", taken)
            _count("dropped", len(batch) - taken)

    def stop(self, deadline: float) -> None:
        """Export what waits, for at most `deadline` seconds, and count the rest as dropped."""
        self._stopping = True
        self._nudge()
        with contextlib.suppress(Exception):  # gevent's hub may not wait
            self._done.wait(deadline)
        self._closed = True
        with contextlib.suppress(IndexError):
            _count("dropped", len(self._in_hand.pop()))
        self._drop_waiting()
        self._nudge()
        with contextlib.suppress(Exception):
            if self._sender is not None:
                self._sender.close()

    def _drop_waiting(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft()
                _count("dropped", 1)

    def shutdown(self) -> None:
        """Stop at once; the SDK's name for it."""
        self.stop(0.0)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Ask for an export soon; nobody may wait for it here."""
        self._nudge()
        return not self._waiting
