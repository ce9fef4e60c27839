# SPDX-License-Identifier: Apache-2.0
"""Store rows of requests. What the events of this system did is not undone by a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from schemas.models import Branch, Item, Loan, Partner, Patron, Request
from schemas.request_status import CLOSED, RequestStatus
from tasks.data_import.outcome import Note, Outcome, RowResult, refused, unchanged
from tasks.data_import.past_events import past_events, with_entered_address
from tasks.data_import.precedence import NO_EVENTS, PastEvents, closed_note, is_older
from tasks.data_import.row_models import RequestRow, Row
from tasks.data_import.upsert import Record, StoreContext, find_ids, record_of, unknown_reference, upsert


@dataclass(frozen=True)
class _Stored:
    """The stored requests of a batch, and the rows that theirs refer to."""

    requests: dict[str, Any]
    """By external identifier: id, status and return address."""
    partners: dict[str, int]
    branches: dict[str, int]
    patrons: dict[str, int]
    events: dict[int, PastEvents]
    entered_address: set[int]
    """Requests whose return address was entered here at receipt."""
    owing: set[int]
    """Requests that keep the patron link after their end, because a fee or a claim is open."""

    def unknown_reference(self, row: RequestRow, patron: str | None) -> str | None:
        """The reason of a row that refers to a row that is not stored. `patron`: the number to link, if any."""
        for noun, key, ids in (
            ("partner", row.partner, self.partners),
            ("branch", row.branch, self.branches),
            ("patron", patron, self.patrons),
        ):
            if key is not None and key not in ids:
                return unknown_reference(noun, key)
        return None


def store_requests(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert requests by external identifier. A row that is older than the end of its request changes nothing."""
    requests = [cast("RequestRow", row) for row in rows]
    stored = _read(requests, session)
    statuses: dict[str, RequestStatus | None] = {key: request.status for key, request in stored.requests.items()}
    results: list[RowResult | None] = []
    records: list[Record] = []
    for row in requests:
        before = statuses.get(row.external_id)
        note = closed_note(before, row.status) if before is not None else None
        record = _record(row, stored, before, context) if note is None else unchanged(note)
        if isinstance(record, RowResult):
            results.append(record)
            continue
        if before is not None or not record.missing:
            statuses[row.external_id] = record.values["status"] if "status" in record.named else before
        results.append(None)
        records.append(record)
    upserted = upsert(session, Request, "external_id", records)
    changed = [
        record.values["external_id"]
        for record, result in zip(records, upserted, strict=True)
        if result.outcome is Outcome.CHANGED
    ]
    if changed:
        session.execute(update(Request).where(Request.external_id.in_(changed)).values(updated_at=context.now))
    return _merged(results, upserted)


def _merged(results: Iterable[RowResult | None], upserted: Iterable[RowResult]) -> list[RowResult]:
    remaining = iter(upserted)
    return [next(remaining) if result is None else result for result in results]


def _read(rows: Sequence[RequestRow], session: Session) -> _Stored:
    """Lock the requests of a batch in order of id, as events do, then read what decides on the rows."""
    locked = session.execute(
        select(Request.id, Request.external_id, Request.status, Request.return_address)
        .where(Request.external_id.in_({row.external_id for row in rows}))
        .order_by(Request.id)
        .with_for_update()
    ).all()
    requests = {row.external_id: row for row in locked}
    moved, closing, addressed = set(), set(), set()
    for row in rows:
        request = requests.get(row.external_id)
        if request is None:
            continue
        if row.status is not None and row.status is not request.status:
            moved.add(request.id)
        if row.status in CLOSED or request.status in CLOSED:
            closing.add(request.id)
        if "return_address" in row.model_fields_set and (row.return_address or None) != request.return_address:
            addressed.add(request.id)
    return _Stored(
        requests,
        find_ids(session, Partner.code, (row.partner for row in rows)),
        find_ids(session, Branch.code, (row.branch for row in rows)),
        find_ids(session, Patron.number, (row.patron for row in rows)),
        past_events(session, moved),
        with_entered_address(session, addressed),
        _owing(session, closing),
    )


def _owing(session: Session, request_ids: set[int]) -> set[int]:
    if not request_ids:
        return set()
    open_debts = (
        select(Item.request_id)
        .join(Loan, Loan.item_id == Item.id)
        .where(Item.request_id.in_(request_ids), or_(Loan.fee_open, Loan.claimed_returned))
    )
    return {request_id for request_id in session.execute(open_debts).scalars() if request_id is not None}


def _record(
    row: RequestRow, stored: _Stored, before: RequestStatus | None, context: StoreContext
) -> Record | RowResult:
    """The record of a row, or its refusal. Columns in which the stored request is newer than the row are not named."""
    request = stored.requests.get(row.external_id)
    notes: list[Note] = []
    skipped = {"created_at"} if row.created_at is None else set()
    status = row.status or before
    if request is not None and _is_older(row, before, stored.events.get(request.id, NO_EVENTS)):
        notes.append(Note.OLDER)
        skipped.add("status")
        status = before
    if request is not None and "return_address" in row.model_fields_set and request.id in stored.entered_address:
        notes.append(Note.RETURN_ADDRESS_KEPT)
        skipped.add("return_address")
    patron = row.patron if status not in CLOSED else None  # a closed request has no link to a patron
    reason = stored.unknown_reference(row, patron)
    if reason is not None:
        return refused(reason)
    values = {
        "external_id": row.external_id,
        "partner_id": stored.partners.get(row.partner),
        "branch_id": stored.branches.get(row.branch),
        "status": row.status,
        "title": row.title,
        "author": row.author,
        "isbn": row.isbn,
        "patron_id": stored.patrons[patron] if patron else None,
        "return_address": row.return_address or None,
        "damage_note": row.damage_note,
        "created_at": row.created_at or context.now,
        "updated_at": context.now,
    }
    record = record_of(row, values)
    named = record.named
    if status in CLOSED:
        # The end of the request severs its link, unless a fee or a claim is open.
        owes = request is not None and request.id in stored.owing
        named = named - {"patron_id"} if owes else named | {"patron_id"}
    return replace(record, named=named - skipped, notes=tuple(notes))


def _is_older(row: RequestRow, before: RequestStatus | None, events: PastEvents) -> bool:
    return row.status is not None and row.status is not before and is_older(row.status, events)
