# SPDX-License-Identifier: Apache-2.0
"""Effects of this system's own events, from the history of requests. Each function runs one query for a whole batch."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from schemas.models import RequestEvent
from tasks.data_import.precedence import PastEvents
from tasks.requests.history import HistoryKind


def past_events(session: Session, request_ids: Collection[int]) -> dict[int, PastEvents]:
    """The last event of each request that changed its status, by request id. A request without one is absent."""
    if not request_ids:
        return {}
    last = (
        select(func.max(RequestEvent.id))
        .where(
            RequestEvent.request_id.in_(request_ids),
            RequestEvent.status_after.is_not(None),
            or_(RequestEvent.status_before.is_(None), RequestEvent.status_before != RequestEvent.status_after),
        )
        .group_by(RequestEvent.request_id)
    )
    rows = session.execute(
        select(RequestEvent.request_id, RequestEvent.kind, RequestEvent.status_before, RequestEvent.status_after).where(
            RequestEvent.id.in_(last)
        )
    )
    return {
        row.request_id: PastEvents(row.status_after, row.status_before if row.kind == HistoryKind.UNDONE else None)
        for row in rows
    }


def with_entered_address(session: Session, request_ids: Collection[int]) -> set[int]:
    """The requests whose return address staff entered at receipt."""
    if not request_ids:
        return set()
    received = session.execute(
        select(RequestEvent.request_id, RequestEvent.details).where(
            RequestEvent.request_id.in_(request_ids), RequestEvent.kind == HistoryKind.RECEIVED
        )
    )
    # A line of an earlier version does not state it: then the stored address counts as entered here.
    return {line.request_id for line in received if line.details.get("return_address", True)}


def reopened_loans(session: Session, request_ids: Collection[int]) -> dict[int, datetime]:
    """The loans that an undo opened again, with the time of the last undo."""
    if not request_ids:
        return {}
    lines = session.execute(
        select(RequestEvent.kind, RequestEvent.event_id, RequestEvent.recorded_at, RequestEvent.details)
        .where(RequestEvent.request_id.in_(request_ids))
        .order_by(RequestEvent.id)
    ).all()
    loans = {str(line.event_id): line.details.get("loans", ()) for line in lines}
    return {
        loan_id: line.recorded_at
        for line in lines
        if line.kind == HistoryKind.UNDONE and line.details.get("in_full")
        for loan_id in loans.get(line.details.get("undoes"), ())
    }


def removed_barcodes(session: Session, request_ids: Collection[int]) -> set[tuple[int, str]]:
    """Item id and barcode of each barcode that staff took off its item, and did not add again."""
    if not request_ids:
        return set()
    lines = session.execute(
        select(RequestEvent.item_id, RequestEvent.kind, RequestEvent.details)
        .where(
            RequestEvent.request_id.in_(request_ids),
            RequestEvent.kind.in_((HistoryKind.BARCODE_REMOVED, HistoryKind.BARCODE_ADDED)),
        )
        .order_by(RequestEvent.id)
    )
    removed: set[tuple[int, str]] = set()
    for line in lines:
        change = removed.add if line.kind == HistoryKind.BARCODE_REMOVED else removed.discard
        change((line.item_id, line.details["barcode"]))
    return removed
