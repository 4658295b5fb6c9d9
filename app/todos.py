"""The todo API: list, create, read, replace, delete."""

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, url_for
from msgspec import Meta
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Integer,
    Row,
    Table,
    Text,
    TypeDecorator,
    delete,
    insert,
    select,
    update,
)

from app import inputs
from app.cache import Cache
from app.database import Database, metadata
from app.problems import Problem
from observability import annotate

MAX_TITLE = 200
MAX_NOTES = 10_000
MAX_PAGE = 100
MAX_ID = 2**63 - 1  # a BIGINT

_NO_NUL = r"\A[^\x00]*\Z"  # PostgreSQL's text cannot hold it


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


TODOS = Table(
    "todos",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("title", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,  # an id that was deleted never names another todo
)


class TodoInput(msgspec.Struct, forbid_unknown_fields=True):
    """What a client writes."""

    title: Annotated[str, Meta(min_length=1, max_length=MAX_TITLE, pattern=_NO_NUL)]
    notes: Annotated[str, Meta(max_length=MAX_NOTES, pattern=_NO_NUL)] = ""
    done: bool = False


class Todo(msgspec.Struct):
    """What a client reads."""

    id: int
    title: str
    notes: str
    done: bool
    created_at: datetime
    updated_at: datetime


class PageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which todos are listed: those after or before an id, or else the first."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 20
    after: Annotated[int, Meta(ge=0, le=MAX_ID)] | None = None
    before: Annotated[int, Meta(ge=0, le=MAX_ID)] | None = None

    def __post_init__(self) -> None:
        """Refuse both ends at once: a page would have no direction."""
        if self.after is not None and self.before is not None:
            raise ValueError("`after` and `before` exclude each other")


def blueprint(database: Database, cache: Cache) -> Blueprint:
    """Make the routes under /todos."""
    routes = Blueprint("todos", __name__, url_prefix="/todos")

    @routes.get("")
    def index() -> Response:
        return _json(_page(database, inputs.query(PageQuery)))

    @routes.post("")
    def create() -> Response:
        todo = _create(database, inputs.body(TodoInput))
        annotate(todo_id=todo.id)
        return _json(todo, HTTPStatus.CREATED, {"Location": url_for(".read", id=todo.id)})

    @routes.get("/<id>")
    def read(id: str) -> Response:
        number = _number(id)
        return _json(_found(cache.fetch(_key(number), lambda: _read(database, number)), number))

    @routes.put("/<id>")
    def replace(id: str) -> Response:
        number = _number(id)
        todo = _found(_replace(database, number, inputs.body(TodoInput)), number)
        cache.forget(_key(number))
        return _json(todo)

    @routes.delete("/<id>")
    def remove(id: str) -> Response:
        number = _number(id)
        _found(_delete(database, number) or None, number)
        cache.forget(_key(number))
        return Response(status=HTTPStatus.NO_CONTENT)

    return routes


def _number(id: str) -> int:
    """Read an id; what cannot be one names nothing."""
    if not (id.isascii() and id.isdigit() and len(id) <= len(str(MAX_ID)) and int(id) <= MAX_ID):
        raise Problem(HTTPStatus.NOT_FOUND, "There is no such todo: an id is a whole number.")
    annotate(todo_id=int(id))
    return int(id)


def _key(number: int) -> str:
    return f"todo:{number}"


def _found(value: Any, number: int) -> Any:
    if value is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"There is no todo {number}.")
    return value


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(encoded, status=status, headers=headers, content_type="application/json")


def _todo(row: Row[Any]) -> Todo:
    return Todo(**row._mapping)


def _create(database: Database, given: TodoInput) -> Todo:
    now = datetime.now(UTC)
    values = msgspec.structs.asdict(given) | {"created_at": now, "updated_at": now}
    with database.transaction() as connection:
        return _todo(connection.execute(insert(TODOS).values(values).returning(*TODOS.c)).one())


def _read(database: Database, number: int) -> bytes | None:
    with database.transaction() as connection:
        row = connection.execute(select(TODOS).where(TODOS.c.id == number)).one_or_none()
    return msgspec.json.encode(_todo(row)) if row else None


def _replace(database: Database, number: int, given: TodoInput) -> Todo | None:
    values = msgspec.structs.asdict(given) | {"updated_at": datetime.now(UTC)}
    statement = update(TODOS).where(TODOS.c.id == number).values(values).returning(*TODOS.c)
    with database.transaction() as connection:
        row = connection.execute(statement).one_or_none()
    return _todo(row) if row else None


def _delete(database: Database, number: int) -> int:
    with database.transaction() as connection:
        return connection.execute(delete(TODOS).where(TODOS.c.id == number)).rowcount


def _page(database: Database, asked: PageQuery) -> dict[str, Any]:
    """Read one page by key: unlike an offset, it costs the same at the end of the table as at its start."""
    statement = select(TODOS).limit(asked.limit + 1)  # one more says whether the list goes on
    if asked.before is not None:
        statement = statement.where(TODOS.c.id < asked.before)
    if asked.after is not None:
        statement = statement.where(TODOS.c.id > asked.after)
    backwards = asked.before is not None
    statement = statement.order_by(TODOS.c.id.desc() if backwards else TODOS.c.id)
    with database.transaction() as connection:
        rows = connection.execute(statement).all()
    goes_on = len(rows) > asked.limit
    todos = [_todo(row) for row in rows[: asked.limit]]
    if backwards:
        todos.reverse()
    return {"items": todos, "links": _links(asked, todos, backwards=backwards, goes_on=goes_on)}


def _links(asked: PageQuery, todos: Sequence[Todo], *, backwards: bool, goes_on: bool) -> dict[str, str | None]:
    first = todos[0].id if todos else (asked.after or 0) + 1
    last = todos[-1].id if todos else (asked.before or 1) - 1
    has_next = bool(asked.before) if backwards else goes_on
    has_previous = goes_on if backwards else bool(asked.after)
    return {
        "next": url_for(".index", limit=asked.limit, after=last) if has_next else None,
        "prev": url_for(".index", limit=asked.limit, before=first) if has_previous else None,
    }
