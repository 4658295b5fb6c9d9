"""What is done to a server under the tuner's eyes, and what must be seen."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.prove_tuning.run import Run


@dataclass
class Setup:
    """What runs.

    Args:
        app: what gunicorn serves.
        env: the server's settings, over two sync workers with the fault routes.
        tuner_env: settings of every tuner that the scenario starts.
        scaled: whether rules, routes and the tuner's durations are: a minute is 20 s.
        alertmanager: whether there is one.
        prefix: what gunicorn's command begins with.
    """

    app: str = "app:create_app()"
    env: Mapping[str, object] = field(default_factory=dict)
    tuner_env: Mapping[str, object] = field(default_factory=dict)
    scaled: bool = False
    alertmanager: bool = True
    prefix: Sequence[str] = ()


@dataclass(frozen=True)
class Scenario:
    """One row of the proof.

    Args:
        name: as in `make prove-tuning ARGS=NAME`.
        about: what happens, in a sentence.
        expects: what must be seen, in a sentence.
        run: does it, and checks.
        setup: what runs.
        alone: whether nothing else may run on the machine meanwhile.
        arrange: begins what has to be there before the server, and may change the setup; the run's `extra` is what it
            returns.
        slow: whether it takes longer than eight minutes.
        failures: requests that may fail, beside those of clients who are there for the failures.
        scale: what is not as shipped, in words; empty for the usual words.
        plot: the curves of its picture, below that of the workers: some of tests/prove_tuning/plots.py; none for no
            picture.
        lacking: says why this machine cannot run it, or nothing.
    """

    name: str
    about: str
    expects: str
    run: Callable[["Run"], None]
    setup: Setup = field(default_factory=Setup)
    alone: bool = False
    arrange: Callable[[Setup, ExitStack], Any] | None = None
    slow: bool = False
    failures: int = 0
    scale: str = ""
    plot: Sequence[str] = ("queue",)
    lacking: Callable[[], str] = str
