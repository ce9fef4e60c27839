# SPDX-License-Identifier: Apache-2.0
"""Requests and replies of the Internet Printing Protocol as bytes (RFC 8010). Pure.

Only what a slip needs: attributes of one value or of several, no collections in requests; collections in replies are
read over.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

Value = str | int | bool | bytes
Group = dict[str, tuple[Value, ...]]
Attributes = Mapping[str, Value | tuple[Value, ...]]

LARGEST_REPLY: Final = 1 << 20
"""Bytes; a printer that says more is no printer."""


class Operation(IntEnum):
    """What is asked (RFC 8011, section 5.4.15)."""

    PRINT_JOB = 0x0002
    GET_JOB_ATTRIBUTES = 0x0009
    GET_JOBS = 0x000A
    GET_PRINTER_ATTRIBUTES = 0x000B


class _Tag(IntEnum):
    """Delimiters and kinds of values (RFC 8010, section 3.5)."""

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


_KIND: Final[Mapping[str, _Tag]] = {
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


class NoIppError(ValueError):
    """What came back is no reply in IPP."""


@dataclass(frozen=True)
class Reply:
    """What a printer answers."""

    status: int
    """Below 0x0100 it did what was asked (RFC 8011, appendix B)."""
    message: str = ""
    printer: Group = field(default_factory=dict)
    jobs: tuple[Group, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Tell whether the printer did what was asked."""
        return self.status < 0x0100  # noqa: PLR2004 - the boundary in the standard


def encode(operation: Operation, request_id: int, attributes: Attributes, job: Attributes | None = None) -> bytes:
    """A request; `attributes` are in the order that the standard wants (charset, language, target first).

    `job` is how the job is to be printed; a printer may leave out what it does not know.
    """
    body = bytearray(struct.pack(">BBHIB", 1, 1, operation, request_id, _Tag.OPERATION))
    for name, given in attributes.items():
        body += _attribute(name, given)
    if job:
        body.append(_Tag.JOB)
        for name, given in job.items():
            body += _attribute(name, given)
    return bytes(body) + bytes([_Tag.END])


def _attribute(name: str, given: Value | tuple[Value, ...]) -> bytes:
    written = bytearray()
    for number, value in enumerate(given if isinstance(given, tuple) else (given,)):
        key, raw = name.encode() if number == 0 else b"", _value(value)
        written += struct.pack(">BH", _KIND[name], len(key)) + key + struct.pack(">H", len(raw)) + raw
    return bytes(written)


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


def decode(body: bytes) -> Reply:
    """Read a reply. Raises `NoIppError` for what is none."""
    try:
        return _decode(body)
    except (struct.error, IndexError) as error:
        raise NoIppError("the reply ends in the middle") from error


def _decode(body: bytes) -> Reply:
    major, _minor, status, _request_id = struct.unpack_from(">BBHI", body)
    if major not in {1, 2}:
        raise NoIppError(f"IPP version {major} is not known")
    at, name, depth = 8, "", 0
    kind, group = 0, Group()
    groups: list[tuple[int, Group]] = []
    while (tag := body[at]) != _Tag.END:
        at += 1
        if tag < _FIRST_VALUE:
            kind, group, name = tag, Group(), ""
            groups.append((kind, group))
            continue
        key, at = _counted(body, at)
        raw, at = _counted(body, at)
        if tag == _STARTS_COLLECTION:
            depth += 1
        elif tag == _ENDS_COLLECTION:
            depth -= 1
        elif depth == 0:
            name = key.decode("utf-8", "replace") or name
            group[name] = (*group.get(name, ()), _read(tag, raw))
    message = next((group.get("status-message", ()) for kind, group in groups if kind == _Tag.OPERATION), ())
    return Reply(
        status=status,
        message=" ".join(str(part) for part in message),
        printer=next((group for kind, group in groups if kind == _Tag.PRINTER), {}),
        jobs=tuple(group for kind, group in groups if kind == _Tag.JOB),
    )


def _counted(body: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">H", body, at)
    end = at + 2 + length
    if end > len(body):
        raise NoIppError("the reply ends in the middle")
    return body[at + 2 : end], end


def _read(tag: int, raw: bytes) -> Value:
    if tag in {_Tag.INTEGER, _Tag.ENUM}:
        return int(struct.unpack(">i", raw)[0])
    if tag == _Tag.BOOLEAN:
        return raw != b"\0"
    if tag in _WITH_LANGUAGE:
        _, at = _counted(raw, 0)
        return _counted(raw, at)[0].decode("utf-8", "replace")
    return raw.decode("utf-8", "replace") if tag in _TEXTS else raw
