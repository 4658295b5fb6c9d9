"""Spans as an OTLP export request: protobuf, written without its library.

OpenTelemetry's encoder and the messages that it builds cost seven times the CPU of this, 40 us a span, and 2 MB for
each worker. Most of what spans say was said by the ones before, so what is short is kept encoded.
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

import struct
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode

from observability import redact

MOST_KEPT = 1024
LONGEST_KEPT = 128
_MOST_OWNERS = 64
_DEEPEST = 16
_LOW_32, _LOW_64 = 2**32 - 1, 2**64 - 1

_LOCAL, _REMOTE = 0x100, 0x300  # SpanFlags of trace.proto: it is known whether the parent is remote, and whether it is

# Each tag is (field number << 3 | wire type): https://protobuf.dev/programming-guides/encoding/
_EVENT_TIME = struct.Struct("<BQ")
_DOUBLE = struct.Struct("<Bd")
_TIMES = struct.Struct("<BQBQ2sL")  # and the flags


def _long_varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_VARINTS = [_long_varint(number) for number in range(1024)]


def _varint(number: int) -> bytes:
    return _VARINTS[number] if number < 1024 else _long_varint(number)


# The beginning of a text as AnyValue, with its length before it, for the lengths that most have.
_TEXT_HEADS = [_varint(1 + len(_varint(n)) + n) + b"\x0a" + _varint(n) for n in range(512)]


def _field(tag: bytes, content: bytes) -> bytes:
    """Return a field that says its length: text, bytes, or a message."""
    return tag + _varint(len(content)) + content


def _utf8(text: Any) -> bytes:
    """Encode a text, whatever it holds: a lone surrogate has no UTF-8."""
    if not isinstance(text, str):
        text = redact.shown(text)
    return text.encode("utf-8", "backslashreplace")  # type: ignore[no-any-return]


def _text_field(tag: bytes, text: Any) -> bytes:
    return _field(tag, _utf8(text)) if text else b""


def _count_field(tag: bytes, count: int) -> bytes:
    return tag + _varint(min(count, _LOW_32)) if count > 0 else b""


def _integer(value: int) -> bytes:
    if -(2**63) <= value < 2**63:
        return b"\x18" + _varint(value & _LOW_64)
    return _field(b"\x0a", f"<integer of {value.bit_length()} bits>".encode())


def _value(value: Any, around: tuple[int, ...] = ()) -> bytes:
    """Encode an AnyValue, in the order in which OpenTelemetry's own encoder tells kinds apart.

    Args:
        around: identities of the containers that it is in.
    """
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, str):
        return _field(b"\x0a", _utf8(value))
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _DOUBLE.pack(0x21, value)
    if isinstance(value, bytes):
        return _field(b"\x3a", value)
    if id(value) in around or len(around) >= _DEEPEST:
        return _field(b"\x0a", b"<nested too deep>")
    around = (*around, id(value))
    if isinstance(value, Sequence):
        return _field(b"\x2a", b"".join([_field(b"\x0a", _value(each, around)) for each in value]))
    if isinstance(value, Mapping):
        pairs = [_field(b"\x0a", _key(str(key)) + _field(b"\x12", _value(each, around))) for key, each in value.items()]
        return _field(b"\x32", b"".join(pairs))
    return _field(b"\x0a", _utf8(redact.shown(value)))


def _key(key: Any) -> bytes:
    return _field(b"\x0a", _utf8(key))


def _pair(key: Any, value: Any) -> bytes:
    """Encode a KeyValue with its length; one whose value breaks says so."""
    try:
        encoded = _value(value)
    except Exception as error:
        encoded = _field(b"\x0a", f"<unprintable {type(value).__name__}: {type(error).__name__}>".encode())
    content = _key(key) + _field(b"\x12", encoded)
    return _varint(len(content)) + content


def _id(number: int, size: int) -> bytes:
    return (number & (1 << 8 * size) - 1).to_bytes(size)


def _time(number: int | None) -> int:
    """Return a time that fits; zero says that there is none."""
    return number if number is not None and 0 <= number <= _LOW_64 else 0


def _head(context: Any, parent: Any, span: Any) -> tuple[bytes, ...]:
    """Return ids, times and flags, as parts of a span."""
    try:
        trace_id, span_id = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
        if parent is None:
            times = _TIMES.pack(0x39, span.start_time, 0x41, span.end_time, b"\x85\x01", _LOCAL)
            return b"\x0a\x10", trace_id, b"\x12\x08", span_id, times
        flags = _REMOTE if parent.is_remote else _LOCAL
        times = _TIMES.pack(0x39, span.start_time, 0x41, span.end_time, b"\x85\x01", flags)
        return b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x22\x08", parent.span_id.to_bytes(8), times
    except (OverflowError, struct.error):
        return _mended_head(context, parent, span)


def _mended_head(context: Any, parent: Any, span: Any) -> tuple[bytes, ...]:
    """Return the same where something does not fit."""
    flags = _REMOTE if parent is not None and parent.is_remote else _LOCAL
    return (
        b"\x0a\x10" + _id(context.trace_id, 16),
        b"\x12\x08" + _id(context.span_id, 8),
        b"\x22\x08" + _id(parent.span_id, 8) if parent is not None else b"",
        _TIMES.pack(0x39, _time(span.start_time), 0x41, _time(span.end_time), b"\x85\x01", flags),
    )


def _status(code: int, description: Any) -> bytes:
    return _field(b"\x7a", _text_field(b"\x12", description) + (b"\x18" + _varint(code) if code else b""))


# OTLP's numbers. Enum members are found by identity, since to hash one is a call of Python code.
_KINDS = {id(kind): b"\x30" + _varint(kind.value + 1) for kind in SpanKind}
_STATUSES = {id(code): _status(code.value, None) for code in StatusCode}


def _kind_and_status(kind: Any, status: Any) -> bytes:
    encoded = _KINDS.get(id(kind), b"")
    if status is None:
        return encoded
    if status.description:
        return encoded + _status(status.status_code.value, status.description)
    return encoded + _STATUSES.get(id(status.status_code), b"\x7a\x00")


def _keep(kept: dict[Any, bytes], key: Any, encoded: bytes) -> None:
    """Keep what is encoded if it is short, with room for a bounded number of them."""
    if len(encoded) <= LONGEST_KEPT:
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[key] = encoded


class Encoder:
    """Encodes batches of spans; not for several threads at once."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], bytes] = {}  # attributes, as KeyValue with its length
        self._integers: dict[tuple[str, int], bytes] = {}  # apart, since 1 == True == 1.0
        self._keys: dict[str, bytes] = {}
        self._names: dict[str, bytes] = {}
        self._last_kind: tuple[Any, Any, bytes] = None, None, b""  # most spans have the one before's, and no state
        self._empty_state: Any = None
        self._owners: dict[int, tuple[Any, bytes, bytes]] = {}  # held, so that no other has their identity

    def encode(self, spans: Iterable[Any]) -> tuple[bytes, int]:
        """Encode an ExportTraceServiceRequest, and return it with how many of the spans are in it.

        Args:
            spans: ended ones, with the attributes of OpenTelemetry's ReadableSpan. One that cannot be read is left out.
        """
        # Equal resources and scopes are one, as OpenTelemetry has it. To compare them takes long, so those that were
        # compared are found by identity; and they are held, so that no other comes to have theirs.
        grouped: dict[Hashable, dict[Hashable, list[bytes]]] = {}
        seen: dict[tuple[int, int], tuple[list[bytes], Any, Any]] = {}
        count = 0
        for span in spans:
            try:
                encoded = self._span(span)
                resource, scope = span.resource, span.instrumentation_scope
                group = seen.get((id(resource), id(scope)))
                if group is None:
                    self._owner(resource, _resource)  # here, where one that cannot be read costs its own spans only
                    self._owner(scope, _scope)
                    found = grouped.setdefault(resource, {}).setdefault(scope or None, [])
                    group = seen[id(resource), id(scope)] = found, resource, scope
            except Exception:  # noqa: S112 - counted
                continue
            group[0].append(encoded)
            count += 1
        return b"".join([self._resource_spans(*each) for each in grouped.items()]), count

    def _resource_spans(self, resource: Any, scopes: Mapping[Any, list[bytes]]) -> bytes:
        encoded, schema_url = self._owner(resource, _resource)
        parts = [encoded]
        for scope, spans in scopes.items():
            encoded, scope_schema_url = self._owner(scope, _scope)
            parts.append(_field(b"\x12", b"".join([encoded, *spans, scope_schema_url])))
        parts.append(schema_url)
        return _field(b"\x0a", b"".join(parts))

    def _owner(self, owner: Any, encode: Callable[[Any], bytes]) -> tuple[bytes, bytes]:
        """Return a resource or a scope, and its schema, as fields of the message around it."""
        kept = self._owners.get(id(owner))
        if kept is None:
            if len(self._owners) >= _MOST_OWNERS:
                self._owners.clear()
            schema_url = _text_field(b"\x1a", owner.schema_url) if owner is not None else b""
            kept = self._owners[id(owner)] = owner, _field(b"\x0a", encode(owner)), schema_url
        return kept[1], kept[2]

    def _span(self, span: Any) -> bytes:
        """Encode one span, as a field of its ScopeSpans."""
        context, parent, name = span.context, span.parent, span.name
        kind, status, encoded = self._last_kind
        if kind is not span.kind or status is not span.status:
            kind, status = span.kind, span.status
            encoded = _kind_and_status(kind, status)
            self._last_kind = kind, status, encoded
        parts = [*_head(context, parent, span), encoded, self._names.get(name) or self._name(name)]
        if attributes := span.attributes:
            parts += self._attributes(attributes)
        state = context.trace_state
        if state is not self._empty_state:
            if state:
                parts.append(_text_field(b"\x1a", state.to_header()))
            else:
                self._empty_state = state
        if events := span.events:
            parts += [self._event(each) for each in events]
        if links := span.links:
            parts += [self._link(each) for each in links]
        for tag, dropped in (
            (b"\x50", span.dropped_attributes),
            (b"\x60", span.dropped_events),
            (b"\x70", span.dropped_links),
        ):
            if dropped:
                parts.append(_count_field(tag, dropped))
        return _field(b"\x12", b"".join(parts))

    def _name(self, name: Any) -> bytes:
        encoded = _field(b"\x2a", _utf8(name))
        if type(name) is str:
            _keep(self._names, name, encoded)
        return encoded

    def _attributes(self, attributes: Mapping[str, Any]) -> list[bytes]:
        """Encode the attributes of a span, as fields of it."""
        if type(attributes) is not dict:
            try:
                attributes = attributes.copy()  # type: ignore[attr-defined]  # the SDK's own has each read by Python code
            except AttributeError:
                attributes = dict(attributes)
        find, encode = self._texts.get, self._pair
        try:
            return [find(pair) or encode(pair) for pair in attributes.items()]
        except Exception:  # a value without a hash, such as a list
            return [b"\x4a" + _pair(*pair) for pair in attributes.items()]

    def _pair(self, pair: tuple[str, Any]) -> bytes:
        """Encode an attribute that is not kept, and keep it if it is a short text or an integer."""
        key, value = pair
        if type(key) is not str:
            return b"\x4a" + _pair(key, value)
        if type(value) is str:
            return self._text(pair)
        if type(value) is not int:
            return b"\x4a" + _pair(key, value)
        encoded = self._integers.get(pair)
        if encoded is None:
            encoded = b"\x4a" + _pair(key, value)
            if value.bit_length() < 64:
                _keep(self._integers, pair, encoded)
        return encoded

    def _text(self, pair: tuple[str, str]) -> bytes:
        key, value = pair
        try:
            text = value.encode()
        except UnicodeEncodeError:
            text = _utf8(value)
        size = len(text)
        head = self._keys.get(key) or self._key(key)
        content = head + (_TEXT_HEADS[size] + text if size < len(_TEXT_HEADS) else _field(b"", _field(b"\x0a", text)))
        encoded = b"\x4a" + _varint(len(content)) + content
        if size <= LONGEST_KEPT:
            _keep(self._texts, pair, encoded)
        return encoded

    def _key(self, key: str) -> bytes:
        """Encode the beginning of an attribute, up to the length of its value, and keep it if it is short."""
        encoded = _key(key) + b"\x12"
        _keep(self._keys, key, encoded)
        return encoded

    def _event(self, event: Any) -> bytes:
        parts = [_EVENT_TIME.pack(0x09, _time(event.timestamp)), _text_field(b"\x12", event.name)]
        if event.attributes:
            parts += [b"\x1a" + each[1:] for each in self._attributes(event.attributes)]
        parts.append(_count_field(b"\x20", event.dropped_attributes))
        return _field(b"\x5a", b"".join(parts))

    def _link(self, link: Any) -> bytes:
        context = link.context
        parts = [
            b"\x0a\x10" + _id(context.trace_id, 16),
            b"\x12\x08" + _id(context.span_id, 8),
            b"\x35" + (_REMOTE if context.is_remote else _LOCAL).to_bytes(4, "little"),
        ]
        if link.attributes:
            parts += [b"\x22" + each[1:] for each in self._attributes(link.attributes)]
        parts.append(_count_field(b"\x28", link.dropped_attributes))
        return _field(b"\x6a", b"".join(parts))


def _resource(resource: Any) -> bytes:
    return b"".join([b"\x0a" + _pair(*each) for each in (resource.attributes or {}).items()])


def _scope(scope: Any) -> bytes:
    if scope is None:
        return b""
    attributes = [b"\x1a" + _pair(*each) for each in (scope.attributes or {}).items()]
    return b"".join([_text_field(b"\x0a", scope.name), _text_field(b"\x12", scope.version), *attributes])
