# SPDX-License-Identifier: Apache-2.0
"""Handle undo: lock the request, decide, restore status, items, loans and patron links."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from schemas.circulation_events import ActionOutcome, ActionReply, UndoRequested
from schemas.models import Item, Loan, Partner, PrintJob, Request, RequestEvent, UndoPatronLink
from schemas.print_jobs import WAITING, PrintState
from schemas.reasons import ReplyReason
from schemas.replies import Destination
from tasks.events.handler import EventHandler, accepting
from tasks.events.model import HandlerResult, VerifiedEvent
from tasks.events.policy import LibraryPolicy
from tasks.print_jobs import state_change
from tasks.requests.history import HistoryKind, HistoryLine, record
from tasks.requests.model import Refused
from tasks.requests.notes import clean_note
from tasks.returns.undo_rule import AlreadyUndone, PastReturn, Undone, decide_undo
from tasks.unit_of_work import UnitOfWork

RETURN_KINDS: Final = frozenset({HistoryKind.RETURNED, HistoryKind.ITEM_CHECKED_IN, HistoryKind.DISCHARGED_LATE})
"""Kinds of history lines that a Return writes."""


@dataclass(frozen=True)
class _Subject:
    """The locked request, and the line of its history to undo."""

    request: Any
    line: Any
    """A row of the history; `None` when there is no `past`."""
    past: PastReturn | None


def handle_undo(
    events: Sequence[VerifiedEvent[UndoRequested]], uow: UnitOfWork, policy: LibraryPolicy
) -> HandlerResult:
    """Undo the Return that each of `events` names, in order."""
    return HandlerResult([_undo(each, uow, policy) for each in events])


UNDO_HANDLER: Final = EventHandler(accepting(UndoRequested), handle_undo)


def _undo(verified: VerifiedEvent[UndoRequested], uow: UnitOfWork, policy: LibraryPolicy) -> ActionReply:
    event = verified.event
    subject = _find(event, uow.session, verified.station.branch if policy.own_branch_only else None)
    if subject is None:
        return _refused(event, None, _nothing_to_undo(event))
    request = subject.request
    decision = decide_undo(subject.past, request.status, now=uow.now, window=policy.undo_window, reason=event.reason)
    match decision:
        case Refused():
            return _refused(event, request, decision)
        case AlreadyUndone():
            return _reply(
                event, request, ActionOutcome.ALREADY_DONE, ReplyReason.ALREADY_UNDONE,
                f"Undone before: request {request.external_id} is “{request.status.label}”",
            )  # fmt: skip
        case Undone():
            return _apply(verified, subject, decision, uow)


def _apply(verified: VerifiedEvent[UndoRequested], subject: _Subject, decision: Undone, uow: UnitOfWork) -> ActionReply:
    request, line = subject.request, subject.line
    slips, may_be_printed = _void_slips(line.event_id, uow)
    loans = _restore(subject, decision, uow)
    record(uow.session, _history_line(verified, subject, decision, slips, uow))
    warnings = []
    if may_be_printed:
        warnings.append("A slip may have come out: take it out of the book and throw it away.")
    if not decision.in_full:
        warnings.append("The loan stays discharged: lend the item again if the patron has it.")
    elif loans < len(line.details.get("loans", ())):
        warnings.append("A loan could not be opened again: lend the item again if the patron has it.")
    return _reply(
        verified.event, request, ActionOutcome.DONE,
        ReplyReason.UNDONE if decision.in_full else ReplyReason.UNDONE_STATUS_ONLY,
        f"Undone: request {request.external_id} is “{decision.status_after.label}” again",
        status_after=decision.status_after, warnings=tuple(warnings),
    )  # fmt: skip


def _nothing_to_undo(event: UndoRequested) -> Refused:
    """The refusal of an undo that names no Return."""
    what = f"there is no request {event.request}" if event.request else "that scan returned nothing"
    return Refused(
        ReplyReason.NOTHING_TO_UNDO,
        f"Not undone: {what}",
        "Look at the request's history, and undo the Return that stands there.",
    )


def _find(event: UndoRequested, session: Session, only_branch: str | None) -> _Subject | None:
    """Lock the request that the event names, then read its history. `only_branch`: no Return elsewhere may be undone."""
    which = Request.external_id == event.request
    if event.undoes is not None:
        of_event = select(RequestEvent.request_id).where(
            RequestEvent.event_id == event.undoes, RequestEvent.kind.in_(sorted(RETURN_KINDS))
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
               RequestEvent.status_after, RequestEvent.recorded_at, RequestEvent.branch, RequestEvent.details)
        .where(RequestEvent.request_id == request.id)
        .order_by(RequestEvent.id)
    ).all()  # fmt: skip
    undone = {line.details.get("undoes") for line in history if line.kind == HistoryKind.UNDONE}
    made = [line for line in history if line.kind in RETURN_KINDS and line.event_id is not None]
    standing = [line for line in made if str(line.event_id) not in undone]
    if event.undoes is not None:
        line = next(line for line in made if line.event_id == event.undoes)
    elif standing or made:
        line = (standing or made)[-1]
    else:
        return _Subject(request, None, None)
    past = PastReturn(
        event_id=line.event_id,
        external_id=request.external_id,
        recorded_at=line.recorded_at,
        status_before=line.status_before,
        status_after=line.status_after,
        is_latest=bool(standing) and standing[-1].id == line.id,
        is_undone=str(line.event_id) in undone,
        is_elsewhere=only_branch is not None and line.branch != only_branch,
    )
    return _Subject(request, line, past)


def _void_slips(event_id: UUID, uow: UnitOfWork) -> tuple[list[UUID], bool]:
    """Void the slips of the Return. Returns their ids, and true when one may be on paper already."""
    jobs = uow.session.execute(
        select(PrintJob.id, PrintJob.state).where(PrintJob.event_id == event_id, PrintJob.voided_at.is_(None))
    ).all()
    if not jobs:
        return [], False
    of_event = PrintJob.event_id == event_id
    uow.session.execute(update(PrintJob).where(of_event).values(voided_at=uow.now))
    uow.session.execute(state_change(PrintState.CANCELLED, uow.now).where(of_event, PrintJob.state.in_(WAITING)))
    not_printed = WAITING | {PrintState.CANCELLED, PrintState.EXPIRED}
    return [job.id for job in jobs], any(job.state not in not_printed for job in jobs)


def _restore(subject: _Subject, decision: Undone, uow: UnitOfWork) -> int:
    """Restore request, items and loans. Returns the number of loans that are open again."""
    session, request, line = uow.session, subject.request, subject.line
    links = session.execute(
        select(UndoPatronLink.loan_id, UndoPatronLink.patron_id).where(UndoPatronLink.event_id == line.event_id)
    ).all()
    patrons = {link.loan_id: link.patron_id for link in links}
    moved: dict[str, Any] = {"status": decision.status_after, "updated_at": uow.now}
    if line.kind == HistoryKind.RETURNED:
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


def _history_line(
    verified: VerifiedEvent[UndoRequested], subject: _Subject, decision: Undone, slips: Sequence[UUID], uow: UnitOfWork
) -> HistoryLine:
    event, station = verified.event, verified.station
    details: dict[str, Any] = {"undoes": str(subject.line.event_id), "in_full": decision.in_full}
    if slips:
        details["voided_slips"] = [str(slip) for slip in slips]
    return HistoryLine(
        request_id=subject.request.id,
        event_id=event.event_id,
        kind=HistoryKind.UNDONE,
        status_before=subject.request.status,
        status_after=decision.status_after,
        at=min(event.at, uow.now),
        recorded_at=uow.now,
        branch=station.branch,
        station=station.code,
        note=clean_note(event.reason),
        details=details,
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
    event: UndoRequested, request: Any, outcome: ActionOutcome, reason: ReplyReason, message: str, **more: Any
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
