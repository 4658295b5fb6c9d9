"""`grafana annotate`: writes into Grafana what happened to the servers, as Prometheus has recorded it.

It asks Prometheus only, so no request and no server waits for it. Each round looks at the windows that are over, keeps
what it found in the spool, and sends that to Grafana. What was found is saved before it is sent, and what was sent is
forgotten after: so nothing is lost when the process is killed, and what may have been sent already is looked for in
Grafana, by its tags and its window, before it is sent again.
"""

import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from observability import logs
from observability.grafana.client import Grafana
from observability.grafana.errors import GrafanaError, UnavailableError
from observability.grafana.events import TAG, Annotation, Record
from observability.grafana.prometheus import Prometheus, PrometheusError, TooMuchError
from observability.grafana.settings import Settings
from observability.grafana.spool import Spool, State
from observability.settings import Settings as Telemetry

_MOST_BEHIND = 6 * 3600.0  # seconds that are made up for after a pause; older events are left out
_STRETCH = 900.0  # seconds that one question to Prometheus is about, at most
_MOST_AT_ONCE = 50  # annotations sent in a round
_LONGEST_PAUSE = 60.0  # seconds until Grafana is tried again


def run(settings: Settings, telemetry: Telemetry) -> int:
    """Annotate until a signal ends it; return 2 where it cannot begin."""
    logs.configure(telemetry)
    logs.bind_process(role="annotator")
    signal.signal(signal.SIGTERM, _leave)
    annotator = Annotator(settings, Grafana(settings), Spool(settings.spool))
    annotator.begin()
    while True:
        annotator.round(time.time())
        time.sleep(settings.interval)


def _windows(start: float, end: float, window: float) -> Iterator[tuple[float, float]]:
    """Yield the windows between two times; the first is shorter where the length was another one before.

    What was looked at with another length is left out, or it would be annotated twice.
    """
    while start < end:
        until = (start // window + 1) * window
        yield start, until
        start = until


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)  # at any moment, as a kill would: the spool is whole at all times


class Annotator:
    """One annotator.

    Args:
        settings: the window, the addresses, the bounds.
        grafana: where annotations go.
        spool: what it remembers.
    """

    def __init__(self, settings: Settings, grafana: Grafana, spool: Spool) -> None:
        self.settings, self.grafana, self.spool = settings, grafana, spool
        self.prometheus = Prometheus(settings.prometheus_url, settings.timeout)
        self.log = logs.get_logger("observability.grafana")
        self.state = State()
        self._troubles: dict[str, str] = {}  # what is wrong now, by whom it concerns: each is logged once
        self._stretch = _STRETCH
        self._pause = 0.0
        self._again_at = 0.0

    def begin(self) -> None:
        """Read the spool, and find out whether Grafana lets us in; that it is away for a while is no reason to end.

        Raises:
            GrafanaError: it is no Grafana, or refuses the token.
        """
        try:
            self.state = self.spool.load()
        except (ValueError, OSError) as error:
            self.log.warning("spool is unreadable, begins anew", error=str(error), file=str(self.spool.path))
        try:
            self.grafana.connect()
            self.grafana.annotations([TAG], 0, 1)
        except GrafanaError as error:
            if not isinstance(error, UnavailableError):
                raise
            self._trouble("grafana", str(error))
        self.log.info(
            "annotator begins", grafana=self.grafana.url, version=self.grafana.version, waiting=len(self.state.pending)
        )

    def round(self, now: float) -> None:
        """Look at what is new, keep it, and send what waits.

        Args:
            now: Unix time.
        """
        try:
            while self._look(now):
                self._save()
            self._well("prometheus")
        except PrometheusError as error:
            self._trouble("prometheus", str(error))
        self._save()
        if time.monotonic() >= self._again_at and self._send():
            self._save()
        self.spool.touch()

    # What happened

    def _look(self, now: float) -> bool:
        """Look at the next stretch of windows that are over; return whether there was one."""
        window = self.settings.window
        over = (now - self.settings.delay) // window * window
        start = self.state.looked_until or over
        if over < start - window:  # the clock was set back
            start = over
        if over - start > _MOST_BEHIND:
            self.log.warning("looks no further back", skipped_seconds=over - _MOST_BEHIND - start)
            start = over - _MOST_BEHIND
        end = min(over, start // window * window + max(self._stretch // window, 1) * window)
        if end <= start:
            self.state.looked_until = start
            return False
        try:
            record = Record.of(self.prometheus, start, end)
        except TooMuchError:
            if end - start <= window:  # nothing shorter can be asked for, and it must not hold up the rest
                self.state.looked_until = end
                raise
            self._stretch = (end - start) / 2
            return True
        self._stretch = min(_STRETCH, 2 * self._stretch)
        if record.left_out:
            self.log.warning("counters that begin are left out", targets=record.left_out)
        versions = {(job, environment): dict(known) for job, environment, known in self.state.deployed if known}
        found: list[Annotation] = []
        for begin, until in _windows(start, end, window):
            found += record.annotations(begin, until, versions)
        self.state.deployed = [(*place, known) for place, known in versions.items()]
        self.state.looked_until = end
        self._keep(found)
        return True

    def _keep(self, found: list[Annotation]) -> None:
        waiting = {each.key for each in self.state.pending}
        pending = self.state.pending + [each for each in found if each.key not in waiting]
        if too_many := max(0, len(pending) - self.settings.spool_most):
            self.state.dropped += too_many
            self.log.warning("annotations dropped, the oldest", dropped=too_many, dropped_in_all=self.state.dropped)
        self.state.pending = pending[too_many:]

    def _save(self) -> None:
        """Save; on a full disk the work goes on in memory, and after a restart it is looked for again."""
        try:
            self.spool.save(self.state)
            self._well("spool")
        except OSError as error:
            self._trouble("spool", f"{self.spool.path} cannot be written: {error.strerror}")

    # To Grafana

    def _send(self) -> int:
        """Send what waits, the oldest first; return how many are done with."""
        done = 0
        for each in self.state.pending[:_MOST_AT_ONCE]:
            try:
                self._deliver(each)
            except GrafanaError as error:
                if error.ends_all or error.status in (403, 404):
                    self._trouble("grafana", str(error))
                    self._pause = min(_LONGEST_PAUSE, max(self.settings.interval, self._pause * 2))
                    self._again_at = time.monotonic() + self._pause
                    break
                self.state.dropped += 1
                self.log.warning("annotation refused", error=str(error), text=each.text)
            done += 1
        else:
            self._pause = 0.0
            if done:
                self._well("grafana")
        del self.state.pending[:done]
        return done

    def _deliver(self, annotation: Annotation) -> None:
        """Make an annotation, unless it is there; of two that were made at the same time, the later one goes."""
        if self._there(annotation):
            return
        ours = self.grafana.annotate(annotation.start, annotation.end, annotation.tags, annotation.text)
        if min(self._there(annotation), default=ours) < ours:
            self.grafana.forget(ours)

    def _there(self, annotation: Annotation) -> list[int]:
        """Return the ids of annotations with this one's key."""
        found = self.grafana.annotations(annotation.tags, annotation.window, annotation.window_end)
        return [
            int(each["id"])
            for each in found
            if sorted(each.get("tags") or []) == sorted(annotation.tags)
            and annotation.window < int(each.get("timeEnd") or each["time"]) <= annotation.window_end
        ]

    # What is wrong

    def _trouble(self, whose: str, line: str) -> None:
        if self._troubles.get(whose) != line:
            self._troubles[whose] = line
            self.log.warning(line, waiting=len(self.state.pending))

    def _well(self, whose: str) -> None:
        if self._troubles.pop(whose, None):
            self.log.info(f"{whose} is well again", waiting=len(self.state.pending))
