"""gunicorn's configuration: settings in, hooks wired, nothing else.

Every value comes from the environment, see docs/settings.md. gunicorn takes any global named like one of its settings
as that setting, so imports stand under an underscore.
"""

from pathlib import Path as _Path

from observability import gunicorn_log as _gunicorn_log
from observability import hooks as _hooks
from observability import settings as _settings
from observability import worker_classes as _worker_classes

_server = _settings.load_or_exit(_settings.Server)
_settings.load_or_exit(_settings.Settings)

wsgi_app = "app:create_app()"
bind = _server.bind.split(",")
backlog = _server.backlog
workers = _server.workers
worker_class = _server.worker_class
threads = _server.threads if worker_class == "gthread" else 1  # sync with threads would silently become gthread
worker_connections = _server.worker_connections
timeout = _server.timeout
graceful_timeout = _server.graceful_timeout
keepalive = _server.keepalive
max_requests = _server.max_requests
max_requests_jitter = _server.jitter
preload_app = _server.preload
forwarded_allow_ips = _server.forwarded_allow_ips
pidfile = _server.pidfile or None
_memory = _Path("/dev/shm")  # noqa: S108 - gunicorn makes a file of its own there, unlinked at once
worker_tmp_dir = str(_memory) if _memory.is_dir() else None  # a heartbeat on a slow disk could miss its time
control_socket_disable = True  # it has no authentication; the agent answers instead

logger_class = _gunicorn_log.Logger
accesslog = None  # the middleware writes one canonical line a request, under every worker class

if preload_app and _worker_classes.WORKER_CLASSES[worker_class].greenlets:
    # What the app makes at import in the master, locks above all, must be gevent's. Not what the arbiter itself stands
    # on: it would wait for an event loop that does not run there. The worker patches the rest.
    import warnings as _warnings

    from gevent import monkey as _monkey

    _warnings.filterwarnings("ignore", "Patching more than once", _monkey.MonkeyPatchWarning)
    _monkey.patch_all(os=False, queue=False, signal=False, subprocess=False)

nworkers_changed = _hooks.nworkers_changed
on_starting = _hooks.on_starting
when_ready = _hooks.when_ready
on_reload = _hooks.on_reload
pre_exec = _hooks.pre_exec
pre_fork = _hooks.pre_fork
post_fork = _hooks.post_fork
post_worker_init = _hooks.post_worker_init
pre_request = _hooks.pre_request
worker_abort = _hooks.worker_abort
worker_exit = _hooks.worker_exit
child_exit = _hooks.child_exit
on_exit = _hooks.on_exit
