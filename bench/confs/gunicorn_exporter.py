"""gunicorn-prometheus-exporter's hooks, by its README; its settings come from the environment."""

import logging

from gunicorn_prometheus_exporter.hooks import (  # type: ignore[import-not-found]
    default_on_exit,
    default_on_starting,
    default_post_fork,
    default_when_ready,
    default_worker_int,
)

worker_tmp_dir = "/dev/shm"  # gunicorn's heartbeat file, unlinked at once
control_socket_disable = True
keepalive = 5

when_ready = default_when_ready
on_starting = default_on_starting
worker_int = default_worker_int
on_exit = default_on_exit
post_fork = default_post_fork

logging.disable(logging.DEBUG)
