"""Worker classes: what the setting takes and refuses, what bounds them, and the last word of those that say none."""

import signal
import subprocess
import sys

import pytest

from observability import worker_classes
from observability.settings import Server, SettingsError, load
from tests.server import ROOT


@pytest.mark.parametrize("name", worker_classes.WORKER_CLASSES)
def test_every_class_is_taken_whatever_its_case(name: str) -> None:
    assert load(Server, {"GUNICORN_WORKER_CLASS": name.upper()}).worker_class == name


@pytest.mark.parametrize(("name", "instead"), [("eventlet", "gevent"), ("gaiohttp", "aiohttp.GunicornWebWorker")])
def test_a_class_that_is_gone_names_its_replacement(name: str, instead: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(Server, {"GUNICORN_WORKER_CLASS": name})
    assert str(refused.value).startswith(
        f"GUNICORN_WORKER_CLASS is '{name}', which gunicorn no longer has: use {instead}"
    )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("tornado", "tornado"),
        ("uvicorn_worker.UvicornWorker", "uvicorn-worker"),
        ("uvicorn.workers.UvicornWorker", "uvicorn"),
        ("aiohttp.GunicornWebWorker", "aiohttp"),
    ],
)
def test_a_class_whose_package_is_missing_names_the_package(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError) as refused:
        load(Server, {"GUNICORN_WORKER_CLASS": name})
    assert str(refused.value) == (
        f"GUNICORN_WORKER_CLASS is '{name}', which needs the package {package}: add it to the requirements"
    )


@pytest.mark.parametrize(
    ("name", "capacity"),
    [
        ("sync", 1),
        ("gthread", 8),
        ("gevent", 1000),
        ("gevent_wsgi", 1000),
        ("tornado", 1),
        ("asgi", None),
        ("uvicorn_worker.UvicornWorker", None),
        ("aiohttp.GunicornWebWorker", None),
        ("mine.Worker", None),
    ],
)
def test_capacity_is_what_the_class_enforces(name: str, capacity: int | None) -> None:
    assert worker_classes.capacity(name, 8, 1000) == capacity


LAST = """
import os, signal
from observability import last_signal
{before}
last_signal.before(lambda: (os.write(1, b"last"), 1 / 0))
os.kill(os.getpid(), signal.SIGTERM)
os.write(1, b"alive")
"""


def test_the_last_word_comes_before_the_signal_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", LAST.format(before="")], cwd=ROOT, capture_output=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, b"last")


def test_a_class_with_a_handler_of_its_own_keeps_it() -> None:
    own = "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'own '))"
    ended = subprocess.run([sys.executable, "-c", LAST.format(before=own)], cwd=ROOT, capture_output=True)
    assert (ended.returncode, ended.stdout) == (0, b"own alive")
