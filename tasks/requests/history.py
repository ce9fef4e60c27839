# SPDX-License-Identifier: Apache-2.0
"""The history of requests: one line for each change, written in the transaction that makes the change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from schemas.models import RequestEvent, table
from schemas.request_status import RequestStatus
from tasks.operator import Operator


class HistoryKind(StrEnum):
    """The kind of change that a line of history records."""

    RECEIVED = "received"
    LOANED = "loaned"
    DISCHARGED = "discharged"
    ITEM_CHECKED_IN = "item_checked_in"
    RETURNED = "returned"
    DISCHARGED_LATE = "discharged_late"
    """A loan was discharged after the partner's confirmation; the status stayed."""
    UNDONE = "undone"
    COMPLETED = "completed"
    SLIP_CONFIRMED = "slip_confirmed"
    SLIP_RETRIED = "slip_retried"
    SLIP_REPRINTED = "slip_reprinted"
    SLIP_SEEN = "slip_seen"
    SLIP_CANCELLED = "slip_cancelled"
    SLIP_MOVED = "slip_moved"
    BARCODE_ADDED = "barcode_added"
    BARCODE_REMOVED = "barcode_removed"


@dataclass(frozen=True)
class HistoryLine:
    """A line of a request's history. It has no patron field."""

    request_id: int
    kind: HistoryKind
    at: datetime
    """When it happened, by the station's clock where that is valid."""
    recorded_at: datetime
    branch: str
    station: str | None
    """`None` for an operator's action."""
    item_id: int | None = None
    event_id: UUID | None = None
    status_before: RequestStatus | None = None
    status_after: RequestStatus | None = None
    note: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def operator_line(
    request_id: int, kind: HistoryKind, by: Operator, now: datetime, *, branch: str, item_id: int | None, **details: Any
) -> HistoryLine:
    """The line of an operator's action: with the reason, the person, and how the person was identified."""
    return HistoryLine(
        request_id=request_id,
        kind=kind,
        at=now,
        recorded_at=now,
        branch=branch,
        station=None,
        item_id=item_id,
        note=by.reason,
        details={**by.details, **details},
    )


def record(session: Session, *lines: HistoryLine) -> None:
    """Write `lines` in one statement."""
    if lines:
        session.execute(insert(table(RequestEvent)), [_row(line) for line in lines])


def _row(line: HistoryLine) -> dict[str, Any]:
    return {
        "request_id": line.request_id,
        "item_id": line.item_id,
        "event_id": line.event_id,
        "kind": line.kind.value,
        "status_before": line.status_before,
        "status_after": line.status_after,
        "at": line.at,
        "recorded_at": line.recorded_at,
        "branch": line.branch,
        "station": line.station,
        "note": line.note,
        "details": dict(line.details),
    }
