# SPDX-License-Identifier: Apache-2.0
"""What the decisions of a batch write: gathered first, then one statement a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, case, insert, null, update
from sqlalchemy.orm import Session

from schemas.events import Event, ReturnRequested
from schemas.models import Item, Loan, Model, PrintJob, Request, RequestEvent, UndoPatronLink, table
from schemas.print_jobs import Address, PrintState, SlipContent
from schemas.request_status import RequestStatus
from tasks.events.stations import StationRecord
from tasks.requests.model import ItemState, RequestState
from tasks.requests.notes import clean_note
from tasks.requests.repository import RequestSet
from tasks.returns.decision import Returned
from tasks.unit_of_work import StaleStateError


@dataclass(frozen=True)
class DecidedReturn:
    """A Return that was decided: who asked, where, on which request, and what comes of it."""

    event: Event
    desk: StationRecord
    request: RequestState
    decision: Returned
    slips: Sequence[UUID]
    """Ids for the print jobs, one an item; empty when no slip is wanted."""


@dataclass
class Effects:
    """The rows of one transaction, in the making."""

    now: datetime
    undo_window: timedelta
    requests: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    loans: list[dict[str, Any]] = field(default_factory=list)
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    print_jobs: list[dict[str, Any]] = field(default_factory=list)

    def add(self, going: DecidedReturn, shelf: RequestSet) -> None:
        """Add all that `going` changes."""
        event, desk, request, decision = going.event, going.desk, going.request, going.decision
        paper = shelf.paperwork[request.request_id]
        keeps_link = paper.fee_open or decision.fee_review
        severs = decision.completes and not keeps_link
        self.requests.append(
            {
                "b_id": request.request_id,
                "b_expected": request.status,
                "b_status": decision.status_after,
                "b_updated_at": self.now,
                "b_returned_at": decision.at if decision.completes else request.returned_at,
                "b_returned_by": desk.code if decision.completes else request.returned_by,
                "b_severs": severs,
            }
        )
        if severs and paper.patron_id is not None:
            self._set_aside(event, request, None, paper.patron_id)
        for item in decision.items:
            self.items.append({"b_id": item.item_id, "b_returned_at": decision.at, "b_returned_by": desk.code})
            if item.loan is None:
                continue
            self.loans.append(
                {"b_id": item.loan.loan_id, "b_discharged_at": decision.at, "b_fee_review": decision.fee_review}
            )
            patron_id = shelf.loan_patrons.get(item.loan.loan_id)
            if patron_id is not None and not keeps_link:
                self._set_aside(event, request, item.loan.loan_id, patron_id)
        self._tell(going)
        for item, job_id in zip(decision.items, going.slips, strict=False):
            self._order_slip(going, shelf, item, job_id)

    def _set_aside(self, event: Event, request: RequestState, loan_id: int | None, patron_id: int) -> None:
        # What the lender has confirmed is not taken back, so nothing is kept for it.
        if self.undo_window and request.status is not RequestStatus.COMPLETED:
            self.set_aside.append(
                {
                    "event_id": event.event_id,
                    "request_id": request.request_id,
                    "loan_id": loan_id,
                    "patron_id": patron_id,
                    "purge_after": self.now + self.undo_window,
                }
            )

    def _tell(self, going: DecidedReturn) -> None:
        event, desk, request, decision = going.event, going.desk, going.request, going.decision
        details: dict[str, Any] = {"reason": decision.reason, "items": [item.position for item in decision.items]}
        loans = [item.loan.loan_id for item in decision.items if item.loan is not None]
        if loans:
            details["loans"] = loans
        if going.slips:
            details["slips"] = [str(slip) for slip in going.slips]
        if event.returned_at is not None:
            details["backdated"] = True
        if decision.fee_review:
            details["fee_review"] = True
        note = None
        if isinstance(event, ReturnRequested):
            note = clean_note(event.note)
            if event.override is not None:
                details["override"] = event.override.model_dump()
            if event.resolution is not None:
                details["resolution"] = event.resolution
        self.history.append(
            {
                "request_id": request.request_id,
                "item_id": decision.items[0].item_id if len(decision.items) == 1 else None,
                "event_id": event.event_id,
                "kind": _kind(decision),
                "status_before": request.status,
                "status_after": decision.status_after,
                "at": decision.at,
                "recorded_at": self.now,
                "branch": desk.branch,
                "station": desk.code,
                "note": note,
                "details": details,
            }
        )

    def _order_slip(self, going: DecidedReturn, shelf: RequestSet, item: ItemState, job_id: UUID) -> None:
        event, desk, request, decision = going.event, going.desk, going.request, going.decision
        paper = shelf.paperwork[request.request_id]
        name, *lines = paper.return_to
        library, *place = desk.sent_from
        content = SlipContent(
            job_id=job_id,
            delivery_code=request.destination.delivery_code,
            return_to=Address(name=name, lines=tuple(lines[:6])),
            sent_from=Address(name=library, lines=tuple(place[:6])),
            title=request.title,
            author=paper.author,
            external_id=request.external_id,
            barcode=getattr(event, "barcode", None) or shelf.barcodes.get(item.item_id, request.external_id),
            returned_on=decision.at.astimezone().date(),
            urgent=decision.urgent,
            item_of=(item.position, len(request.items)) if len(request.items) > 1 else None,
            damage_note=paper.damage_note,
        )
        self.print_jobs.append(
            {
                "id": job_id,
                "request_id": request.request_id,
                "item_id": item.item_id,
                "event_id": event.event_id,
                "copy_number": 1,
                "branch": desk.branch,
                "printer_id": desk.printer_id,
                "station": desk.code,
                "content": content.model_dump(mode="json"),
                "state": PrintState.REQUESTED,
                "state_since": self.now,
                "created_at": self.now,
                "attempts": 0,
            }
        )

    def write(self, session: Session) -> None:
        """Write all of it. Raises `StaleStateError` when a row is no longer as it was read."""
        _guarded(session, _REQUEST_MOVES, self.requests)
        _guarded(session, _ITEM_COMES_BACK, self.items)
        _guarded(session, _LOAN_ENDS, self.loans)
        inserts: tuple[tuple[type[Model], list[dict[str, Any]]], ...] = (
            (UndoPatronLink, self.set_aside),
            (RequestEvent, self.history),
            (PrintJob, self.print_jobs),
        )
        for model, rows in inserts:
            if rows:
                session.execute(insert(table(model)), rows)


def _kind(decision: Returned) -> str:
    if decision.completes:
        return "returned"
    return "item_checked_in" if decision.status_after is not RequestStatus.COMPLETED else "discharged_late"


_requests, _items, _loans = table(Request), table(Item), table(Loan)

_REQUEST_MOVES = (
    update(_requests)
    .where(
        _requests.c.id == bindparam("b_id"),
        _requests.c.status == bindparam("b_expected", type_=_requests.c.status.type),
    )
    .values(
        status=bindparam("b_status", type_=_requests.c.status.type),
        updated_at=bindparam("b_updated_at"),
        returned_at=bindparam("b_returned_at"),
        returned_by=bindparam("b_returned_by"),
        patron_id=case((bindparam("b_severs"), null()), else_=_requests.c.patron_id),
    )
)
_ITEM_COMES_BACK = (
    update(_items)
    .where(_items.c.id == bindparam("b_id"), _items.c.returned_at.is_(None))
    .values(returned_at=bindparam("b_returned_at"), returned_by=bindparam("b_returned_by"))
)
_LOAN_ENDS = (
    update(_loans)
    .where(_loans.c.id == bindparam("b_id"), _loans.c.discharged_at.is_(None))
    .values(
        discharged_at=bindparam("b_discharged_at"),
        claimed_returned=False,
        # The link to the patron goes with the discharge, unless a fee keeps it until that is settled.
        patron_id=case((_loans.c.fee_open | bindparam("b_fee_review"), _loans.c.patron_id), else_=null()),
        fee_open=_loans.c.fee_open | bindparam("b_fee_review"),
    )
)


def _guarded(session: Session, statement: Any, rows: list[dict[str, Any]]) -> None:
    """Run `statement` for each of `rows`; each must hit one row, or the state it was decided on is gone."""
    if rows:
        changed = session.connection().execute(statement, rows).rowcount
        if changed != len(rows):
            raise StaleStateError(f"{len(rows) - changed} of {len(rows)} rows of {statement.table.name} had changed")
