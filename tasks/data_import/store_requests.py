# SPDX-License-Identifier: Apache-2.0
"""Storing what is borrowed: requests, their items with barcodes, and loans."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from schemas.models import Branch, Item, ItemBarcode, Loan, Partner, Patron, Request, table
from schemas.request_status import CLOSED, RequestStatus
from tasks.data_import.row_models import ItemRow, LoanRow, RequestRow, Row
from tasks.data_import.upsert import Outcome, RefusedRowError, known_ids, merge


def store_requests(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Requests. None is taken back from a closed status."""
    given = [cast("RequestRow", row) for row in rows]
    partners = known_ids(session, Partner.code, (row.partner for row in given), "partner")
    branches = known_ids(session, Branch.code, (row.branch for row in given), "branch")
    patrons = known_ids(session, Patron.number, (row.patron for row in given), "patron")
    stored = {
        row.external_id: row
        for row in session.execute(
            select(Request.external_id, Request.status, Request.created_at, Request.updated_at)
            .where(Request.external_id.in_([row.external_id for row in given]))
            .with_for_update()
        )
    }
    wanted = []
    for row in given:
        before = stored.get(row.external_id)
        if before is not None:
            _refuse_reopening(row, before.status)
        wanted.append(
            {
                "external_id": row.external_id,
                "partner_id": partners[row.partner],
                "branch_id": branches[row.branch],
                "status": row.status,
                "title": row.title,
                "author": row.author,
                # A closed request points to no reader.
                "patron_id": patrons[row.patron] if row.patron and row.status not in CLOSED else None,
                "return_address": row.return_address or None,
                "damage_note": row.damage_note,
                "created_at": row.created_at or (before.created_at if before is not None else now),
                "updated_at": before.updated_at if before is not None else now,
            }
        )
    outcomes = merge(session, Request, "external_id", wanted)
    changed = [row.external_id for row, outcome in zip(given, outcomes, strict=True) if outcome is Outcome.CHANGED]
    if changed:
        session.execute(update(Request).where(Request.external_id.in_(changed)).values(updated_at=now))
    return outcomes


def _refuse_reopening(row: RequestRow, before: RequestStatus) -> None:
    goes_back = before in CLOSED and row.status not in CLOSED
    uncompletes = before is RequestStatus.COMPLETED and row.status is not before
    if goes_back or uncompletes:
        raise RefusedRowError(
            f"request {row.external_id} is “{before.label}” here; an import does not take it back to “{row.status.label}”"
        )


def store_items(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Items with their barcodes. A barcode that is not in the file any more stays."""
    given = [cast("ItemRow", row) for row in rows]
    requests = known_ids(session, Request.external_id, (row.request for row in given), "request")
    items = _stored_items(session, set(requests.values()), [row.barcode[0] for row in given if not row.request])
    outcomes = []
    for row in given:
        key = _place(row, requests)
        item = items.get(key)
        if item is None:
            request_id = requests[row.request] if row.request else None
            item = items[key] = Item(request_id=request_id, position=row.position, description=row.description)
            session.add(item)
            outcomes.append(Outcome.ADDED)
        else:
            outcomes.append(Outcome.UNCHANGED if item.description == row.description else Outcome.CHANGED)
            item.description = row.description
    session.flush()
    added = _add_barcodes(session, [(items[_place(row, requests)].id, row) for row in given])
    return [
        Outcome.CHANGED if outcome is Outcome.UNCHANGED and items[_place(row, requests)].id in added else outcome
        for row, outcome in zip(given, outcomes, strict=True)
    ]


def _place(row: ItemRow, requests: dict[str, int]) -> Any:
    """The natural key: request and position, or the first barcode of an item of our own."""
    return (requests[row.request], row.position) if row.request else row.barcode[0]


def _stored_items(session: Session, requests: set[int], ours: list[str]) -> dict[Any, Item]:
    found: dict[Any, Item] = {
        (item.request_id, item.position): item
        for item in session.execute(select(Item).where(Item.request_id.in_(requests))).scalars()
    }
    of_our_own = (
        select(ItemBarcode.barcode, Item)
        .join(Item, Item.id == ItemBarcode.item_id)
        .where(Item.request_id.is_(None), ItemBarcode.barcode.in_(ours))
    )
    found.update({row.barcode: row.Item for row in session.execute(of_our_own)})
    return found


def _add_barcodes(session: Session, rows: list[tuple[int, ItemRow]]) -> set[int]:
    """Add the barcodes that are new; give the items that got one."""
    known = {
        (row.item_id, row.barcode)
        for row in session.execute(
            select(ItemBarcode.item_id, ItemBarcode.barcode).where(ItemBarcode.item_id.in_({i for i, _ in rows}))
        )
    }
    fresh: dict[tuple[int, str], dict[str, Any]] = {}
    for item_id, row in rows:
        for barcode, temporary in [(b, False) for b in row.barcode] + [(b, True) for b in row.temporary_barcode]:
            if (item_id, barcode) not in known:
                fresh[item_id, barcode] = {"item_id": item_id, "barcode": barcode, "temporary": temporary}
    if fresh:
        session.execute(insert(table(ItemBarcode)), list(fresh.values()))
    return {item_id for item_id, _ in fresh}


def store_loans(rows: Sequence[Row], session: Session, now: datetime) -> list[Outcome]:
    """Loans. A discharged loan points to no reader, unless a fee is open on it."""
    given = [cast("LoanRow", row) for row in rows]
    patrons = known_ids(session, Patron.number, (row.patron for row in given), "patron")
    items: dict[str, int] = {}
    for code in session.execute(
        select(ItemBarcode.barcode, ItemBarcode.item_id)
        .where(ItemBarcode.barcode.in_({row.barcode for row in given}))
        .order_by(ItemBarcode.item_id)
    ):
        items[code.barcode] = code.item_id  # of several that bear it, the one added last
    stored = {
        (row.item_id, row.loaned_at): row
        for row in session.execute(select(Loan).where(Loan.item_id.in_(set(items.values())))).scalars()
    }
    is_open = {row.item_id for row in stored.values() if row.discharged_at is None}
    outcomes = []
    for row in given:
        if row.barcode not in items:
            raise RefusedRowError(f"there is no item with barcode {row.barcode}; import it first")
        key = (items[row.barcode], row.loaned_at)
        keeps_link = row.discharged_at is None or row.fee_open
        values = {
            "patron_id": patrons[row.patron] if row.patron and keeps_link else None,
            "due_at": row.due_at,
            "discharged_at": row.discharged_at,
            "fee_open": row.fee_open,
            "claimed_returned": row.claimed_returned,
        }
        loan = stored.get(key)
        if loan is None:
            if row.discharged_at is None and key[0] in is_open:
                raise RefusedRowError(
                    f"the item with barcode {row.barcode} is on loan already; discharge that loan first"
                )
            loan = stored[key] = Loan(item_id=key[0], loaned_at=row.loaned_at, **values)
            session.add(loan)
            if row.discharged_at is None:
                is_open.add(key[0])
            outcomes.append(Outcome.ADDED)
            continue
        if loan.discharged_at is not None and row.discharged_at is None:
            raise RefusedRowError(f"the loan of {row.barcode} is discharged here; an import does not open it again")
        changed = {name: value for name, value in values.items() if getattr(loan, name) != value}
        for name, value in changed.items():
            setattr(loan, name, value)
        outcomes.append(Outcome.CHANGED if changed else Outcome.UNCHANGED)
    session.flush()
    return outcomes
