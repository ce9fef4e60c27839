# SPDX-License-Identifier: Apache-2.0
"""Read-only queries over the quarantine, as plain values. Bodies are masked unless revealed: one may name a patron."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from schemas.models import QuarantinedMessage, table
from tasks.quarantine.store import OPEN_STATES

UNMASKED_FIELDS: Final = frozenset(
    {
        "type", "event_id", "station", "sequence", "signature", "scanned_at", "requested_at", "at", "returned_at",
        "print_slip", "undoes", "reprints", "slip",
    }
)  # fmt: skip
"""Fields of events that cannot hold typed or scanned text."""

MAX_UNMASKED_LENGTH: Final = 100
"""Characters of such a field's value; a longer value is masked."""
MAX_KEY_LENGTH: Final = 40
"""Characters of a field's name; a longer name is not shown."""

_quarantine = table(QuarantinedMessage)


@dataclass(frozen=True)
class MessageFilter:
    """Selection of messages."""

    reason: str | None = None
    station: str | None = None
    queue: str | None = None
    closed: bool = False
    """Include messages that need no decision any more."""
    ids: Collection[int] | None = None
    """Only these messages."""
    limit: int = 50


def messages(connection: Connection, chosen: MessageFilter) -> list[dict[str, Any]]:
    """The messages that match, the oldest first, without their bodies."""
    query = _filtered(select(_quarantine).order_by(_quarantine.c.id).limit(chosen.limit), chosen)
    if not chosen.closed:
        query = query.where(_quarantine.c.state.in_(OPEN_STATES))
    return [_summary(row) for row in connection.execute(query)]


def kept_ids(connection: Connection, chosen: MessageFilter) -> list[int]:
    """The numbers of the matching messages that wait for a decision, the oldest first, up to the limit."""
    query = _filtered(select(_quarantine.c.id), chosen).where(_quarantine.c.state == "kept")
    return list(connection.scalars(query.order_by(_quarantine.c.id).limit(chosen.limit)))


def count_kept(connection: Connection, chosen: MessageFilter) -> int:
    """The number of the messages of which `kept_ids` returns the oldest."""
    query = _filtered(select(func.count()).select_from(_quarantine), chosen)
    return int(connection.execute(query.where(_quarantine.c.state == "kept")).scalar_one())


def reasons(connection: Connection) -> list[str]:
    """The reasons of the messages without a final decision, sorted."""
    found = select(_quarantine.c.reason).where(_quarantine.c.state.in_(OPEN_STATES)).distinct()
    return sorted(connection.scalars(found))


def _filtered(query: Select[Any], chosen: MessageFilter) -> Select[Any]:
    for column, value in (
        (_quarantine.c.reason, chosen.reason),
        (_quarantine.c.station, chosen.station),
        (_quarantine.c.queue, chosen.queue),
    ):
        if value is not None:
            query = query.where(column == value)
    if chosen.ids is not None:
        query = query.where(_quarantine.c.id.in_(chosen.ids))
    return query


def count_open(connection: Connection, limit: int, chosen: MessageFilter = MessageFilter()) -> int:
    """The number of messages without a final decision, up to `limit`."""
    found = _filtered(select(_quarantine.c.id), chosen).where(_quarantine.c.state.in_(OPEN_STATES)).limit(limit)
    return int(connection.execute(select(func.count()).select_from(found.subquery())).scalar_one())


def message(connection: Connection, number: int, *, reveal: bool) -> dict[str, Any] | None:
    """One message with its body, masked unless `reveal`."""
    row = connection.execute(select(_quarantine).where(_quarantine.c.id == number)).one_or_none()
    if row is None:
        return None
    envelope = json.loads(row.envelope) if row.envelope else None
    return _summary(row) | {
        "detail": row.detail,
        "reply_to": row.reply_to,
        "encoding": row.encoding,
        "whole": row.whole,
        "body": row.body if reveal else masked(row.body, row.encoding),
        "revealed": reveal,
        "headers": envelope["headers"] if envelope and reveal else None,
        "reason_of_decision": row.decision_reason,
    }


def masked(body: str, encoding: str) -> str:
    """The body's structure, with the values of `UNMASKED_FIELDS`; all other values become their length."""
    if not body:
        return ""
    try:
        if encoding == "text":
            return json.dumps(_masked(json.loads(body)), ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    return f"({len(body)} characters)" if encoding == "text" else f"({len(body) * 3 // 4} bytes)"


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key if len(key) <= MAX_KEY_LENGTH else "...": _masked(below, key) for key, below in value.items()}
    if isinstance(value, list):
        return [_masked(item, name) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if name in UNMASKED_FIELDS and len(str(value)) <= MAX_UNMASKED_LENGTH:
        return value
    return f"({len(str(value))} characters)"


def _summary(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "reason": row.reason,
        "queue": row.queue,
        "task": row.task,
        "station": row.station,
        "event_id": row.event_id,
        "received_at": row.received_at.isoformat(),
        "last_at": row.last_at.isoformat() if row.last_at else None,
        "times": row.times,
        "size": len(row.body),
        "decided_at": row.decided_at.isoformat() if row.decided_at else None,
        "decided_by": row.decided_by,
        "decided_identified_by": row.decided_identified_by,
        "decided_account": row.decided_account,
    }
