"""prometheus_flask_exporter's hooks for gunicorn, by its README."""

import os
from typing import Any

from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics  # type: ignore[import-not-found]

worker_tmp_dir = "/dev/shm"  # gunicorn's heartbeat file, unlinked at once
control_socket_disable = True
keepalive = 5


def when_ready(_server: Any) -> None:
    """Serve the metrics from the master."""
    GunicornPrometheusMetrics.start_http_server_when_ready(int(os.environ["BENCH_METRICS_PORT"]), host="127.0.0.1")


def child_exit(_server: Any, worker: Any) -> None:
    """Drop the gauges of a worker that is gone."""
    GunicornPrometheusMetrics.mark_process_dead_on_child_exit(worker.pid)
