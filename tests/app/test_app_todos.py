"""The todo API over both databases: what it keeps, how it pages, and what it refuses."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import Settings, create_app

PROBLEM = "application/problem+json"


def _create(client: FlaskClient, **todo: object) -> dict[str, object]:
    answer = client.post("/todos", json={"title": "t", **todo})
    assert answer.status_code == 201, answer.text
    return answer.json


def test_a_todo_lives_and_dies(any_client: FlaskClient) -> None:
    """What is created is read, replaced as a whole, and gone once deleted."""
    created = any_client.post("/todos", json={"title": "Größe ☃ 𝄞\n", "notes": "n" * 10_000})
    assert created.status_code == 201
    where = created.headers["Location"]
    assert where == f"/todos/{created.json['id']}"
    assert any_client.get(where).json == created.json
    assert created.json["title"] == "Größe ☃ 𝄞\n"
    assert created.json["created_at"].endswith("Z")

    replaced = any_client.put(where, json={"title": "other", "done": True})
    assert replaced.status_code == 200
    expected = {**created.json, "title": "other", "notes": "", "done": True}
    assert {**expected, "updated_at": replaced.json["updated_at"]} == replaced.json
    assert replaced.json["updated_at"] > created.json["updated_at"]
    assert any_client.get(where).json == replaced.json

    removed = any_client.delete(where)
    assert (removed.status_code, removed.data) == (204, b"")
    for answer in (any_client.get(where), any_client.delete(where), any_client.put(where, json={"title": "t"})):
        assert (answer.status_code, answer.content_type) == (404, PROBLEM)


def test_an_id_is_never_used_again(any_client: FlaskClient) -> None:
    first = _create(any_client)["id"]
    any_client.delete(f"/todos/{first}")
    assert _create(any_client)["id"] > first


def test_pages_lead_forth_and_back(any_client: FlaskClient) -> None:
    """The next links visit every todo once, and the prev links lead back the same way."""
    ids = [_create(any_client)["id"] for _ in range(7)]
    forth, url = [], "/todos?limit=3"
    while url:
        page = any_client.get(url).json
        forth.append([todo["id"] for todo in page["items"]])
        last, url = page, page["links"]["next"]
    assert forth == [ids[:3], ids[3:6], ids[6:]]

    back, url = [], last["links"]["prev"]
    while url:
        page = any_client.get(url).json
        back.append([todo["id"] for todo in page["items"]])
        assert page["links"]["next"]
        url = page["links"]["prev"]
    assert back == [ids[3:6], ids[:3]]


def test_an_empty_list_has_no_links(any_client: FlaskClient) -> None:
    assert any_client.get("/todos").json == {"items": [], "links": {"next": None, "prev": None}}


def test_a_page_behind_the_end_leads_back(any_client: FlaskClient) -> None:
    last = _create(any_client)["id"]
    page = any_client.get(f"/todos?after={last}").json
    assert page["items"] == []
    assert [todo["id"] for todo in any_client.get(page["links"]["prev"]).json["items"]] == [last]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=-1", "after"),
        (f"after={2**63}", "after"),
        ("before=1.5", "before"),
        ("offset=3", "offset"),
        ("limit=%00", "limit"),
        ("limit=%FF", "limit"),
    ],
)
def test_a_senseless_page_is_refused(client: FlaskClient, query: str, parameter: str) -> None:
    answer = client.get(f"/todos?{query}")
    assert (answer.status_code, answer.content_type) == (400, PROBLEM)
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


def test_a_page_has_one_direction(client: FlaskClient) -> None:
    answer = client.get("/todos?after=1&before=5")
    assert (answer.status_code, answer.content_type) == (400, PROBLEM)
    assert "exclude" in answer.json["errors"][0]["detail"]


@pytest.mark.parametrize(
    "id", ["0", "x", "-1", "1.0", "٣", "%00", "%FF", "1%0A", "+1", str(2**63), "9" * 5000, "0x1", "1e3"]
)
@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_what_is_no_id_is_not_found(any_client: FlaskClient, id: str, method: str) -> None:
    answer = any_client.open(f"/todos/{id}", method=method.upper(), json={"title": "t"})
    assert (answer.status_code, answer.content_type) == (404, PROBLEM)


def test_the_largest_id_is_asked_of_the_database(any_client: FlaskClient) -> None:
    assert any_client.get(f"/todos/{2**63 - 1}").json["detail"] == f"There is no todo {2**63 - 1}."


def _boot_together(settings: Settings) -> list[int | None]:
    """Fork processes that make the app at the same moment and write a todo; return how they ended."""
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(8)

    def boot() -> None:
        gate.wait(20)
        answer = create_app(settings).test_client().post("/todos", json={"title": "t"})
        os._exit(0 if answer.status_code == 201 else 1)

    workers = [fork.Process(target=boot) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    return [worker.exitcode for worker in workers]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_workers_that_boot_together_agree_on_the_tables(
    request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str], database: str
) -> None:
    """Several workers over one new database: all boot at the first go, and all of them write."""
    postgres = request.getfixturevalue("postgres") if database == "postgres" else None
    for number in range(4):
        if postgres is not None:
            postgres.query("DROP TABLE IF EXISTS todos")
        settings = Settings(data_directory=tmp_path / str(number), database_url=postgres.url if postgres else "")
        assert _boot_together(settings) == [0] * 8
        assert len(create_app(settings).test_client().get("/todos").json["items"]) == 8
    assert "database.unavailable" not in capfd.readouterr().out


def test_sqlite_runs_in_wal_mode_and_survives_concurrent_writers(client: FlaskClient, tmp_path: Path) -> None:
    """Threads that write at the same time all succeed, and nothing is lost."""
    statuses: list[int] = []
    # Made one after the other: Flask parses generated code, which Python 3.11 cannot do in two threads at a time
    # ("AST constructor recursion depth mismatch", https://github.com/python/cpython/issues/106905).
    clients = [create_app(Settings(data_directory=tmp_path / "data")).test_client() for _ in range(8)]

    def write(mine: FlaskClient) -> None:
        statuses.extend(mine.post("/todos", json={"title": "t"}).status_code for _ in range(10))

    threads = [threading.Thread(target=write, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [201] * 80
    assert len(client.get("/todos?limit=100").json["items"]) == 80
    assert (tmp_path / "data" / "todos.sqlite3-wal").exists()
