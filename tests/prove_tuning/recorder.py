"""Writes down, every few seconds, what a server, Prometheus and the tuners say."""

import contextlib
import threading
import time
from typing import Any, Final

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.prove_tuning.stack import Stack
from tests.tuning.parts import Tuner

Row = dict[str, Any]
EVERY_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 2.0
_SERIES: Final = {
    "queue": "max(instance:http_server_request_queue_seconds:p95_rate1m)",
    "busy": "max(instance:gunicorn_worker_busy_ratio:avg1m)",
    "p99": "max(instance:http_server_request_duration_seconds:p99_rate1m)",
    "rate": "sum(instance:http_server_requests:rate1m)",
    "cpu": "max(instance:gunicorn_worker_cpu_cores:rate1m)",
    "memory": "max(instance:cgroup_memory:ratio)",
}
_FIRING: Final = 'max by (alertname) (ALERTS{alertstate="firing",alertname!="Watchdog"})'
_QUERY: Final = " or ".join(
    [*(f'label_replace({expr}, "signal", "{name}", "", "")' for name, expr in _SERIES.items()), _FIRING]
)


class Recorder:
    """Keeps rows of a time line while its block runs.

    Args:
        stack: what is looked at.
        started: the Unix time that is 0 on the line.
    """

    def __init__(self, stack: Stack, started: float) -> None:
        self.stack, self.started = stack, started
        self.rows: list[Row] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self) -> "Recorder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _record(self) -> None:
        due = time.time()
        while not self._over.wait(max(0.0, due - time.time())):
            self.rows.append({"t": round(time.time() - self.started, 1), **self._server(), **self._prometheus()})
            frozen = {reason for tuner in list(self.stack.tuners) for reason in _frozen(tuner)}
            self.rows[-1]["frozen"] = sorted(frozen)
            due = max(due + EVERY_SECONDS, time.time())

    def _server(self) -> Row:
        """Return the workers; None where the agent does not answer."""
        state: dict[str, Any] = {}
        with contextlib.suppress(requests.RequestException):
            state = requests.get(f"{self.stack.server.agent_url}/state", timeout=_TIMEOUT_SECONDS).json()["server"]
        return {"target": state.get("workers_target"), "live": state.get("workers_live")}

    def _prometheus(self) -> Row:
        """Return the signals and the alerts; nothing where Prometheus does not answer."""
        found: list[Any] = []
        with contextlib.suppress(requests.RequestException):
            url = f"{self.stack.prometheus.url}/api/v1/query"
            found = requests.get(url, {"query": _QUERY}, timeout=_TIMEOUT_SECONDS).json()["data"]["result"]
        numbers = {each["metric"].get("signal", ""): float(each["value"][1]) for each in found}
        alerts = sorted({each["metric"]["alertname"] for each in found if "alertname" in each["metric"]})
        return {name: _short(numbers.get(name)) for name in _SERIES} | {"alerts": alerts}


def _short(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)


def _frozen(tuner: Tuner) -> list[str]:
    """Return what a tuner says that keeps it from growing; nothing of one that does not answer."""
    if getattr(tuner, "process", None) is None or tuner.process.poll() is not None:
        return []
    try:
        text = requests.get(f"{tuner.url}/metrics", timeout=_TIMEOUT_SECONDS).text
    except requests.RequestException:
        return []
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [each.labels["reason"] for each in samples if each.name == "tuner_frozen" and each.value]
