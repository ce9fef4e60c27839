# SPDX-License-Identifier: Apache-2.0
"""What is in quarantine, as plain values. What a message says is masked unless it is asked for: it may name a reader."""

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select

from schemas.models import QuarantinedMessage, table
from tasks.quarantine.store import OPEN

PLAIN: Final = frozenset(
    {
        "type", "event_id", "station", "sequence", "signature", "scanned_at", "requested_at", "at", "returned_at",
        "print_slip", "undoes", "reprints", "slip",
    }
)  # fmt: skip
"""Fields of events that cannot hold what somebody typed or scanned."""

_quarantine = table(QuarantinedMessage)


@dataclass(frozen=True)
class Wanted:
    """Which messages to show."""

    reason: str | None = None
    station: str | None = None
    queue: str | None = None
    closed: bool = False
    """Also those about which nothing is to be decided any more."""
    limit: int = 50


def messages(connection: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """The messages that fit, the oldest first."""
    query: Select[Any] = select(_quarantine).order_by(_quarantine.c.id).limit(wanted.limit)
    if not wanted.closed:
        query = query.where(_quarantine.c.state.in_(OPEN))
    for column, value in (
        (_quarantine.c.reason, wanted.reason),
        (_quarantine.c.station, wanted.station),
        (_quarantine.c.queue, wanted.queue),
    ):
        if value is not None:
            query = query.where(column == value)
    return [_told(row) for row in connection.execute(query)]


def message(connection: Connection, number: int, *, reveal: bool) -> dict[str, Any] | None:
    """One message with what it says, masked unless `reveal`."""
    row = connection.execute(select(_quarantine).where(_quarantine.c.id == number)).one_or_none()
    if row is None:
        return None
    envelope = json.loads(row.envelope) if row.envelope else None
    return _told(row) | {
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
    """What can be shown of a body: its form, and the fields that hold nothing of a reader."""
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
        return {key if len(key) <= 40 else "...": _masked(each, key) for key, each in value.items()}  # noqa: PLR2004
    if isinstance(value, list):
        return [_masked(each, name) for each in value]
    if value is None or isinstance(value, bool) or (name in PLAIN and len(str(value)) <= 100):  # noqa: PLR2004
        return value
    return f"({len(str(value))} characters)"


def _told(row: Row[Any]) -> dict[str, Any]:
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
    }
