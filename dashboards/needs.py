"""What brings data to panels that are rightly empty, or at zero, when all is well; a machine can provoke each."""

from typing import Final

NEEDS: Final[dict[str, str]] = {
    # What happens to a server
    "failures": "requests that fail: /faults/fail",
    "slow": "requests of a second and more: /faults/sleep",
    "dead-workers": "workers that die: /faults/crash, or SIGKILL",
    "reload": "a reload: HUP to the master",
    "start": "a server that starts with a version that was not seen in the hour before",
    "alerts": "an alert that fires for the service",
    "full-workers": "clients that keep all workers of a server busy, until an alert that settings can cure fires",
    "pool-timeouts": "database connections held longer than the pool's timeout: /faults/hold",
    "spans": "a server that sends spans: OTEL_EXPORTER_OTLP_ENDPOINT, and a request that is sampled, slow or fails",
    "label-sets": "more label values than OBSERVABILITY_MAX_LABEL_SETS",
    "hook-failures": "a server hook that fails inside",
    # What runs, and where
    "gthread": "a server of GUNICORN_WORKER_CLASS=gthread",
    "loop": "a server whose workers have an event loop: GUNICORN_WORKER_CLASS=gevent or asgi",
    "quota": "a control group of version 2 with a CPU quota and a memory limit",
    "nginx": "nginx and its exporter",
    "postgres": "PostgreSQL and its exporter",
    "redis": "Redis and its exporter",
    "probe": "the blackbox exporter, which asks for the site through nginx",
    "tls": "a blackbox probe of an https site",
    "logs": "Loki and Alloy, and lines in them",
    "traces": "Tempo and Alloy, and spans in them",
    "lost-lines": "lines that Loki discards",
    "lost-spans": "spans that Alloy cannot send on, or Tempo discards",
    "annotator": "an annotator, and a Grafana or a Prometheus that it cannot reach",
    # The tuner
    "tuner": "a tuner that runs",
    "tuner-decisions": "alerts on which the tuner decides",
    "tuner-action": "an action of the tuner, and its evaluation",
}
