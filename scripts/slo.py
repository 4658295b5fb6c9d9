"""Write Prometheus' rules for the service level objectives from their data, or check that they are current.

python -m scripts.slo [--check]
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from observability.catalogue import REQUEST_DURATION, REQUESTS_LOST
from scripts import objectives
from scripts.objectives import Availability, Data, Latency, Objective, Policy, Window, seconds
from scripts.options import ROOT
from scripts.problem import report

DATA = "monitoring/slo.yml"
FILES = {"production": "monitoring/prometheus/rules/slo.yml", "demo": "monitoring/prometheus/demo/slo.yml"}
WRITTEN = f"# Written by `make slo` from {DATA}: change that, not this file.\n# docs/slo.md says how it works.\n"
DASHBOARD = "http://127.0.0.1:3000/d/sightline-service"
FAILED, NOT_FAILED = 'http_response_status_code=~"5.."', 'http_response_status_code!~"5.."'
STAYED = 'http_response_status_code!="499"'  # of a client that left before the response began
BUDGET_EVERY = 8  # intervals: the period is long to sum up, and the sum changes slowly
TUNING = {
    Availability: "No gunicorn setting mends an error: look for a bug, or for a dependency that fails. Only where "
    "workers are ended by their timeout (gunicorn_worker_exits_total, cause timeout) and their requests are meant to "
    "take that long, raise GUNICORN_TIMEOUT.",
    Latency: "Where requests wait (http_server_request_queue_seconds, gunicorn_listen_backlog, "
    "gunicorn_worker_queued_requests) and CPU is left, raise GUNICORN_THREADS (gthread) or WEB_CONCURRENCY. Where "
    "none wait, no setting helps: look in the traces for what is slow.",
}

Rule = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Writes an expression of several lines as it stands, and lists below their keys."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's
        """Indent a list, too."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def build(data: Data) -> dict[str, str]:
    """Return every file's text by its name."""
    policies = {"production": (data.production, ""), "demo": (data.demo, "demo-")}
    return {FILES[name]: _rendered(data, policy, prefix) for name, (policy, prefix) in policies.items()}


def _rendered(data: Data, policy: Policy, prefix: str) -> str:
    groups = []
    for objective in data.objectives:
        slo = prefix + objective.name
        every = f"{BUDGET_EVERY * seconds(policy.interval)}s"
        rules = [*_parts(data.job, objective, slo, policy), *_ratios(objective, slo, policy)]
        rules += [_alert(objective, slo, policy, window) for window in policy.windows]
        groups += [
            {"name": f"slo-{slo}", "interval": policy.interval, "rules": rules},
            {"name": f"slo-{slo}-budget", "interval": every, "rules": _budget(objective, slo, policy)},
        ]
    return WRITTEN + yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _record(name: str, slo: str, expr: str) -> Rule:
    return {"record": f"job:{name}", "expr": expr, "labels": {"slo": slo}}


def _recorded(name: str, slo: str) -> str:
    return f"job:{name}{{slo={json.dumps(slo)}}}"


def _parts(job: str, objective: Objective, slo: str, policy: Policy) -> list[Rule]:
    """Record requests and bad requests a second, over the shortest window: all else is summed up from these."""
    base = policy.spans[0]
    requests = _recorded(f"slo_requests:rate{base}", slo)

    def rate(name: str, *matchers: str) -> str:
        return f"rate({name}{{{','.join([f'job={json.dumps(job)}', *matchers])}}}[{base}])"

    routes = [f"http_route!={json.dumps(route)}" for route in objective.leave_out]
    count = REQUEST_DURATION.name + "_count"
    if isinstance(objective, Latency):
        fast = rate(REQUEST_DURATION.name + "_bucket", *routes, NOT_FAILED, f'le="{float(objective.threshold)!r}"')
        every = f"sum by (job) ({rate(count, *routes, NOT_FAILED)})"
        bad = f"{requests}\n- on (job)\nsum by (job) ({fast})"
    else:
        lost = rate(REQUESTS_LOST.name)
        every = f"sum by (job) (\n  {rate(count, *routes, STAYED)}\n  or\n  {lost}\n)"
        bad = f"sum by (job) (\n  {rate(count, *routes, FAILED)}\n  or\n  {lost}\n)\nor on (job)\n0 * {requests}"
    return [_record(f"slo_requests:rate{base}", slo, every), _record(f"slo_errors:rate{base}", slo, bad)]


def _ratio(slo: str, span: str, policy: Policy) -> Rule:
    """Record the share of bad requests over a window; where there were no requests, there is none."""
    base = policy.spans[0]
    errors, requests = (_recorded(f"slo_{part}:rate{base}", slo) for part in ("errors", "requests"))
    if span != base:
        errors, requests = (f"sum_over_time({part}[{span}])" for part in (errors, requests))
    return _record(f"slo_errors:ratio_rate{span}", slo, f"{errors}\n/\n({requests} > 0)")


def _ratios(objective: Objective, slo: str, policy: Policy) -> list[Rule]:
    ratios = [_ratio(slo, span, policy) for span in policy.spans]
    return ratios + [
        _record(f"slo_burn:rate{span}", slo, f"{_recorded(f'slo_errors:ratio_rate{span}', slo)} / {objective.budget}")
        for span in policy.spans
    ]


def _budget(objective: Objective, slo: str, policy: Policy) -> list[Rule]:
    spent = f"{_recorded(f'slo_errors:ratio_rate{policy.period}', slo)} / {objective.budget}"
    rules = [] if policy.period in policy.spans else [_ratio(slo, policy.period, policy)]
    return [*rules, _record("slo_error_budget_remaining:ratio", slo, f"1 - {spent}")]


def _alert(objective: Objective, slo: str, policy: Policy, window: Window) -> Rule:
    slow = isinstance(objective, Latency)
    name = "SloLatencyBurning" if slow else "SloAvailabilityBurning"
    requests = _recorded(f"slo_requests:rate{policy.spans[0]}", slo)
    burning = [f"{_recorded(f'slo_burn:rate{span}', slo)} > {window.factor:g}" for span in (window.long, window.short)]
    enough = f"sum_over_time({requests}[{window.long}]) * {seconds(policy.interval)} >= {window.requests}"
    return {
        "alert": name,
        "expr": "\nand\n".join([*burning, enough]),
        "for": window.hold,
        "labels": {"severity": window.severity, "subject": "users", "slo": slo, "window": window.long},
        "annotations": {
            "summary": _summary(objective),
            "description": _description(objective, slo, policy, window),
            "tuning": TUNING[type(objective)],
            "runbook_url": f"runbooks/{name}.md",
            "dashboard_url": DASHBOARD,
        },
    }


def _summary(objective: Objective) -> str:
    bad = f"takes more than {objective.threshold:g} s for" if isinstance(objective, Latency) else "fails"
    return f"{{{{ $labels.job }}}} {bad} too many requests to keep its objective of {objective.objective:g} %."


def _description(objective: Objective, slo: str, policy: Policy, window: Window) -> str:
    bad = f"took more than {objective.threshold:g} s" if isinstance(objective, Latency) else "failed"
    lasts = f"{seconds(policy.period)} / job:slo_burn:rate{window.long}{{job=%q,slo={json.dumps(slo)}}}"
    return (
        f'Over the last {window.long}, {{{{ $value | printf "%.1f" }}}} times as many requests {bad} as the objective '
        f"allows; the limit is {window.factor:g}, over the last {window.short} too. At this rate, the error "
        f"budget of {policy.period} lasts {{{{ printf `{lasts}` $labels.job | query | first | value | "
        f"humanizeDuration }}}}."
    )


def write(root: Path = ROOT) -> None:
    """Write the rules."""
    for name, text in build(objectives.load(root / DATA)).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def outdated(root: Path = ROOT) -> list[str]:
    """Name the files that are not what would be written."""
    built = build(objectives.load(root / DATA))
    return [name for name, text in built.items() if not (root / name).exists() or (root / name).read_text() != text]


def main() -> int:
    """Write the rules, or with --check say which are not current."""
    if "--check" not in sys.argv[1:]:
        write()
        return 0
    stale = outdated()
    print(f"Not current: {', '.join(stale)}; `make slo` writes them" if stale else "slo: current")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(report(main))
