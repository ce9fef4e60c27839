# SPDX-License-Identifier: Apache-2.0
"""Store rows of requests, items with their barcodes, and loans."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from schemas.models import Branch, Item, ItemBarcode, Loan, Partner, Patron, Request, table
from schemas.request_status import CLOSED, RequestStatus
from tasks.data_import.row_models import ItemRow, LoanRow, RequestRow, Row
from tasks.data_import.upsert import Outcome, RowRefusedError, StoreContext, ids_by_key, record_of, upsert

LOAN_COLUMNS: Final = frozenset({"due_at", "discharged_at", "fee_open", "claimed_returned"})
"""Columns of a loan that have the same name in its table."""


def store_requests(rows: Sequence[Row], session: Session, context: StoreContext) -> list[Outcome]:
    """Upsert requests by external identifier. Raises `RowRefusedError` for one that would reopen a closed request."""
    requests = [cast("RequestRow", row) for row in rows]
    partners = ids_by_key(session, Partner.code, (row.partner for row in requests), "partner")
    branches = ids_by_key(session, Branch.code, (row.branch for row in requests), "branch")
    patrons = ids_by_key(session, Patron.number, (row.patron for row in requests), "patron")
    statuses = {
        row.external_id: row.status
        for row in session.execute(
            select(Request.external_id, Request.status)
            .where(Request.external_id.in_([row.external_id for row in requests]))
            .with_for_update()
        )
    }
    records = []
    for row in requests:
        before = statuses.get(row.external_id)
        if before is not None and row.status is not None:
            _refuse_reopening(row, before)
        status = statuses[row.external_id] = row.status or before
        values = {
            "external_id": row.external_id,
            "partner_id": partners.get(row.partner),
            "branch_id": branches.get(row.branch),
            "status": row.status,
            "title": row.title,
            "author": row.author,
            # A closed request has no link to a patron.
            "patron_id": patrons[row.patron] if row.patron and status not in CLOSED else None,
            "return_address": row.return_address or None,
            "damage_note": row.damage_note,
            "created_at": row.created_at or context.now,
            "updated_at": context.now,
        }
        record = record_of(row, values)
        if row.status in CLOSED:
            record = replace(record, named=record.named | {"patron_id"})
        if row.created_at is None:
            record = replace(record, named=record.named - {"created_at"})
        records.append(record)
    outcomes = upsert(session, Request, "external_id", records)
    changed = [row.external_id for row, outcome in zip(requests, outcomes, strict=True) if outcome is Outcome.CHANGED]
    if changed:
        session.execute(update(Request).where(Request.external_id.in_(changed)).values(updated_at=context.now))
    return outcomes


def _refuse_reopening(row: RequestRow, before: RequestStatus) -> None:
    reopens = before in CLOSED and row.status not in CLOSED
    uncompletes = before is RequestStatus.COMPLETED and row.status is not before
    if reopens or uncompletes:
        raise RowRefusedError(
            f"request {row.external_id} is “{before.label}” here; an import does not set it back to “{row.status.label}”"
        )


def store_items(rows: Sequence[Row], session: Session, context: StoreContext) -> list[Outcome]:
    """Upsert items by their natural key, and add their barcodes. A stored barcode that a row does not have stays."""
    item_rows = [cast("ItemRow", row) for row in rows]
    requests = ids_by_key(session, Request.external_id, (row.request for row in item_rows), "request")
    own_barcodes = [row.barcode[0] for row in item_rows if not row.request]
    items = _stored_items(session, set(requests.values()), own_barcodes)
    outcomes = []
    for row in item_rows:
        key = _natural_key(row, requests)
        item = items.get(key)
        if item is None:
            if row.missing_columns():
                raise RowRefusedError("is not stored yet; a new row needs barcode")
            request_id = requests[row.request] if row.request else None
            item = items[key] = Item(request_id=request_id, position=row.position, description=row.description)
            session.add(item)
            outcomes.append(Outcome.ADDED)
        elif "description" in row.model_fields_set and item.description != row.description:
            item.description = row.description
            outcomes.append(Outcome.CHANGED)
        else:
            outcomes.append(Outcome.UNCHANGED)
    session.flush()
    extended = _add_barcodes(session, [(items[_natural_key(row, requests)].id, row) for row in item_rows])
    return [
        Outcome.CHANGED
        if outcome is Outcome.UNCHANGED and items[_natural_key(row, requests)].id in extended
        else outcome
        for row, outcome in zip(item_rows, outcomes, strict=True)
    ]


def _natural_key(row: ItemRow, requests: dict[str, int]) -> Any:
    """Request id and position; the first barcode for an item that the library owns."""
    return (requests[row.request], row.position) if row.request else row.barcode[0]


def _stored_items(session: Session, requests: set[int], own_barcodes: list[str]) -> dict[Any, Item]:
    """Stored items by natural key: those of `requests`, and the library's own items with these barcodes."""
    found: dict[Any, Item] = {
        (item.request_id, item.position): item
        for item in session.execute(select(Item).where(Item.request_id.in_(requests))).scalars()
    }
    own_items = (
        select(ItemBarcode.barcode, Item)
        .join(Item, Item.id == ItemBarcode.item_id)
        .where(Item.request_id.is_(None), ItemBarcode.barcode.in_(own_barcodes))
    )
    found.update({row.barcode: row.Item for row in session.execute(own_items)})
    return found


def _add_barcodes(session: Session, rows: list[tuple[int, ItemRow]]) -> set[int]:
    """Add the barcodes that are not stored yet; return the ids of the items that got one."""
    stored = {
        (row.item_id, row.barcode)
        for row in session.execute(
            select(ItemBarcode.item_id, ItemBarcode.barcode).where(ItemBarcode.item_id.in_({i for i, _ in rows}))
        )
    }
    new: dict[tuple[int, str], dict[str, Any]] = {}
    for item_id, row in rows:
        for barcode, temporary in [(b, False) for b in row.barcode] + [(b, True) for b in row.temporary_barcode]:
            if (item_id, barcode) not in stored:
                new[item_id, barcode] = {"item_id": item_id, "barcode": barcode, "temporary": temporary}
    if new:
        session.execute(insert(table(ItemBarcode)), list(new.values()))
    return {item_id for item_id, _ in new}


def store_loans(rows: Sequence[Row], session: Session, context: StoreContext) -> list[Outcome]:
    """Upsert loans by item and start. A discharged loan has no link to a patron, unless a fee is open on it."""
    loan_rows = [cast("LoanRow", row) for row in rows]
    patrons = ids_by_key(session, Patron.number, (row.patron for row in loan_rows), "patron")
    items: dict[str, int] = {}
    for code in session.execute(
        select(ItemBarcode.barcode, ItemBarcode.item_id)
        .where(ItemBarcode.barcode.in_({row.barcode for row in loan_rows}))
        .order_by(ItemBarcode.item_id)
    ):
        items[code.barcode] = code.item_id  # of several items with this barcode, the one added last
    stored = {
        (row.item_id, row.loaned_at): row
        for row in session.execute(select(Loan).where(Loan.item_id.in_(set(items.values())))).scalars()
    }
    on_loan = {row.item_id for row in stored.values() if row.discharged_at is None}
    outcomes = []
    for row in loan_rows:
        if row.barcode not in items:
            raise RowRefusedError(f"there is no item with barcode {row.barcode}; import it first")
        key = (items[row.barcode], row.loaned_at)
        loan = stored.get(key)
        values = _loan_values(row, loan, patrons)
        if loan is None:
            if row.discharged_at is None and key[0] in on_loan:
                raise RowRefusedError(
                    f"the item with barcode {row.barcode} is on loan already; discharge that loan first"
                )
        elif loan.discharged_at is not None and values.get("discharged_at", loan.discharged_at) is None:
            raise RowRefusedError(f"the loan of {row.barcode} is discharged here; an import does not reopen it")
        if loan is None:
            defaults = {"fee_open": row.fee_open, "claimed_returned": row.claimed_returned}
            loan = stored[key] = Loan(item_id=key[0], loaned_at=row.loaned_at, **(defaults | values))
            session.add(loan)
            if row.discharged_at is None:
                on_loan.add(key[0])
            outcomes.append(Outcome.ADDED)
            continue
        changed = {name: value for name, value in values.items() if getattr(loan, name) != value}
        for name, value in changed.items():
            setattr(loan, name, value)
        outcomes.append(Outcome.CHANGED if changed else Outcome.UNCHANGED)
    session.flush()
    return outcomes


def _loan_values(row: LoanRow, loan: Loan | None, patrons: dict[str, int]) -> dict[str, Any]:
    """Values of the columns that the row names, and the link to the patron if the row sets or ends it."""
    named = row.model_fields_set
    values = {name: getattr(row, name) for name in named & LOAN_COLUMNS}
    discharged_at = values.get("discharged_at", loan.discharged_at if loan else None)
    keeps_link = discharged_at is None or values.get("fee_open", loan.fee_open if loan else False)
    if "patron" in named or (not keeps_link and named & {"discharged_at", "fee_open"}):
        values["patron_id"] = patrons[row.patron] if row.patron and keeps_link else None
    return values
