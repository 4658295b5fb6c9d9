"""Sightline: every request and every worker of a gunicorn server, seen for next to nothing.

`instrument(app)` is all that an app needs; the rest is for what it wants to add of its own.
"""

from observability.caches import watch_cache
from observability.context import annotate
from observability.frameworks import instrument
from observability.logs import get_logger
from observability.metrics import counter, gauge, histogram
from observability.pools import watch_pool

__all__ = ["annotate", "counter", "gauge", "get_logger", "histogram", "instrument", "watch_cache", "watch_pool"]
