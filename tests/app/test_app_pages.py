"""The start page, the health check, the boot, and the settings."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import Settings, create_app
from observability.settings import SettingsError, load, shown


def test_the_start_page_links_to_the_rest(make: Callable[..., FlaskClient]) -> None:
    """Its own links work, the others are those of the settings, and nothing is loaded from elsewhere."""
    client = make(faults=True, grafana_url="http://127.0.0.1:3999", agent_url="http://127.0.0.1:9199/")
    answer = client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    links = re.findall(r'href="([^"]+)"', answer.text)
    own = [link for link in links if link.startswith("/")]
    assert own == ["/todos", "/healthz", "/faults"]
    assert [client.get(link).status_code for link in own] == [200] * 3
    agent = [f"http://127.0.0.1:9199/{name}" for name in ("metrics", "livez", "readyz", "state")]
    watchers = ["http://127.0.0.1:9090", "http://127.0.0.1:9093", "http://127.0.0.1:3999"]
    assert links[len(own) :] == agent + watchers
    assert not re.search(r"<(script|img|link|iframe)|url\(|@import", answer.text)


@pytest.mark.parametrize("host", ["x<script>", "a b", '"', "x:99999999", "", "x;ls"])
def test_a_hostile_host_is_harmless(make: Callable[..., FlaskClient], host: str) -> None:
    client = make()
    for path in ("/", "/todos", "/nowhere"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code in (200, 400, 404)
        assert "<script>" not in answer.text


def test_health_asks_nobody_else(make: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch) -> None:
    client = make()
    monkeypatch.setattr("sqlalchemy.engine.Engine.connect", lambda *_: pytest.fail("asked the database"))
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_a_bug_is_a_problem_that_tells_nothing(make: Callable[..., FlaskClient]) -> None:
    """An uncaught exception is a 500 problem document without its text, and is still seen by who listens."""
    from flask import got_request_exception

    client = make(faults=True)
    seen: list[type[BaseException]] = []

    def note(_sender: object, exception: BaseException) -> None:
        seen.append(type(exception))

    with got_request_exception.connected_to(note):
        answer = client.get("/faults/fail")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert set(answer.json) == {"type", "title", "status", "detail", "instance"}
    assert "njected" not in answer.text
    assert [each.__name__ for each in seen] == ["Injected"]


def test_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("MAX_BODY_BYTES", "1024")
    client = create_app().test_client()
    assert client.post("/todos", json={"title": "t", "notes": "n" * 1024}).status_code == 413
    assert (tmp_path / "elsewhere" / "todos.sqlite3").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://host/name"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "postgresql://u:hunter2@host:port/name"),
        ("DATABASE_URL", "hunter2"),
        ("REDIS_URL", "http://host"),
        ("REDIS_URL", "redis://:hunter2@host:port"),
        ("REDIS_URL", "redis://host?no_such_option=1"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_TIMEOUT", "nan"),
        ("CACHE_TTL_SECONDS", "0"),
        ("MAX_BODY_BYTES", "1e6"),
        ("FAULTS_ENABLED", "maybe"),
        ("DATA_DIR", "relative"),
        ("DATABASE_PASSWORD_FILE", "relative"),
    ],
)
def test_a_senseless_setting_is_refused_in_one_line(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is .*, but takes ") as refused:
        load(Settings, {variable: value})
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql://u:p@h:1/d?sslmode=require", "postgresql+psycopg://u:p@h:1/d?sslmode=require"),
        ("sqlite:////var/lib/t.sqlite3", "sqlite+pysqlite:////var/lib/t.sqlite3"),
        ("", "sqlite+pysqlite:////data/todos.sqlite3"),
    ],
)
def test_the_database_url_gets_the_driver_we_bring(given: str, used: str) -> None:
    settings = load(Settings, {"DATABASE_URL": given, "DATA_DIR": "/data"})
    assert settings.database.render_as_string(hide_password=False) == used


def test_secrets_are_masked_where_settings_are_shown() -> None:
    environ = {"DATABASE_URL": "postgresql://u:hunter2@h/d", "REDIS_URL": "redis://:hunter2@h"}
    told = dict(shown(load(Settings, environ)))
    assert "hunter2" not in str(told)
    assert told["DATABASE_URL"] == "postgresql://u:***@h/d"


def test_the_database_password_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/word\n")
    settings = load(Settings, {"DATABASE_URL": "postgresql://u@h/d", "DATABASE_PASSWORD_FILE": str(secret)})
    assert settings.database.password == "p@ss/word"
    assert "p@ss" not in str(dict(shown(settings)))
    embedded = load(Settings, {"DATABASE_PASSWORD_FILE": str(secret)})
    assert embedded.database.password is None


def test_a_password_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="which cannot be read: No such file or directory"):
        load(Settings, {"DATABASE_PASSWORD_FILE": str(tmp_path / "absent")})
