"""Every metric that Sightline itself emits, declared once: name, type, labels, help.

To add one, declare it in the module of its subject and record it with `store.child(METRIC, *label_values)`. The
reference page is generated from these modules, and dashboards, rules and pages may name nothing that they lack.
HTTP names and buckets follow OpenTelemetry's stable semantic conventions as Prometheus spells them.
"""

# ruff: noqa: F403 - who records a metric need not know which module declares it
from observability.catalogue.declaring import METRICS as METRICS
from observability.catalogue.dependencies import *
from observability.catalogue.http_server import *
from observability.catalogue.itself import *
from observability.catalogue.server import *
from observability.catalogue.tuner import *
from observability.catalogue.worker import *
from observability.metric import Metric as Metric
