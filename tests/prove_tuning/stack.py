"""All that a scenario runs: the server, Prometheus, Alertmanager, who is told, and the tuners that it starts."""

import copy
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from observability.tuning import memory
from observability.tuning.memory import Entry
from tests.prove.stack import rest
from tests.prove.webhook import Webhook
from tests.prove_tuning.scenario import Setup
from tests.server import wait_until
from tests.tuning.parts import Stack as Parts
from tests.tuning.parts import Tuner

FOUND_SECONDS = 60


class Stack(Parts):
    """The parts, in a directory of their own that goes with them.

    Args:
        setup: what runs.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = copy.deepcopy(setup)
        self.people = Webhook()
        self.tuners: list[Tuner] = []
        self._around = ExitStack()

    def __enter__(self) -> "Stack":
        setup = self.setup
        with ExitStack() as starting:
            directory = starting.enter_context(tempfile.TemporaryDirectory(prefix="sightline-tuning-"))
            starting.enter_context(self.people)
            super().__init__(
                Path(directory),
                alertmanager=setup.alertmanager,
                app=setup.app,
                env={"FAULTS_ENABLED": 1, **setup.env},
                prefix=setup.prefix,
                scaled=setup.scaled,
                people=self.people.url,
            )
            self.started = time.time()
            super().__enter__()
            starting.callback(super().__exit__)
            self._found()
            self._around = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._around.close()

    def _found(self) -> None:
        """Wait until Prometheus has seen the server, and found Alertmanager."""
        seen = 'count(up{job="sightline"} == 1)'
        wait_until(lambda: self.prometheus.query(seen), FOUND_SECONDS, "the agent in Prometheus")
        if self.with_alertmanager:
            found = lambda: self.prometheus.api("alertmanagers")["activeAlertmanagers"]  # noqa: E731
            wait_until(found, FOUND_SECONDS, "Alertmanager in Prometheus")

    def tuner(self, name: str = "tuner", **env: object) -> Tuner:
        """Return a tuner in apply mode; what it says is kept for the result, also when it has ended."""
        made = super().tuner(name, **{**self.setup.tuner_env, **env})
        self.tuners.append(made)
        return made

    def entries(self) -> list[Entry]:
        """Return what all tuners decided, and what came of it, the oldest first."""
        files = {Path(each.env["TUNER_DIR"]) / memory.FILE for each in self.tuners}
        found = [entry for path in sorted(files) for entry in memory.read(path).entries]
        return sorted(found, key=lambda each: each.time)

    def rest(self, seconds: float) -> None:
        """Wait, unless everything is interrupted."""
        rest(seconds)
