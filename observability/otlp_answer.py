"""What the receiver refused, read from its answer: protobuf again, without its library.

https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/collector/trace/v1/trace_service.proto
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}


def rejected(body: bytes) -> tuple[int, str]:
    """Return how many spans an ExportTraceServiceResponse says were rejected, and why.

    Raises:
        ValueError: the body is no such message.
    """
    count, why = 0, ""
    for number, partial_success in _fields(body):
        if number != 1:
            continue
        if isinstance(partial_success, int):
            raise ValueError("a number, where a message belongs")
        for inner, value in _fields(partial_success):
            if inner == 1 and isinstance(value, int):
                count = value if value < 2**63 else 0  # negative, which means nothing
            elif inner == 2 and isinstance(value, bytes):
                why = value.decode("utf-8", "backslashreplace")
    return count, why


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field: a number where it is a varint, else its bytes."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if tag >> 3 == 0 or kind not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"no field begins with {tag}")
        size = _SIZES.get(kind, 0)
        if kind in (_VARINT, _BYTES):
            size, at = _read_varint(message, at)
        if kind == _VARINT:
            yield tag >> 3, size
            continue
        if at + size > len(message):
            raise ValueError("the message ends within a field")
        yield tag >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a varint, and where the next byte is."""
    number = 0
    for place in range(at, min(at + 10, len(message))):
        number |= (message[place] & 0x7F) << 7 * (place - at)
        if message[place] < 0x80:
            return number & 2**64 - 1, place + 1
    raise ValueError("a number without an end")
