# SPDX-License-Identifier: Apache-2.0
"""What an event of the cycle writes. The request is locked; its move is guarded by the status it was decided on."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, insert, null, update

from schemas.circulation_events import CycleEvent, ReceivedItem
from schemas.models import Item, ItemBarcode, Loan, Request, RequestEvent, UndoPatronLink, table
from tasks.circulation.rules import Done
from tasks.events.results import Trusted
from tasks.requests.model import RequestState
from tasks.unit_of_work import StaleStateError, UnitOfWork


def move(request: RequestState, decision: Done, uow: UnitOfWork, **columns: Any) -> None:
    """Give the request its new status and `columns`. Raises `StaleStateError` when it is no longer as it was read."""
    changed = uow.session.execute(
        update(Request)
        .where(Request.id == request.request_id, Request.status == request.status)
        .values({"status": decision.status_after, "updated_at": uow.now, **columns})
        .returning(Request.id)
    ).all()
    if not changed:
        raise StaleStateError(f"request {request.external_id} had changed")


def add_item(request_id: int, position: int, item: ReceivedItem, uow: UnitOfWork) -> None:
    """Make the item, with its barcodes; the first is the one that a slip shows."""
    item_id = uow.session.execute(
        insert(Item).values(request_id=request_id, position=position, description=item.description).returning(Item.id)
    ).scalar_one()
    codes = dict.fromkeys((item.barcode, *item.other_barcodes))
    uow.session.execute(
        insert(table(ItemBarcode)),
        [{"item_id": item_id, "barcode": code, "temporary": item.temporary and code == item.barcode} for code in codes],
    )


def begin_loan(item_id: int, patron_id: int | None, at: datetime, due_at: datetime | None, uow: UnitOfWork) -> None:
    """Lend the item to the request's reader."""
    loan = {"item_id": item_id, "patron_id": patron_id, "loaned_at": at, "due_at": due_at}
    uow.session.execute(insert(table(Loan)), [loan])


def end_loan(loan_id: int, at: datetime, uow: UnitOfWork) -> None:
    """Discharge the loan. Its link to the patron goes with it, unless a fee keeps it until that is settled."""
    loans = table(Loan)
    uow.session.execute(
        update(loans)
        .where(loans.c.id == loan_id)
        .values(discharged_at=at, patron_id=case((loans.c.fee_open, loans.c.patron_id), else_=null()))
    )


def forget_links(request_id: int, uow: UnitOfWork) -> None:
    """Let go of what was set aside for an undo that cannot come any more."""
    uow.session.execute(delete(UndoPatronLink).where(UndoPatronLink.request_id == request_id))


def tell(
    trusted: Trusted[Any],
    request: RequestState,
    decision: Done,
    uow: UnitOfWork,
    kind: str,
    *,
    items: Sequence[int] = (),
    at: datetime | None = None,
) -> None:
    """Write the line of history. `items`: positions; `at`: when, if not the event's own time."""
    event: CycleEvent = trusted[0].event
    desk = trusted[1]
    uow.session.execute(
        insert(table(RequestEvent)),
        [
            {
                "request_id": request.request_id,
                "item_id": None,
                "event_id": event.event_id,
                "kind": kind,
                "status_before": request.status,
                "status_after": decision.status_after,
                "at": at or min(event.at, uow.now),
                "recorded_at": uow.now,
                "branch": desk.branch,
                "station": desk.code,
                "note": None,
                "details": {"reason": decision.reason} | ({"items": list(items)} if items else {}),
            }
        ],
    )
