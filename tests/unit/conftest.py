"""What unit tests share."""

from typing import Any

import orjson
import pytest

from observability import events


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collect the requests' lines instead of writing them."""
    found: list[dict[str, Any]] = []

    def put(_level: str, data: bytes) -> None:
        line = orjson.loads(data)
        if line.get("event.name") == "http.server.request":
            found.append(line)

    monkeypatch.setattr(events, "put", put)
    return found
