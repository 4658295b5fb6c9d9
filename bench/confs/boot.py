"""Times each worker's boot: from just before its fork to the end of what follows the app's loading.

Around Sightline's own configuration, or around none: BENCH_OURS says which.
"""

import os as _os
import time as _time
from pathlib import Path as _Path
from typing import Any as _Any

if _os.environ.get("BENCH_OURS"):
    exec((_Path(__file__).resolve().parents[2] / "gunicorn.conf.py").read_text())
else:
    worker_tmp_dir = "/dev/shm"  # gunicorn's heartbeat file, unlinked at once
    control_socket_disable = True

_before_fork = globals().get("pre_fork", lambda _server, _worker: None)
_after_init = globals().get("post_worker_init", lambda _worker: None)
_forked = [0.0]


def pre_fork(server: _Any, worker: _Any) -> None:
    """Note the time; the worker inherits it."""
    _forked[0] = _time.monotonic()
    _before_fork(server, worker)


def post_worker_init(worker: _Any) -> None:
    """Write down what the boot took."""
    _after_init(worker)
    with _Path(_os.environ["BENCH_BOOTS"]).open("a") as boots:
        boots.write(f"{_time.monotonic() - _forked[0]}\n")
