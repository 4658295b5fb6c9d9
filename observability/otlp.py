"""Sends spans to the OTLP/HTTP receiver, and knows exactly how many of them it took."""

import logging
from collections.abc import Sequence
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from observability import redact
from observability.settings import Settings

_log = logging.getLogger(__name__)
_exporter_log = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")


class _LastWords(logging.Filter):
    """Keeps the exporter's own complaints, of which there are several a batch, off the log."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Remember the complaint, and let none through."""
        self.text = record.getMessage()
        return False


class Sender:
    """One connection to the receiver.

    Args:
        settings: where it is, and how long one export may take, retries included.
    """

    def __init__(self, settings: Settings) -> None:
        session = requests.Session()
        session.hooks["response"].append(self._note_response)
        self._exporter = OTLPSpanExporter(
            endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces",
            timeout=settings.export_timeout,
            session=session,
        )
        self._rejected = 0
        self._failing = False
        self._last_words = _LastWords()
        _exporter_log.filters[:] = [self._last_words]

    def _note_response(self, response: requests.Response, **_: Any) -> None:
        """Read a partial success, which the exporter takes for a whole one."""
        if response.ok and response.content:
            answer = ExportTraceServiceResponse.FromString(response.content)
            self._rejected = answer.partial_success.rejected_spans

    def send(self, batch: Sequence[ReadableSpan]) -> int:
        """Send a batch, and return how many spans the receiver took."""
        taken = self._send(batch)
        if (taken == 0) != self._failing:
            self._failing = not self._failing
            if self._failing:
                _log.warning("spans cannot be exported, and are dropped: %s", redact.text(self._last_words.text))
            else:
                _log.info("spans are exported again")
        return taken

    def _send(self, batch: Sequence[ReadableSpan]) -> int:
        self._rejected = 0
        try:
            if self._exporter.export(batch) is SpanExportResult.SUCCESS:
                return max(len(batch) - self._rejected, 0)
        except Exception as error:  # a receiver that answers nonsense, say
            self._last_words.text = redact.shown(error)
            return 0
        if len(batch) > 1 and not _encodable(batch):
            middle = len(batch) // 2
            return self._send(batch[:middle]) + self._send(batch[middle:])
        return 0

    def close(self) -> None:
        """Cut a wait between retries short, and close what is idle."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _encodable(batch: Sequence[ReadableSpan]) -> bool:
    """Tell whether no attribute spoils the batch, such as one with a lone surrogate."""
    try:
        encode_spans(batch).SerializePartialToString()
    except Exception:
        return False
    return True
