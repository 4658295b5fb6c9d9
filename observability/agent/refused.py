"""What the agent will not do, and why, as it answers."""

from typing import Any


class Refused(Exception):
    """A request that is refused.

    Args:
        status: of the HTTP answer.
        error: one word for programs.
        detail: one sentence for a person.
        more: what else the answer holds.
    """

    def __init__(self, status: int, error: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.body = {"error": error, "detail": detail, **more}
