"""Sends spans to the OTLP/HTTP receiver, and knows exactly how many of them it took."""

import email.utils
import http.client
import logging
import math
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from observability import redact
from observability.otlp_answer import rejected
from observability.otlp_connection import Answer, Connection
from observability.otlp_encoder import Encoder
from observability.settings import Settings

_log = logging.getLogger(__name__)
# What may be tried again: https://opentelemetry.io/docs/specs/otlp/#failures-1
_TRANSIENT = frozenset({429, 502, 503, 504})
_MOST_TRIES = 6
_LARGEST = 64 * 1024 * 1024  # OpenTelemetry's own bound of a request, before compression


class _Refused(Exception):
    """Why a batch was not taken, in words."""


class Sender:
    """One connection to the receiver.

    Args:
        settings: where it is, and how long one export may take, retries included.
    """

    def __init__(self, settings: Settings) -> None:
        self._timeout = settings.export_timeout
        self._encoder = Encoder()
        self._connection = Connection(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")
        self._failing = self._sending = self._closed = False
        self._cut = threading.Lock()  # as a signal: its release never waits, not even in a signal handler
        self._cut.acquire()

    def send(self, batch: Sequence[Any]) -> int:
        """Send a batch, and return how many spans the receiver took."""
        if not batch:
            return 0
        self._sending = True
        taken, trouble = 0, ""
        try:
            taken, trouble = self._send(batch)
        except _Refused as error:
            trouble = str(error)
        except Exception as error:  # a certificate that cannot be read, say
            trouble = f"{type(error).__name__}: {error}"
        finally:
            self._sending = False
            if self._closed:
                self._connection.close()
        if (taken == 0) != self._failing:
            self._failing = not self._failing
            if self._failing:
                _log.warning("spans cannot be exported, and are dropped: %s", redact.text(trouble, 1024))
            else:
                _log.info("spans are exported again")
        return taken

    def _send(self, batch: Sequence[Any]) -> tuple[int, str]:
        """Return how many spans were taken, and why others were not."""
        body, encoded = self._encoder.encode(batch)
        if not encoded:
            raise _Refused("they cannot be encoded")
        if len(body) > _LARGEST:
            raise _Refused(f"a batch of {len(body)} bytes is too large")
        answer = self._answer(self._connection.compressed(body))
        try:
            refused, why = rejected(answer.body)
        except ValueError:
            raise _Refused("the receiver's answer is no OTLP") from None
        return max(encoded - refused, 0), f"the receiver rejects them: {why or 'it says not why'}"

    def _answer(self, body: bytes) -> Answer:
        """Post until the answer is good.

        Raises:
            _Refused: it is not, and to wait longer is no use.
        """
        deadline = time.monotonic() + self._timeout
        for attempt in range(_MOST_TRIES):
            backoff = 2**attempt * random.uniform(0.8, 1.2)  # noqa: S311 - so that workers do not come back all at once
            try:
                answer = self._connection.post(body, deadline)
            except (OSError, http.client.HTTPException) as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if 200 <= answer.status < 300:
                    return answer
                trouble = f"the receiver answers {answer.status} {answer.reason}"
                if answer.status not in _TRANSIENT:
                    raise _Refused(trouble)
                backoff = _retry_after(answer.retry_after, backoff)
            if self._closed or attempt + 1 == _MOST_TRIES or time.monotonic() + backoff > deadline:
                break
            if self._cut.acquire(timeout=backoff):
                break
        raise _Refused(trouble)

    def close(self) -> None:
        """Cut a wait between retries short, and close what is idle."""
        if self._closed:
            return
        self._closed = True
        self._cut.release()
        if not self._sending:  # else send() does, once it is done
            self._connection.close()


def _retry_after(header: str, otherwise: float) -> float:
    """Return the seconds that a Retry-After header asks for, given as such or as a date.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return otherwise
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time()
    return max(seconds, 0.0) if math.isfinite(seconds) else otherwise
