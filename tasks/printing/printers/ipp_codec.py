# SPDX-License-Identifier: Apache-2.0
"""Encode requests and decode responses of the Internet Printing Protocol (RFC 8010). Pure.

The subset that a slip needs: attributes with one value or several, no collections in requests. The decoder skips
collections in responses.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from schemas.external_text import one_line

Value = str | int | bool | bytes
Group = dict[str, tuple[Value, ...]]
Attributes = Mapping[str, Value | tuple[Value, ...]]

MAX_RESPONSE_SIZE: Final = 1 << 20
"""Bytes; a larger response does not come from a printer."""

MAX_TEXT_LENGTH: Final = 255
"""Characters of a printer's text. IPP allows 1023 bytes (RFC 8011, section 5.1.2); staff read one line."""

MAX_VALUES: Final = 100
"""Values of an attribute; further ones are left out. A printer reports some ten problems at most."""


class Operation(IntEnum):
    """Operation codes (RFC 8011, section 5.4.15)."""

    PRINT_JOB = 0x0002
    GET_JOB_ATTRIBUTES = 0x0009
    GET_JOBS = 0x000A
    GET_PRINTER_ATTRIBUTES = 0x000B


class _Tag(IntEnum):
    """Tags of delimiters and value types (RFC 8010, section 3.5)."""

    OPERATION = 0x01
    JOB = 0x02
    END = 0x03
    PRINTER = 0x04
    INTEGER = 0x21
    BOOLEAN = 0x22
    ENUM = 0x23
    NAME = 0x42
    KEYWORD = 0x44
    URI = 0x45
    CHARSET = 0x47
    LANGUAGE = 0x48
    MIME = 0x49


_TYPES: Final[Mapping[str, _Tag]] = {
    "attributes-charset": _Tag.CHARSET,
    "attributes-natural-language": _Tag.LANGUAGE,
    "printer-uri": _Tag.URI,
    "requesting-user-name": _Tag.NAME,
    "job-name": _Tag.NAME,
    "job-id": _Tag.INTEGER,
    "document-format": _Tag.MIME,
    "requested-attributes": _Tag.KEYWORD,
    "which-jobs": _Tag.KEYWORD,
    "print-scaling": _Tag.KEYWORD,
}

_FIRST_VALUE: Final = 0x10
_TEXTS: Final = range(0x41, 0x60)
_WITH_LANGUAGE: Final = frozenset({0x35, 0x36})
_STARTS_COLLECTION, _ENDS_COLLECTION = 0x34, 0x37


class InvalidResponseError(ValueError):
    """The bytes are not an IPP response."""


@dataclass(frozen=True)
class Response:
    """A printer's response."""

    status: int
    """Below 0x0100: successful (RFC 8011, appendix B)."""
    message: str = ""
    printer: Group = field(default_factory=dict)
    jobs: tuple[Group, ...] = ()

    @property
    def succeeded(self) -> bool:
        """True when the printer performed the operation."""
        return self.status < 0x0100  # noqa: PLR2004 - the boundary in the standard


def encode(operation: Operation, request_id: int, attributes: Attributes, job: Attributes | None = None) -> bytes:
    """Encode a request. `attributes` are in the order of the standard: charset, language and target first.

    `job` contains the job template attributes; a printer may ignore those that it does not support.
    """
    body = bytearray(struct.pack(">BBHIB", 1, 1, operation, request_id, _Tag.OPERATION))
    for name, value in attributes.items():
        body += _attribute(name, value)
    if job:
        body.append(_Tag.JOB)
        for name, value in job.items():
            body += _attribute(name, value)
    return bytes(body) + bytes([_Tag.END])


def _attribute(name: str, values: Value | tuple[Value, ...]) -> bytes:
    encoded = bytearray()
    for number, value in enumerate(values if isinstance(values, tuple) else (values,)):
        key, raw = name.encode() if number == 0 else b"", _value(value)
        encoded += struct.pack(">BH", _TYPES[name], len(key)) + key + struct.pack(">H", len(raw)) + raw
    return bytes(encoded)


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return bytes([value])
        case int():
            return struct.pack(">i", value)
        case str():
            return value.encode()
        case bytes():
            return value


def decode(body: bytes) -> Response:
    """Decode a response. Raises `InvalidResponseError` when the bytes are not one."""
    try:
        return _decode(body)
    except (struct.error, IndexError) as error:
        raise InvalidResponseError("the response is truncated") from error


def _decode(body: bytes) -> Response:
    major, _minor, status, _request_id = struct.unpack_from(">BBHI", body)
    if major not in {1, 2}:
        raise InvalidResponseError(f"IPP version {major} is not supported")
    at, name, depth = 8, "", 0
    kind: int = 0
    group: dict[str, list[Value]] = {}
    groups: list[tuple[int, dict[str, list[Value]]]] = []
    while (tag := body[at]) != _Tag.END:
        at += 1
        if tag < _FIRST_VALUE:
            kind, group, name = tag, {}, ""
            groups.append((kind, group))
            continue
        key, at = _read_counted(body, at)
        raw, at = _read_counted(body, at)
        if tag == _STARTS_COLLECTION:
            depth += 1
        elif tag == _ENDS_COLLECTION:
            depth -= 1
        elif depth == 0:
            name = key.decode("utf-8", "replace") or name
            values = group.setdefault(name, [])
            if len(values) < MAX_VALUES:
                values.append(_parse(tag, raw))
    decoded = [(kind, {name: tuple(values) for name, values in group.items()}) for kind, group in groups]
    message = next((group.get("status-message", ()) for kind, group in decoded if kind == _Tag.OPERATION), ())
    return Response(
        status=status,
        message=one_line(" ".join(str(part) for part in message), MAX_TEXT_LENGTH),
        printer=next((group for kind, group in decoded if kind == _Tag.PRINTER), {}),
        jobs=tuple(group for kind, group in decoded if kind == _Tag.JOB),
    )


def _read_counted(body: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">H", body, at)
    end = at + 2 + length
    if end > len(body):
        raise InvalidResponseError("the response is truncated")
    return body[at + 2 : end], end


def _parse(tag: int, raw: bytes) -> Value:
    if tag in {_Tag.INTEGER, _Tag.ENUM}:
        return int(struct.unpack(">i", raw)[0])
    if tag == _Tag.BOOLEAN:
        return raw != b"\0"
    if tag in _WITH_LANGUAGE:
        _, at = _read_counted(raw, 0)
        return _text(_read_counted(raw, at)[0])
    return _text(raw) if tag in _TEXTS else raw


def _text(raw: bytes) -> str:
    return one_line(raw.decode("utf-8", "replace"), MAX_TEXT_LENGTH)
