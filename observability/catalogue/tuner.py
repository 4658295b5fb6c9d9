"""The tuner, by the server that it looks at: `server` is what Prometheus calls the instance."""

from observability.catalogue.declaring import declare

_SERVER = ("server",)

TUNER_DECISIONS = declare(
    "tuner_decisions_total",
    "counter",
    "Decisions of the tuner, by what is to be done, the rule that said so, and what became of it.",
    ("server", "action", "reason", "outcome"),
)
TUNER_TARGET = declare(
    "tuner_target_workers", "gauge", "Workers that the tuner holds right now, or recommends, for the server.", _SERVER
)
TUNER_CEILING = declare(
    "tuner_ceiling_workers", "gauge", "Workers that the tuner would go up to: the least of all its bounds.", _SERVER
)
TUNER_FROZEN = declare(
    "tuner_frozen",
    "gauge",
    "1 for what keeps the tuner from growing the server: see docs/decisions.md; off and stale besides.",
    ("server", "reason"),
)
TUNER_EVALUATED = declare(
    "tuner_last_evaluation_timestamp_seconds", "gauge", "Unix time of the last evaluation of a server.", _SERVER
)
TUNER_SIGNALS_AGE = declare(
    "tuner_signals_age_seconds", "gauge", "Age of the signals that the last evaluation had.", _SERVER
)
TUNER_DURATION = declare(
    "tuner_action_duration_p99_seconds",
    "gauge",
    "99 of 100 requests were faster, in the window before or after the last action.",
    ("server", "window"),
)
TUNER_QUEUE = declare(
    "tuner_action_queue_p95_seconds",
    "gauge",
    "95 of 100 requests waited less for a worker, in the window before or after the last action.",
    ("server", "window"),
)
TUNER_RATE = declare(
    "tuner_action_requests_per_second",
    "gauge",
    "Requests answered each second, in the window before or after the last action.",
    ("server", "window"),
)
TUNER_MODE = declare("tuner_mode", "gauge", "1 for the mode that holds: off, recommend, apply.", ("mode",))
TUNER_WEBHOOKS = declare(
    "tuner_webhooks_total",
    "counter",
    "Notifications of Alertmanager: accepted, repeated, unauthorized, malformed, or dropped because too many wait.",
    ("result",),
)
TUNER_FAILURES = declare(
    "tuner_failures_total",
    "counter",
    "Failures of the tuner's own parts: prometheus, agent, state, decision.",
    ("part",),
)
