"""The real gunicorn.conf.py, with the inner work of the hook named by BROKEN_HOOK made to fail."""

import os
import runpy
from typing import Any

from observability import catalogue, hooks, remains, runtime, slots, store, traces
from observability.agent_process import AgentProcess


class _BrokenStore:
    """Records everything but one metric."""

    STORE = store.STORE

    def __init__(self, broken: catalogue.Metric) -> None:
        self.broken = broken

    def child(self, metric: catalogue.Metric, *labels: str) -> Any:
        return _broken() if metric is self.broken else store.child(metric, *labels)


def _broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


_TARGETS: dict[str, tuple[Any, str, Any]] = {
    "nworkers_changed": (hooks, "store", _BrokenStore(catalogue.WORKERS)),
    "on_reload": (hooks, "store", _BrokenStore(catalogue.RELOADS)),
    "on_starting": (slots, "master_of", _broken),
    "when_ready": (AgentProcess, "start", _broken),
    "pre_exec": (AgentProcess, "hand_over", _broken),
    "post_fork": (slots, "claim", _broken),
    "post_worker_init": (runtime, "begin_process", _broken),
    "worker_exit": (traces, "stop", _broken),
    "child_exit": (remains, "bury", _broken),
    "on_exit": (AgentProcess, "stop", _broken),
}
setattr(*_TARGETS[os.environ["BROKEN_HOOK"]])
_conf = runpy.run_path("gunicorn.conf.py")
globals().update({key: value for key, value in _conf.items() if not key.startswith("_")})
