"""The W3C trace context of a request: what the caller says of the trace that it belongs to.

https://www.w3.org/TR/trace-context/: a header that breaks a rule counts as absent, and a new trace begins.
"""

import re

_LONGEST = 512
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED = 1

_MOST_MEMBERS = 32
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"{_KEY}={_VALUE}")


def parse(header: str) -> tuple[str, str, bool] | None:
    """Return a traceparent's trace id, parent id, and whether the caller sampled it; None for an invalid one."""
    if len(header) > _LONGEST:
        return None
    found = _FORM.fullmatch(header)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if more is not None and version == "00":
        return None
    return trace_id, parent_id, bool(int(flags, 16) & _SAMPLED)


def parse_state(header: str) -> list[tuple[str, str]]:
    """Return a tracestate's members; none of them where one is invalid, or where they are too many or too long."""
    if len(header) > _LONGEST:
        return []
    members = [member for part in header.split(",") if (member := part.strip(" \t"))]
    if len(members) > _MOST_MEMBERS or not all(_MEMBER.fullmatch(member) for member in members):
        return []
    pairs = [(key, value) for key, _, value in (member.partition("=") for member in members)]
    return pairs if len({key for key, _ in pairs}) == len(pairs) else []
