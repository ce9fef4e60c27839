# SPDX-License-Identifier: Apache-2.0
"""The task message (Celery's protocol 2) as plain values: the contract of the envelope around an event.

Any language can write a task message. `HEADERS` and `PROPERTIES` are the contract: the AsyncAPI document is generated
from them, and a worker rejects a message that breaks them before it decodes the body (`envelope_defect`,
`call_defect`). Source: Celery's documentation, "Message Protocol", version 2. Pure.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from schemas import station_status, topology

MAX_BODY_BYTES: Final = 1_048_576
"""Bytes of a body. The largest event has a quarter of it."""

MAX_NESTING: Final = 32
"""Levels of arrays and objects in a body. An event has fewer than ten. The decoder recurses once for each level."""

MAX_RETRIES: Final = 1_000_000
"""Largest value of the header `retries`. A worker that requeues every 15 seconds reaches it after half a year."""

EMBED: Final[Mapping[str, None]] = MappingProxyType({"callbacks": None, "errbacks": None, "chain": None, "chord": None})
"""Third part of the body. Celery publishes further tasks from it, so each value is null."""


@dataclass(frozen=True)
class Field:
    """A header or a property: its JSON Schema, and the same rule as a function."""

    schema: Mapping[str, Any]
    allows: Callable[[object], bool]
    required: bool = True
    description: str = ""

    def described(self) -> dict[str, Any]:
        """The JSON Schema with the description."""
        return {**self.schema, **({"description": self.description} if self.description else {})}


def _null(description: str = "", *, required: bool = True) -> Field:
    return Field({"type": "null"}, lambda value: value is None, required, description)


def _const(value: object, description: str = "", *, required: bool = True) -> Field:
    return Field({"const": value}, lambda other: type(other) is type(value) and other == value, required, description)


def _text(longest: int, description: str = "", *, required: bool = True, nullable: bool = False) -> Field:
    schema = {"type": ["string", "null"] if nullable else "string", "maxLength": longest}
    return Field(
        schema,
        lambda value: (nullable and value is None) or (isinstance(value, str) and len(value) <= longest),
        required,
        description,
    )


def _integer(largest: int, description: str = "", *, required: bool = True) -> Field:
    return Field(
        {"type": "integer", "minimum": 0, "maximum": largest},
        lambda value: type(value) is int and 0 <= value <= largest,
        required,
        description,
    )


def _uuid(description: str = "", *, required: bool = True, nullable: bool = False) -> Field:
    schema = {"type": ["string", "null"] if nullable else "string", "format": "uuid"}
    return Field(schema, lambda value: (nullable and value is None) or is_uuid(value), required, description)


def _empty(kind: type, schema_type: str, *, required: bool = False) -> Field:
    """Null, or an empty array or object."""
    return Field(
        {"type": [schema_type, "null"], "maxItems" if kind is list else "maxProperties": 0},
        lambda value: value is None or (isinstance(value, kind) and not value),
        required,
    )


def _no_limits() -> Field:
    return Field(
        {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 2},
        lambda value: value is None or (isinstance(value, list) and len(value) == 2 and value == [None, None]),  # noqa: PLR2004
        description="A worker has its own time limits.",
    )


HEADERS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "lang": _text(20, "Language of the sender, for example `py`, `js` or `go`."),
        "id": _uuid("The event's id (`event_id`); for other tasks a UUID."),
        "root_id": _uuid("The same as `id`.", nullable=True),
        "parent_id": _uuid("Null; the same as `id` when a worker requeues the task.", nullable=True),
        "group": _null(),
        "retries": _integer(MAX_RETRIES, "0 from a station; a worker increments it."),
        "eta": _null("A task runs when a worker receives it."),
        "expires": _null("An event does not expire."),
        "timelimit": _no_limits(),
        "argsrepr": _text(2_000, "The id only, never the event: operators see it."),
        "kwargsrepr": _text(2_000),
        "ignore_result": Field({"type": "boolean"}, lambda value: isinstance(value, bool)),
        "origin": _text(200, "The sender, for operators.", required=False, nullable=True),
        "group_index": _null(required=False),
        "shadow": _null(required=False),
        "replaced_task_nesting": _integer(0, required=False),
        "stamped_headers": _empty(list, "array"),
        "stamps": _empty(dict, "object"),
    }
)
"""Headers that a worker reads, except `task` and the station's status. Any other header is removed unread."""

SET_BY_WORKERS: Final = frozenset({"expires", "timelimit"})
"""Headers that workers and the scheduler set for their own tasks. No station may publish to those queues."""

BROKER_HEADERS: Final = ("x-delivery-count", "x-acquired-count", "redelivered")
"""Headers that a broker or its transport adds on redelivery."""

PROPERTIES: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "content_type": _const("application/json"),
        "content_encoding": _const("utf-8"),
        "correlation_id": _text(100, "The same as the header `id`.", nullable=True),
        "reply_to": _text(100, "The station's reply queue.", required=False, nullable=True),
    }
)
"""Properties that a worker reads."""

_PRINTING_TASKS: Final = frozenset((topology.PRINT_SLIP, topology.FOLLOW_SLIP))
_TASKS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        topology.RETURNS_QUEUE: frozenset(topology.STATION_TASKS),
        topology.HOUSEKEEPING_QUEUE: frozenset(
            (topology.PURGE_LINKS, topology.SWEEP_OUTBOX, topology.SWEEP_PRINTS, topology.SWEEP_QUARANTINE)
        ),
    }
)


def tasks_of(queue: str) -> frozenset[str]:
    """The tasks that a message on `queue` may name; none for a queue that no worker consumes."""
    if queue.startswith(topology.PRINTING_QUEUE_PREFIX):
        return _PRINTING_TASKS
    return _TASKS.get(queue, frozenset())


def envelope_defect(queue: str, properties: Mapping[str, object], headers: object, body: object) -> str | None:
    """The defect for which a worker rejects a message before it decodes the body; `None` for a valid envelope.

    `properties` has the keys of `PROPERTIES`; `body` is bytes or text as received.
    """
    return _properties_defect(properties) or _headers_defect(queue, properties, headers) or _body_defect(body)


def _properties_defect(properties: Mapping[str, object]) -> str | None:
    broken = (name for name, field in PROPERTIES.items() if not field.allows(properties.get(name)))
    return next((f"property_{name}" for name in broken), None)


def _headers_defect(queue: str, properties: Mapping[str, object], headers: object) -> str | None:
    if not isinstance(headers, Mapping) or not isinstance(headers.get("task"), str):
        return "not_a_task"
    if headers["task"] not in tasks_of(queue):
        return "unknown_task"
    if headers.get("compression") is not None:
        return "header_compression"
    unchecked = frozenset() if queue == topology.RETURNS_QUEUE else SET_BY_WORKERS
    for name, field in HEADERS.items():
        if (field.required or name in headers) and name not in unchecked and not field.allows(headers.get(name)):
            return f"header_{name}"
    return None if properties.get("correlation_id") in {None, headers["id"]} else "property_correlation_id"


def kept_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that a worker reads. Celery does not see the others."""
    kept = {*HEADERS, *BROKER_HEADERS, "task", station_status.HEADER}
    return {name: value for name, value in headers.items() if name in kept}


def call_defect(queue: str, task_id: str, payload: object) -> str | None:
    """The defect in arguments, keyword arguments or embed for which a worker rejects a decoded message; `None` for none."""
    match payload:
        case [list() as args, dict() as kwargs, embed] if embed is None or isinstance(embed, dict):
            pass
        case _:
            return "not_a_task"
    if any(key not in EMBED or value is not None for key, value in (embed or {}).items()):
        return "embed"
    if queue != topology.RETURNS_QUEUE:
        return None
    if kwargs or len(args) != 1:
        return "other_arguments"
    event_id = args[0].get("event_id") if isinstance(args[0], dict) else None
    if isinstance(event_id, str) and is_uuid(event_id) and UUID(event_id) != UUID(task_id):
        return "other_id"
    return None


_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


def is_uuid(value: object) -> bool:
    """True for a UUID in its usual form of 36 characters."""
    return isinstance(value, str) and _UUID.match(value) is not None


_BRACKETS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def _body_defect(body: object) -> str | None:
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    if not isinstance(raw, bytes | bytearray | memoryview):
        return "not_a_task"
    raw = bytes(raw)
    if len(raw) > MAX_BODY_BYTES:
        return "oversize"
    if raw.count(b"[") + raw.count(b"{") > MAX_NESTING and _depth(raw) > MAX_NESTING:
        return "nested_too_deeply"
    return None


def _depth(raw: bytes) -> int:
    """The deepest nesting of arrays and objects, counted in bytes without a parser. Brackets in strings do not count."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(raw):
        token = match[0]
        if token in {b"[", b"{"}:
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_NESTING:
                    return deepest
        elif token in {b"]", b"}"}:
            depth -= 1
    return deepest


def task_headers(task: str, task_id: str, *, origin: str) -> dict[str, Any]:
    """Headers of a task message. `argsrepr`, which monitors show, contains the id only."""
    return {
        "lang": "py",
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "group_index": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": repr((task_id,)),
        "kwargsrepr": "{}",
        "origin": origin,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def task_body(argument: str) -> str:
    """Body of a task message with one argument, given as JSON text."""
    return f'[[{argument}], {{}}, {{"callbacks": null, "errbacks": null, "chain": null, "chord": null}}]'
