# SPDX-License-Identifier: Apache-2.0
"""Taking a Return back: the request is locked, the rule decides, and what was set aside is put in its place again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from schemas.circulation_events import ActionOutcome, ActionReply, UndoRequested
from schemas.models import Item, Loan, Partner, PrintJob, Request, RequestEvent, UndoPatronLink, table
from schemas.print_jobs import PrintState
from schemas.replies import Destination
from tasks.events.inbox import process_once
from tasks.events.policy import LibraryPolicy
from tasks.events.results import Batch, HandlerResult, Trusted
from tasks.quarantine.rejection import Received
from tasks.requests.model import Refused
from tasks.requests.notes import clean_note
from tasks.returns.undo_rule import AlreadyUndone, PastReturn, Undone, decide_undo
from tasks.unit_of_work import UnitOfWork

EVENTS: Final[Mapping[str, type[UndoRequested]]] = {"bookdrop.undo-requested.v1": UndoRequested}

RETURNS: Final = frozenset({"returned", "item_checked_in", "discharged_late"})
"""Kinds of history lines that a Return writes."""

WAITING_STATES: Final = (PrintState.REQUESTED, PrintState.HELD, PrintState.FAILED_SAFE)
"""Of a slip in one of these states no byte has left."""


@dataclass(frozen=True)
class _Meant:
    """The request, locked, and the line of its history that is to be taken back."""

    request: Any
    line: Any
    """A row of the history; nothing to look at when there is no `past`."""
    past: PastReturn | None


def undo_returns(events: Sequence[Received], uow: UnitOfWork, house: LibraryPolicy) -> Batch[UndoRequested]:
    """Take back the Return that each of `events` names, in the open transaction of `uow`."""
    return process_once(events, uow, EVENTS, lambda fresh: HandlerResult([_one(each, uow, house) for each in fresh]))


def _one(trusted: Trusted[UndoRequested], uow: UnitOfWork, house: LibraryPolicy) -> ActionReply:
    event = trusted[0].event
    meant = _meant(event, uow.session)
    if meant is None:
        return _refused(event, None, decide_undo_of_nothing(event))
    request = meant.request
    decision = decide_undo(meant.past, request.status, now=uow.now, window=house.undo_window, reason=event.reason)
    match decision:
        case Refused():
            return _refused(event, request, decision)
        case AlreadyUndone():
            return _reply(
                event, request, ActionOutcome.ALREADY_DONE, "already_undone",
                f"Undone before: request {request.external_id} is “{request.status.label}”",
            )  # fmt: skip
        case Undone():
            slips, out = _void_slips(meant.line.event_id, uow)
            loans = _put_back(meant, decision, uow)
            _tell(trusted, meant, decision, slips, uow)
            warnings = []
            if out:
                warnings.append("A slip may have come out: take it out of the book and throw it away.")
            if not decision.in_full:
                warnings.append("The loan stays discharged: lend the item again if the reader has it.")
            elif loans < len(meant.line.details.get("loans", ())):
                warnings.append("A loan could not be opened again: lend the item again if the reader has it.")
            return _reply(
                event, request, ActionOutcome.DONE, "undone" if decision.in_full else "undone_status_only",
                f"Undone: request {request.external_id} is “{decision.status_after.label}” again",
                status_after=decision.status_after, warnings=tuple(warnings),
            )  # fmt: skip


def decide_undo_of_nothing(event: UndoRequested) -> Refused:
    """The refusal of an undo that names no Return of ours."""
    what = f"there is no request {event.request}" if event.request else "that scan returned nothing"
    return Refused(
        "nothing_to_undo",
        f"Not undone: {what}",
        "Look at the request's history, and undo the Return that stands there.",
    )


def _meant(event: UndoRequested, session: Session) -> _Meant | None:
    """Lock the request that is meant, then read its history."""
    which = Request.external_id == event.request
    if event.undoes is not None:
        of_event = select(RequestEvent.request_id).where(
            RequestEvent.event_id == event.undoes, RequestEvent.kind.in_(RETURNS)
        )
        which = Request.id.in_(of_event)
    request = session.execute(
        select(Request.id, Request.external_id, Request.title, Request.status, Request.returned_at,
               Request.returned_by, Partner.name, Partner.code, Partner.delivery_code)
        .join(Partner, Partner.id == Request.partner_id)
        .where(which)
        .with_for_update(of=Request)
    ).one_or_none()  # fmt: skip
    if request is None:
        return None
    history = session.execute(
        select(RequestEvent.id, RequestEvent.event_id, RequestEvent.kind, RequestEvent.status_before,
               RequestEvent.status_after, RequestEvent.recorded_at, RequestEvent.details)
        .where(RequestEvent.request_id == request.id)
        .order_by(RequestEvent.id)
    ).all()  # fmt: skip
    undone = {line.details.get("undoes") for line in history if line.kind == "undone"}
    made = [line for line in history if line.kind in RETURNS and line.event_id is not None]
    standing = [line for line in made if str(line.event_id) not in undone]
    if event.undoes is not None:
        line = next(line for line in made if line.event_id == event.undoes)
    elif standing or made:
        line = (standing or made)[-1]
    else:
        return _Meant(request, None, None)
    past = PastReturn(
        event_id=line.event_id,
        external_id=request.external_id,
        recorded_at=line.recorded_at,
        status_before=line.status_before,
        status_after=line.status_after,
        is_latest=bool(standing) and standing[-1].id == line.id,
        is_undone=str(line.event_id) in undone,
    )
    return _Meant(request, line, past)


def _void_slips(event_id: UUID, uow: UnitOfWork) -> tuple[list[UUID], bool]:
    """Make the Return's slips void; give their ids, and whether one may be on paper already."""
    jobs = uow.session.execute(
        select(PrintJob.id, PrintJob.state).where(PrintJob.event_id == event_id, PrintJob.voided_at.is_(None))
    ).all()
    if not jobs:
        return [], False
    of_event = PrintJob.event_id == event_id
    uow.session.execute(update(PrintJob).where(of_event).values(voided_at=uow.now))
    uow.session.execute(
        update(PrintJob)
        .where(of_event, PrintJob.state.in_(WAITING_STATES))
        .values(state=PrintState.CANCELLED, state_since=uow.now)
    )
    not_out = {*WAITING_STATES, PrintState.CANCELLED, PrintState.EXPIRED}
    return [job.id for job in jobs], any(job.state not in not_out for job in jobs)


def _put_back(meant: _Meant, decision: Undone, uow: UnitOfWork) -> int:
    """Put request, items and loans back; give how many loans are open again."""
    session, request, line = uow.session, meant.request, meant.line
    aside = session.execute(
        select(UndoPatronLink.loan_id, UndoPatronLink.patron_id).where(UndoPatronLink.event_id == line.event_id)
    ).all()
    patrons = {link.loan_id: link.patron_id for link in aside}
    moved: dict[str, Any] = {"status": decision.status_after, "updated_at": uow.now}
    if line.kind == "returned":
        moved |= {"returned_at": None, "returned_by": None}
        if decision.in_full and None in patrons:
            moved["patron_id"] = patrons[None]
    session.execute(update(Request).where(Request.id == request.id).values(moved))
    session.execute(
        update(Item)
        .where(Item.request_id == request.id, Item.position.in_(line.details.get("items", ())))
        .values(returned_at=None, returned_by=None)
    )
    opened = 0
    if decision.in_full:
        claimed = line.details.get("resolution") is not None
        for loan_id in line.details.get("loans", ()):
            values: dict[str, Any] = {"discharged_at": None, "claimed_returned": claimed}
            if loan_id in patrons:
                values["patron_id"] = patrons[loan_id]
            found = session.execute(
                update(Loan)
                .where(Loan.id == loan_id, Loan.discharged_at.is_not(None))
                .values(values)
                .returning(Loan.id)
            ).all()
            opened += len(found)
    session.execute(delete(UndoPatronLink).where(UndoPatronLink.event_id == line.event_id))
    return opened


def _tell(
    trusted: Trusted[UndoRequested], meant: _Meant, decision: Undone, slips: Sequence[UUID], uow: UnitOfWork
) -> None:
    event, desk = trusted[0].event, trusted[1]
    details: dict[str, Any] = {"undoes": str(meant.line.event_id), "in_full": decision.in_full}
    if slips:
        details["voided_slips"] = [str(slip) for slip in slips]
    uow.session.execute(
        insert(table(RequestEvent)),
        [
            {
                "request_id": meant.request.id,
                "item_id": None,
                "event_id": event.event_id,
                "kind": "undone",
                "status_before": meant.request.status,
                "status_after": decision.status_after,
                "at": min(event.at, uow.now),
                "recorded_at": uow.now,
                "branch": desk.branch,
                "station": desk.code,
                "note": clean_note(event.reason),
                "details": details,
            }
        ],
    )


def _refused(event: UndoRequested, request: Any | None, refused: Refused) -> ActionReply:
    if request is None:
        return ActionReply(
            event_id=event.event_id,
            outcome=ActionOutcome.REFUSED,
            reason=refused.reason,
            message=refused.message,
            next_step=refused.next_step,
            request=event.request,
        )
    return _reply(event, request, ActionOutcome.REFUSED, refused.reason, refused.message, next_step=refused.next_step)


def _reply(
    event: UndoRequested, request: Any, outcome: ActionOutcome, reason: str, message: str, **more: Any
) -> ActionReply:
    return ActionReply(
        **{
            "event_id": event.event_id,
            "outcome": outcome,
            "reason": reason,
            "message": message,
            "title": request.title,
            "request": request.external_id,
            "destination": Destination(name=request.name, code=request.code, delivery_code=request.delivery_code),
            "status_before": request.status,
            "status_after": request.status,
            **more,
        }
    )
