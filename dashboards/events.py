"""Moments that explain what graphs show: deploys, reloads, what the tuner did, and workers that died."""

from typing import Final

from dashboards import palette
from dashboards.frame import OF_ENVIRONMENT, Annotation
from dashboards.panels import query
from observability import catalogue

DEATHS: Final = "|".join(sorted(set(catalogue.EXIT_CAUSES) - catalogue.EXPECTED_CAUSES))

# A deploy is of a job to an environment, whichever servers are chosen: one that gets the version later than the first
# would show no deploy, and one that is gone for a day, and no choice any more, would be no witness of what ran before.
_DEPLOYED: Final = f'target_info{{job=~"$job",{OF_ENVIRONMENT}}}'
_VERSIONS: Final = "(job, deployment_environment_name, service_version)"
# Of a label that is not there, Grafana writes the name.
_UNNAMED: Final = '"deployment_environment_name", "no environment", "deployment_environment_name", ""'
DEPLOYS: Final = Annotation(
    "Deploy",
    query(
        f"label_replace(max by {_VERSIONS} ({_DEPLOYED}) unless on {_VERSIONS} "
        # as far back as one point lies from the next, so that a deploy is seen however long a time is shown
        f"max by {_VERSIONS} (last_over_time({_DEPLOYED}[1h] offset $__rate_interval)), {_UNNAMED})",
        "",
        by=["job", "deployment_environment_name", "service_version"],
        most=5,
        needs="start",
    ),
    palette.BLUE,
    "{{job}} runs version {{service_version}} in {{deployment_environment_name}}",
)
RELOADS: Final = Annotation(
    "Reload",
    query(
        "sum by (instance) (increase(gunicorn_reloads_total{@}[$__rate_interval])) > 0",
        "",
        by=["instance"],
        most=10,
        needs="reload",
    ),
    palette.PURPLE,
    "{{instance}} was told to reload",
)
TUNED: Final = Annotation(
    "Tuner",
    query(
        "sum by (server, action, reason, outcome) (increase(tuner_decisions_total"
        '{server=~"$instance",outcome!~"none|recommended"}[$__rate_interval])) > 0',
        "",
        by=["server", "action", "reason", "outcome"],
        most=20,
        needs="tuner-action",
    ),
    palette.TEAL,
    "{{server}}: {{action}} for {{reason}}: {{outcome}}",
)
WORKER_DEATHS: Final = Annotation(
    "Worker death",
    query(
        "sum by (instance, cause) (increase(gunicorn_worker_exits_total"
        f'{{@,cause=~"{DEATHS}"}}[$__rate_interval])) > 0',
        "",
        by=["instance", "cause"],
        most=20,
        needs="dead-workers",
    ),
    palette.BAD,
    "{{instance}}: {{cause}}",
)
