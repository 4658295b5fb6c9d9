"""The start page for people, and the health check for load balancers."""

from dataclasses import dataclass

from flask import Blueprint, Response, jsonify, render_template, url_for

from app.settings import Settings


@dataclass(frozen=True)
class Link:
    """One line of the start page; without an address, `name` says where to look."""

    name: str
    about: str
    href: str = ""


def blueprint(settings: Settings) -> Blueprint:
    """Make the routes `/` and `/healthz`."""
    routes = Blueprint("pages", __name__)

    @routes.get("/")
    def start() -> str:
        return render_template("start.html", groups=_groups(settings))

    @routes.get("/healthz")
    def health() -> Response:
        # Not the database's health: taking every worker out of the balancer would not bring it back.
        return jsonify(status="ok")

    return routes


def _groups(settings: Settings) -> dict[str, list[Link]]:
    return {
        "Service": _service(settings),
        "Agent, answers even when every worker is stuck": _agent(settings.agent_url.rstrip("/")),
        "What watches it": [
            Link("Prometheus", "metrics, rules, queries", settings.prometheus_url),
            Link("Alertmanager", "alerts that fire, and silences", settings.alertmanager_url),
            Link("Grafana", "dashboards, where it runs", settings.grafana_url),
        ],
    }


def _service(settings: Settings) -> list[Link]:
    links = [
        Link("/todos", "the todo API, JSON", url_for("todos.index")),
        Link("/healthz", "what a load balancer asks", url_for("pages.health")),
    ]
    if settings.faults_served:
        links.append(Link("/faults", "break it on purpose", url_for("faults.index")))
    return [*links, Link("docs/", "in the repository: settings, metrics, one request's way")]


def _agent(base: str) -> list[Link]:
    return [
        Link("/metrics", "every worker, merged and apart", f"{base}/metrics"),
        Link("/livez", "the master lives, and a worker beats", f"{base}/livez"),
        Link("/readyz", "enough workers are booted", f"{base}/readyz"),
        Link("/state", "what each worker does now", f"{base}/state"),
    ]
