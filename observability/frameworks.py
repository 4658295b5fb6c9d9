"""`instrument(app)`: which middleware goes around which kind of application.

No framework is imported here unless the application is of that framework.
"""

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from observability import asgi, context, runtime, wsgi
from observability.request import Meter, Request
from observability.worker_classes import WORKER_CLASSES

if TYPE_CHECKING:
    from flask import Flask

T = TypeVar("T")


def instrument(app: T) -> T:
    """Measure an application: all that a Flask, Starlette, FastAPI or aiohttp app, or any WSGI or ASGI callable, needs.

    An app of one of these frameworks is changed in place; any other callable is wrapped. The result is what the server
    should run. An app that is instrumented already stays as it is.

    Raises:
        TypeError: it is none of these.
    """
    runtime.prepare()
    if isinstance(app, Meter):
        return app
    if hasattr(app, "wsgi_app"):
        return cast("T", _instrument_flask(cast("Flask", app)))
    if hasattr(app, "build_middleware_stack"):
        return cast("T", _instrument_starlette(app))
    if _is_a(app, "aiohttp.web", "Application"):
        from observability import aiohttp_app

        return cast("T", aiohttp_app.instrument(cast("Any", app)))
    for module, name in (("tornado.web", "Application"), ("tornado.wsgi", "WSGIContainer")):
        if _is_a(app, module, name):
            raise TypeError(f"instrument() takes a WSGI or ASGI application, not tornado's own {name}")
    if not callable(app):
        raise TypeError(f"instrument() takes a WSGI or ASGI application, not a {type(app).__name__}")
    return cast("T", _wrapped(app))


def mismatch(app: object, worker_class: str) -> str:
    """Say in one line that a worker class cannot call an app, and what helps; empty where it can, or is not known.

    Such a server boots, and fails every request before any middleware sees it.

    Args:
        app: what gunicorn has loaded.
        worker_class: gunicorn's setting.
    """
    known, kind = WORKER_CLASSES.get(worker_class), _kind(app)
    if known is None or not kind or kind == known.runs:
        return ""
    advice = "wrap it in a2wsgi.WSGIMiddleware, or use gthread or gevent" if kind == "WSGI" else f"use one for {kind}"
    return f"the worker class {worker_class} runs {known.runs} apps, and this one is for {kind}: {advice}"


def _kind(app: object) -> str:
    """Return what an app is: WSGI, ASGI or aiohttp; empty where it does not tell."""
    if isinstance(app, wsgi.Middleware) or hasattr(app, "wsgi_app"):
        return "WSGI"
    if _is_a(app, "aiohttp.web", "Application"):
        return "aiohttp"
    if callable(app) and (isinstance(app, asgi.Middleware) or _is_asgi(app)):
        return "ASGI"
    return ""


def _is_a(app: object, module: str, name: str) -> bool:
    """Tell whether an object is of a framework's class, which nothing can be while the framework is not imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(app, kind)


def _wrapped(app: Callable[..., Any]) -> Meter:
    return asgi.Middleware(app) if _is_asgi(app) else wsgi.Middleware(app)


def _is_asgi(app: Callable[..., Any]) -> bool:
    """Tell whether a callable is an ASGI application: a coroutine function, or one of scope, receive, and send."""
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        return True
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return sum(each.default is each.empty for each in positional) == 3


def _instrument_flask(app: "Flask") -> "Flask":
    if not isinstance(app.wsgi_app, Meter):
        from flask import got_request_exception  # a WSGI app without Flask does not pay for its import

        app.wsgi_app = wsgi.Middleware(app.wsgi_app, flask=app)  # type: ignore[method-assign]
        got_request_exception.connect(_note_exception, app)
    return app


def _note_exception(_sender: object, exception: BaseException, **_: object) -> None:
    """Remember what a handler raised: Flask makes it a 500 before the middleware could see it."""
    request = context.current.get()
    if isinstance(request, Request):
        request.error = exception
        request.learn_route()


def _instrument_starlette(app: Any) -> Any:
    """Put the middleware around all others of the app, its own error pages included, as the stack is built."""
    build, built = app.build_middleware_stack, app.middleware_stack
    if isinstance(built, Meter) or getattr(build, "instruments", False):
        return app

    def build_middleware_stack() -> asgi.Middleware:
        return asgi.Middleware(build())

    build_middleware_stack.instruments = True  # type: ignore[attr-defined]
    app.build_middleware_stack = build_middleware_stack
    if built is not None:
        app.middleware_stack = asgi.Middleware(built)
    return app
