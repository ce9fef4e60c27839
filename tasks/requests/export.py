# SPDX-License-Identifier: Apache-2.0
"""Export of what happened to requests, from their history, in an order that another system can resume.

The rows have no patron and no free text, because a note could name one.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from schemas.models import Branch, Item, ItemBarcode, Partner, Request, RequestEvent
from tasks.requests.history import HistoryKind

EXPORTED_KINDS: Final = (
    HistoryKind.RETURNED,
    HistoryKind.ITEM_CHECKED_IN,
    HistoryKind.DISCHARGED,
    HistoryKind.DISCHARGED_LATE,
    HistoryKind.UNDONE,
    HistoryKind.COMPLETED,
)
"""Kinds of history that another system needs to follow the Return."""
BATCH_SIZE: Final = 500
COLUMNS: Final = (
    "cursor", "event", "what", "request", "status_before", "status_after", "at", "recorded_at", "branch", "station",
    "partner", "title", "position", "barcodes",
)  # fmt: skip
CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""Greatest difference between the clocks of a worker and of the machine that exports."""


@dataclass(frozen=True)
class ExportFilter:
    """The first row to export, and the newest."""

    after: int = 0
    """Cursor of the last row that the other system has."""
    recorded_from: datetime | None = None
    recorded_before: datetime | None = None
    """Rows recorded later may still be followed by rows with a lower cursor; see `settled_before`."""


def settled_before(now: datetime, time_limit: timedelta) -> datetime:
    """The time before which no transaction is open that could still record a row.

    A transaction takes its number for a row before it commits, so a higher number can be visible earlier. A worker ends
    a task at its time limit; older rows are complete, and a cursor passes none.
    """
    return now - time_limit - CLOCK_TOLERANCE


def export_events(connection: Connection, wanted: ExportFilter) -> Iterator[dict[str, Any]]:
    """Yield the rows in the order of their cursors, ready for JSON. Memory holds one batch."""
    after = wanted.after
    while True:
        rows = connection.execute(_events(wanted).where(RequestEvent.id > after).limit(BATCH_SIZE)).all()
        if not rows:
            return
        barcodes = _barcodes(connection, [row.item_id for row in rows if row.item_id is not None])
        for row in rows:
            yield _row(row, barcodes)
        after = rows[-1].id


def _events(wanted: ExportFilter) -> Select[*tuple[Any, ...]]:
    question = (
        select(
            RequestEvent.id,
            RequestEvent.event_id,
            RequestEvent.kind,
            RequestEvent.status_before,
            RequestEvent.status_after,
            RequestEvent.at,
            RequestEvent.recorded_at,
            RequestEvent.station,
            RequestEvent.item_id,
            Branch.code.label("branch"),
            Request.external_id,
            Request.title,
            Partner.code.label("partner"),
            Item.position,
        )
        .join(Request, Request.id == RequestEvent.request_id)
        .join(Partner, Partner.id == Request.partner_id)
        .join(Branch, Branch.id == Request.branch_id)
        .outerjoin(Item, Item.id == RequestEvent.item_id)
        .where(RequestEvent.kind.in_(EXPORTED_KINDS))
        .order_by(RequestEvent.id)
    )
    if wanted.recorded_from is not None:
        question = question.where(RequestEvent.recorded_at >= wanted.recorded_from)
    if wanted.recorded_before is not None:
        question = question.where(RequestEvent.recorded_at < wanted.recorded_before)
    return question


def _row(row: Any, barcodes: dict[int, list[str]]) -> dict[str, Any]:
    return {
        "cursor": row.id,
        "event": str(row.event_id) if row.event_id else None,
        "what": row.kind,
        "request": row.external_id,
        "status_before": row.status_before.value if row.status_before else None,
        "status_after": row.status_after.value if row.status_after else None,
        "at": row.at.isoformat(),
        "recorded_at": row.recorded_at.isoformat(),
        "branch": row.branch,
        "station": row.station,
        "partner": row.partner,
        "title": row.title,
        "position": row.position,
        "barcodes": barcodes.get(row.item_id, []),
    }


def _barcodes(connection: Connection, item_ids: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for row in connection.execute(
        select(ItemBarcode.item_id, ItemBarcode.barcode)
        .where(ItemBarcode.item_id.in_(set(item_ids)))
        .order_by(ItemBarcode.id)
    ):
        found[row.item_id].append(row.barcode)
    return dict(found)
