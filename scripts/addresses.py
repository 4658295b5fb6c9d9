"""The table that `make up` ends with: where everything is, and what to try next."""

from collections.abc import Iterator

from scripts import containers, packages
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
    in_containers = options.mode == "containers"
    inside = in_containers and not containers.publishes_all()
    yield "App", f"http://{LOOPBACK}:{options.app_port}/"
    if not inside:
        yield "Metrics", f"{agent}/metrics"
        yield "Health", f"{agent}/readyz"
        yield "State", f"{agent}/state"
    if _has_prometheus(options):
        yield "Prometheus", f"http://{LOOPBACK}:{options.prometheus_port}/"
    if not inside and (in_containers or packages.ALERTMANAGER.path()):
        yield "Alertmanager", f"http://{LOOPBACK}:{options.alertmanager_port}/"
    if not inside:
        yield "Tuner", f"http://{LOOPBACK}:{options.tuner_port}/decisions"
    if in_containers:
        yield "Grafana", f"http://{LOOPBACK}:{options.grafana_port}/ (admin, .secrets/grafana_admin_password)"
    else:
        yield "Grafana", "not in native mode: it comes with containers"


def _has_prometheus(options: Options) -> bool:
    if options.mode == "containers":
        return containers.publishes_all()
    return packages.PROMETHEUS.path() is not None


def _next(options: Options) -> Iterator[str]:
    app = f"http://{LOOPBACK}:{options.app_port}"
    yield f"curl -i {app}/todos"
    if options.mode != "containers" or containers.publishes_all():
        yield f"curl -s http://{LOOPBACK}:{options.agent_port}/state"
    if _has_prometheus(options):
        yield f"http://{LOOPBACK}:{options.prometheus_port}/graph?g0.expr={QUERY}&g0.tab=0&g0.range_input=5m"
    yield "make traffic    more sample requests"
    yield "make logs       what all of it writes, as it comes"
    yield "make status     what runs"
    yield "make down       the end"
