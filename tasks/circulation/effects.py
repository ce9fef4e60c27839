# SPDX-License-Identifier: Apache-2.0
"""The rows that a circulation event writes. The request is locked; the status that was read guards its update."""

from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, insert, null, update

from schemas.circulation_events import ReceivedItem
from schemas.models import Item, ItemBarcode, Loan, Request, UndoPatronLink, table
from tasks.circulation.rules import Done
from tasks.requests.model import RequestState
from tasks.unit_of_work import StaleStateError, UnitOfWork


def update_request(request: RequestState, decision: Done, uow: UnitOfWork, **columns: Any) -> None:
    """Set the request's new status and `columns`. Raises `StaleStateError` when the status changed after it was read."""
    changed = uow.session.execute(
        update(Request)
        .where(Request.id == request.request_id, Request.status == request.status)
        .values({"status": decision.status_after, "updated_at": uow.now, **columns})
        .returning(Request.id)
    ).all()
    if not changed:
        raise StaleStateError(f"request {request.external_id} had changed")


def add_item(request_id: int, position: int, item: ReceivedItem, uow: UnitOfWork) -> None:
    """Insert the item with its barcodes; a slip shows the first."""
    item_id = uow.session.execute(
        insert(Item).values(request_id=request_id, position=position, description=item.description).returning(Item.id)
    ).scalar_one()
    codes = dict.fromkeys((item.barcode, *item.other_barcodes))
    uow.session.execute(
        insert(table(ItemBarcode)),
        [{"item_id": item_id, "barcode": code, "temporary": item.temporary and code == item.barcode} for code in codes],
    )


def begin_loan(item_id: int, patron_id: int | None, at: datetime, due_at: datetime | None, uow: UnitOfWork) -> None:
    """Insert the loan to the request's patron."""
    loan = {"item_id": item_id, "patron_id": patron_id, "loaned_at": at, "due_at": due_at}
    uow.session.execute(insert(table(Loan)), [loan])


def end_loan(loan_id: int, at: datetime, uow: UnitOfWork) -> None:
    """Discharge the loan and sever its patron link, unless a fee is open: then the link stays until the fee is settled."""
    loans = table(Loan)
    uow.session.execute(
        update(loans)
        .where(loans.c.id == loan_id)
        .values(discharged_at=at, patron_id=case((loans.c.fee_open, loans.c.patron_id), else_=null()))
    )


def delete_undo_links(request_id: int, uow: UnitOfWork) -> None:
    """Delete the patron links that were kept for an undo, which is no longer possible."""
    uow.session.execute(delete(UndoPatronLink).where(UndoPatronLink.request_id == request_id))
