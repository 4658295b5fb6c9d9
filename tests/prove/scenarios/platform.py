"""Whether the watching itself works: rules/platform.yml."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.prove.scenario import Scenario
from tests.prove.scenarios.pressure import FULL, WAITING, faults
from tests.prove.stack import Setup, Stack

# Valid, and fails whenever it is evaluated: one series has many partners.
FAILING = {"groups": [{"name": "failing", "rules": [{"record": "failing", "expr": "vector(1) + on () up"}]}]}


@contextmanager
def _alertmanager_ends(stack: Stack) -> Iterator[None]:
    stack.alertmanagers[1].stop()
    yield
    stack.alertmanagers[1].start()


@contextmanager
def _tuner_gone(stack: Stack) -> Iterator[None]:
    with stack.tuner.closed(), faults(stack, "sleep?seconds=0.2", clients=16):
        yield


@contextmanager
def _rejected(stack: Stack) -> Iterator[None]:
    with _written(stack, stack.prometheus.config, "nonsense: true\n"):
        yield


@contextmanager
def _failing(stack: Stack) -> Iterator[None]:
    config: dict[str, Any] = yaml.safe_load(stack.prometheus.config.read_text())
    more = stack.prometheus.directory / "failing.yml"
    more.write_text(yaml.safe_dump(FAILING))
    config["rule_files"].append(str(more))
    with _written(stack, stack.prometheus.config, yaml.safe_dump(config)):
        yield


@contextmanager
def _written(stack: Stack, path: Path, text: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(text)
    stack.prometheus.process.send_signal(signal.SIGHUP)
    try:
        yield
    finally:
        path.write_text(before)
        stack.prometheus.process.send_signal(signal.SIGHUP)


SCENARIOS = (
    Scenario(
        name="alertmanager-ends",
        about="one Alertmanager of two is ended",
        alerts=("TargetDown", "AlertsNotSent"),
        inject=_alertmanager_ends,
        setup=Setup(alertmanagers=2),
    ),
    Scenario(
        name="tuner-gone",
        about="the tuner's webhook refuses connections, while threads run out",
        alerts=("AlertsNotSent",),
        inject=_tuner_gone,
        setup=Setup(env={"GUNICORN_THREADS": 2}),
        related={**FULL, **WAITING, "WorkerThreadsExhausted": "it is what the tuner should hear of"},
    ),
    Scenario(
        name="config-rejected",
        about="Prometheus is told to read a configuration that is none",
        alerts=("PrometheusConfigRejected",),
        inject=_rejected,
    ),
    Scenario(
        name="rules-failing",
        about="Prometheus reads a rule more, which fails whenever it is evaluated",
        alerts=("PrometheusRulesFailing",),
        inject=_failing,
    ),
)
