# SPDX-License-Identifier: Apache-2.0
"""The rows that the decisions of a batch write: collected first, then written with one statement for each table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, case, insert, null, update
from sqlalchemy.orm import Session

from schemas.events import Event, ReturnRequested
from schemas.models import Item, Loan, Model, PrintJob, Request, UndoPatronLink, table
from schemas.print_jobs import Address, PrintState, SlipContent
from schemas.request_status import RequestStatus
from tasks.events.model import StationRecord
from tasks.operator import Identification
from tasks.requests.history import HistoryKind, HistoryLine, record
from tasks.requests.model import ItemState, RequestState
from tasks.requests.notes import clean_note
from tasks.requests.repository import RequestSet
from tasks.returns.decision import Returned
from tasks.unit_of_work import StaleStateError


@dataclass(frozen=True)
class DecidedReturn:
    """A Return with its decision: the event, its station, the request, and the ids of new print jobs."""

    event: Event
    station: StationRecord
    request: RequestState
    decision: Returned
    slips: Sequence[UUID]
    """One print job id for each item; empty when no slip is printed."""


@dataclass
class Effects:
    """The rows to write in one transaction."""

    now: datetime
    undo_window: timedelta
    requests: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    loans: list[dict[str, Any]] = field(default_factory=list)
    undo_links: list[dict[str, Any]] = field(default_factory=list)
    history: list[HistoryLine] = field(default_factory=list)
    print_jobs: list[dict[str, Any]] = field(default_factory=list)

    def add(self, decided: DecidedReturn, requests: RequestSet) -> None:
        """Add the rows that `decided` changes."""
        event, station, request, decision = decided.event, decided.station, decided.request, decided.decision
        details = requests.details[request.request_id]
        keeps_link = details.fee_open or decision.fee_review
        severs = decision.completes and not keeps_link
        self.requests.append(
            {
                "b_id": request.request_id,
                "b_expected": request.status,
                "b_status": decision.status_after,
                "b_updated_at": self.now,
                "b_returned_at": decision.at if decision.completes else request.returned_at,
                "b_returned_by": station.code if decision.completes else request.returned_by,
                "b_severs": severs,
            }
        )
        if severs and details.patron_id is not None:
            self._keep_for_undo(event, request, None, details.patron_id)
        for item in decision.items:
            self.items.append({"b_id": item.item_id, "b_returned_at": decision.at, "b_returned_by": station.code})
            if item.loan is None:
                continue
            self.loans.append(
                {"b_id": item.loan.loan_id, "b_discharged_at": decision.at, "b_fee_review": decision.fee_review}
            )
            patron_id = requests.loan_patrons.get(item.loan.loan_id)
            if patron_id is not None and not keeps_link:
                self._keep_for_undo(event, request, item.loan.loan_id, patron_id)
        self.history.append(self._history_line(decided))
        for item, job_id in zip(decision.items, decided.slips, strict=False):
            self._add_print_job(decided, requests, item, job_id)

    def _keep_for_undo(self, event: Event, request: RequestState, loan_id: int | None, patron_id: int) -> None:
        # A Return that the lender has confirmed cannot be undone, so no link is kept for it.
        if self.undo_window and request.status is not RequestStatus.COMPLETED:
            self.undo_links.append(
                {
                    "event_id": event.event_id,
                    "request_id": request.request_id,
                    "loan_id": loan_id,
                    "patron_id": patron_id,
                    "purge_after": self.now + self.undo_window,
                }
            )

    def _history_line(self, decided: DecidedReturn) -> HistoryLine:
        event, station, request, decision = decided.event, decided.station, decided.request, decided.decision
        details: dict[str, Any] = {"reason": decision.reason, "items": [item.position for item in decision.items]}
        loans = [item.loan.loan_id for item in decision.items if item.loan is not None]
        if loans:
            details["loans"] = loans
        if decided.slips:
            details["slips"] = [str(slip) for slip in decided.slips]
        if event.returned_at is not None:
            details["backdated"] = True
        if decision.fee_review:
            details["fee_review"] = True
        note = None
        if isinstance(event, ReturnRequested):
            note = clean_note(event.note)
            if event.override is not None:
                details["override"] = {**event.override.model_dump(), "identified_by": Identification.TYPED.value}
            if event.resolution is not None:
                details["resolution"] = event.resolution
        return HistoryLine(
            request_id=request.request_id,
            item_id=decision.items[0].item_id if len(decision.items) == 1 else None,
            event_id=event.event_id,
            kind=_kind(decision),
            status_before=request.status,
            status_after=decision.status_after,
            at=decision.at,
            recorded_at=self.now,
            branch=station.branch,
            station=station.code,
            note=note,
            details=details,
        )

    def _add_print_job(self, decided: DecidedReturn, requests: RequestSet, item: ItemState, job_id: UUID) -> None:
        event, station, request, decision = decided.event, decided.station, decided.request, decided.decision
        details = requests.details[request.request_id]
        name, *lines = details.return_to
        library, *place = station.sent_from
        content = SlipContent(
            job_id=job_id,
            delivery_code=request.destination.delivery_code,
            return_to=Address(name=name, lines=tuple(lines[:6])),
            sent_from=Address(name=library, lines=tuple(place[:6])),
            sent_from_code=station.sent_from_code,
            title=request.title,
            author=details.author,
            external_id=request.external_id,
            barcode=getattr(event, "barcode", None) or requests.barcodes.get(item.item_id, request.external_id),
            returned_on=decision.at.astimezone().date(),
            urgent=decision.urgent,
            item_of=(item.position, len(request.items)) if len(request.items) > 1 else None,
            damage_note=details.damage_note,
        )
        self.print_jobs.append(
            {
                "id": job_id,
                "request_id": request.request_id,
                "item_id": item.item_id,
                "event_id": event.event_id,
                "copy_number": 1,
                "branch": station.branch,
                "printer_id": station.printer_id,
                "station": station.code,
                "content": content.model_dump(mode="json"),
                "state": PrintState.REQUESTED,
                "state_since": self.now,
                "created_at": self.now,
                "attempts": 0,
            }
        )

    def write(self, session: Session) -> None:
        """Write the rows. Raises `StaleStateError` when a row changed after it was read."""
        _update_guarded(session, _RETURN_REQUEST, self.requests)
        _update_guarded(session, _CHECK_IN_ITEM, self.items)
        _update_guarded(session, _DISCHARGE_LOAN, self.loans)
        _insert(session, UndoPatronLink, self.undo_links)
        record(session, *self.history)
        _insert(session, PrintJob, self.print_jobs)


def _insert(session: Session, model: type[Model], rows: list[dict[str, Any]]) -> None:
    if rows:
        session.execute(insert(table(model)), rows)


def _kind(decision: Returned) -> HistoryKind:
    if decision.completes:
        return HistoryKind.RETURNED
    if decision.status_after is RequestStatus.COMPLETED:
        return HistoryKind.DISCHARGED_LATE
    return HistoryKind.ITEM_CHECKED_IN


_requests, _items, _loans = table(Request), table(Item), table(Loan)

_RETURN_REQUEST = (
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
_CHECK_IN_ITEM = (
    update(_items)
    .where(_items.c.id == bindparam("b_id"), _items.c.returned_at.is_(None))
    .values(returned_at=bindparam("b_returned_at"), returned_by=bindparam("b_returned_by"))
)
_DISCHARGE_LOAN = (
    update(_loans)
    .where(_loans.c.id == bindparam("b_id"), _loans.c.discharged_at.is_(None))
    .values(
        discharged_at=bindparam("b_discharged_at"),
        claimed_returned=False,
        # The discharge severs the patron link, unless a fee is open: then the link stays until the fee is settled.
        patron_id=case((_loans.c.fee_open | bindparam("b_fee_review"), _loans.c.patron_id), else_=null()),
        fee_open=_loans.c.fee_open | bindparam("b_fee_review"),
    )
)


def _update_guarded(session: Session, statement: Any, rows: list[dict[str, Any]]) -> None:
    """Run `statement` for each of `rows`. Each must change one row: its WHERE clause repeats the state that was read."""
    if rows:
        changed = session.connection().execute(statement, rows).rowcount
        if changed != len(rows):
            raise StaleStateError(f"{len(rows) - changed} of {len(rows)} rows of {statement.table.name} had changed")
