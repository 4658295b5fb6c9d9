"""`instrument(app)` finds out what an app is."""

import functools
import subprocess
import sys
from typing import Any

import flask
import pytest
import tornado.web
import tornado.wsgi
from a2wsgi import WSGIMiddleware
from aiohttp import web
from starlette.applications import Starlette

import observability
from observability import aiohttp_app, asgi, frameworks, wsgi
from tests.server import ROOT


async def function(scope: Any, receive: Any, send: Any) -> None: ...


def returns_a_coroutine(scope: Any, receive: Any, send: Any) -> Any:
    return function(scope, receive, send)


def wsgi_callable(environ: Any, start_response: Any) -> list[bytes]:
    return []


class Callable:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WSGICallable:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


@pytest.mark.parametrize(
    "app",
    [function, returns_a_coroutine, Callable(), functools.partial(function), Callable().__call__],
    ids=["function", "returns a coroutine", "object", "partial", "method"],
)
def test_an_asgi_callable_is_known(app: Any) -> None:
    assert isinstance(observability.instrument(app), asgi.Middleware)


@pytest.mark.parametrize("app", [wsgi_callable, WSGICallable(), functools.partial(wsgi_callable)])
def test_a_wsgi_callable_is_known(app: Any) -> None:
    assert isinstance(observability.instrument(app), wsgi.Middleware)


def test_an_app_of_a_framework_is_changed_in_place_and_once() -> None:
    for app in (flask.Flask("in place"), Starlette(), web.Application()):
        assert observability.instrument(app) is app
        assert observability.instrument(app) is app


def test_starlettes_stack_is_within_one_middleware() -> None:
    app = observability.instrument(observability.instrument(Starlette()))
    stack = app.build_middleware_stack()
    assert isinstance(stack, asgi.Middleware)
    assert not isinstance(stack.app, asgi.Middleware)


def test_a_starlette_app_that_has_run_already_is_measured_from_now_on() -> None:
    app = Starlette()
    app.middleware_stack = app.build_middleware_stack()
    observability.instrument(observability.instrument(app))
    assert isinstance(app.middleware_stack, asgi.Middleware)
    assert not isinstance(app.middleware_stack.app, asgi.Middleware)


def test_aiohttps_middleware_is_the_outermost_and_there_once() -> None:
    @web.middleware
    async def own(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        return response

    app = observability.instrument(observability.instrument(web.Application(middlewares=[own])))
    assert next(type(each) for each in app.middlewares) is aiohttp_app.Middleware
    assert len(app.middlewares) == 2


@pytest.mark.parametrize("app", [tornado.web.Application(), tornado.wsgi.WSGIContainer(wsgi_callable), "app:app", None])
def test_what_is_neither_is_refused_by_name(app: Any) -> None:
    with pytest.raises(TypeError, match=r"takes a WSGI or ASGI application, not "):
        observability.instrument(app)


@pytest.mark.parametrize(
    ("app", "worker_class", "told"),
    [
        (flask.Flask("kind"), "asgi", "runs ASGI apps, and this one is for WSGI: wrap it in a2wsgi.WSGIMiddleware"),
        (observability.instrument(wsgi_callable), "uvicorn_worker.UvicornWorker", "this one is for WSGI"),
        (observability.instrument(function), "gthread", "runs WSGI apps, and this one is for ASGI: use one for ASGI"),
        (web.Application(), "gevent", "this one is for aiohttp: use one for aiohttp"),
        (WSGIMiddleware(flask.Flask("kind")), "asgi", ""),
        (Starlette(), "asgi", ""),
        (web.Application(), "aiohttp.GunicornWebWorker", ""),
        (flask.Flask("kind"), "tornado", ""),
        (wsgi_callable, "asgi", ""),  # it may be anything
        (flask.Flask("kind"), "mine.Worker", ""),
    ],
)
def test_a_worker_class_that_cannot_call_the_app_is_told_in_one_line(app: Any, worker_class: str, told: str) -> None:
    said = frameworks.mismatch(app, worker_class)
    assert told in said
    assert bool(said) == bool(told)
    assert "\n" not in said


def test_no_framework_is_imported_for_another_kind_of_app() -> None:
    code = """
import sys, observability
async def app(scope, receive, send): ...
observability.instrument(app)
observability.instrument(lambda environ, start_response: [])
print(*{"flask", "starlette", "aiohttp", "tornado", "gevent"} & set(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout == "\n"
