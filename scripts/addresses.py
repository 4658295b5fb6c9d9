"""The table that `make up` ends with: where everything is, and what to try next."""

from collections.abc import Iterator

from scripts import packages
from scripts.options import Options
from scripts.ports import LOOPBACK

QUERY = "sum%20by%20(http_route)%20(rate(http_server_request_duration_seconds_count%5B1m%5D))"


def table(options: Options) -> str:
    """Return the addresses of what runs, and some things to try."""
    rows = list(_addresses(options))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {address}" for name, address in rows]
    return "\n".join(["", *lines, "", "Try next:", *(f"  {line}" for line in _next(options)), ""])


def _addresses(options: Options) -> Iterator[tuple[str, str]]:
    agent = f"http://{LOOPBACK}:{options.agent_port}"
    containers = options.mode == "containers"
    yield "App", f"http://{LOOPBACK}:{options.app_port}/"
    yield "Metrics", f"{agent}/metrics"
    yield "Health", f"{agent}/readyz"
    yield "State", f"{agent}/state"
    if containers or packages.PROMETHEUS.path():
        yield "Prometheus", f"http://{LOOPBACK}:{options.prometheus_port}/"
    if containers or packages.ALERTMANAGER.path():
        yield "Alertmanager", f"http://{LOOPBACK}:{options.alertmanager_port}/"
    if containers:
        yield "Grafana", f"http://{LOOPBACK}:{options.grafana_port}/"
    else:
        yield "Grafana", "not in native mode: it comes with containers"


def _next(options: Options) -> Iterator[str]:
    app = f"http://{LOOPBACK}:{options.app_port}"
    yield f"curl -i {app}/todos"
    yield f"curl -s http://{LOOPBACK}:{options.agent_port}/state"
    if options.mode == "containers" or packages.PROMETHEUS.path():
        yield f"http://{LOOPBACK}:{options.prometheus_port}/graph?g0.expr={QUERY}&g0.tab=0&g0.range_input=5m"
    yield "make traffic    more sample requests"
    yield "make logs       what all of it writes, as it comes"
    yield "make status     what runs"
    yield "make down       the end"
