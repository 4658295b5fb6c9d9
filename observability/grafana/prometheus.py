"""What Prometheus has recorded: the samples themselves, so that events are counted and not estimated.

https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import requests

from observability.grafana.errors import LONGEST
from observability.settings import masked
from observability.top.cells import printable

_MOST_BYTES = 8 * 1024 * 1024  # read, they take ten times as much memory
_CHUNK = 64 * 1024


class PrometheusError(Exception):
    """One line that says why Prometheus could not be asked."""


class TooMuchError(PrometheusError):
    """An answer that is too large; a shorter stretch of time has a smaller one."""


@dataclass(frozen=True)
class Series:
    """One time series: its labels, and its samples as Unix seconds and value, the oldest first."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    def increases(self, after: float, until: float) -> Iterator[tuple[float, float, float]]:
        """Yield each increase of a counter in (after, until]: the time of the sample before, its own, and how much.

        A counter that falls has begun anew at zero. What a series has when it is first seen is left out: it may have
        been counted long ago.
        """
        for (before, earlier), (time, value) in zip(self.samples, self.samples[1:], strict=False):
            more = value - earlier if value >= earlier else value
            if after < time <= until and math.isfinite(earlier) and math.isfinite(value) and more > 0:
                yield before, time, more


class Prometheus:
    """One Prometheus.

    Args:
        url: its address.
        timeout: seconds that an answer may take.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self.shown = masked(self.url)
        self.timeout = timeout

    def series(self, selector: str, start: float, end: float) -> list[Series]:
        """Return the samples of (start, end].

        Raises:
            PrometheusError: there are none to be had.
        """
        seconds = max(1, round(end - start))
        found = self._ask({"query": f"{selector}[{seconds}s]", "time": f"{end:.3f}"})
        try:
            return [
                Series(
                    {str(key): str(value) for key, value in each["metric"].items()},
                    [(float(time), float(value)) for time, value in each["values"] if start < float(time) <= end],
                )
                for each in found["data"]["result"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise PrometheusError(f"What answers at {self.shown} is not Prometheus") from None

    def _ask(self, params: dict[str, str]) -> Any:
        try:
            with requests.get(f"{self.url}/api/v1/query", params, timeout=self.timeout, stream=True) as answer:
                body = self._body(answer)
        except (requests.RequestException, OSError) as error:
            reason = printable(" ".join(str(_innermost(error)).split())[:LONGEST])
            raise PrometheusError(f"No answer from Prometheus at {self.shown}: {reason}") from None
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise PrometheusError(
                f"What answers at {self.shown} is not Prometheus: status {answer.status_code}"
            ) from None
        if not isinstance(found, dict) or found.get("status") != "success":
            said = found.get("error") if isinstance(found, dict) else "an answer of another form"
            raise PrometheusError(f"Prometheus at {self.shown} refuses a query: {printable(str(said)[:LONGEST])}")
        return found

    def _body(self, answer: requests.Response) -> bytes:
        body = bytearray()
        for chunk in answer.iter_content(_CHUNK):
            body += chunk
            if len(body) > _MOST_BYTES:
                raise TooMuchError(f"Prometheus at {self.shown} answers with more than {_MOST_BYTES} bytes")
        return bytes(body)


def _innermost(error: BaseException) -> BaseException:
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
