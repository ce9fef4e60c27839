# SPDX-License-Identifier: Apache-2.0
"""Handle the events of stations about slips: confirm a slip in its item (packing), and reprint a slip."""

from collections.abc import Sequence
from typing import Any, Final, assert_never
from uuid import UUID

from sqlalchemy import exists, select

from schemas.barcodes import BarcodeRefusedError, clean
from schemas.circulation_events import ActionOutcome, ActionReply, ReprintRequested, SlipSeen
from schemas.models import ItemBarcode, PrintJob
from schemas.print_jobs import IN_HAND, TRANSITIONS, WAITING
from schemas.print_jobs import PrintState as State
from schemas.reasons import ReplyReason
from schemas.slip_codes import is_short, last_digits, short_code, slip_code
from tasks.events.handler import EventHandler, accepting
from tasks.events.model import HandlerResult, VerifiedEvent
from tasks.events.policy import LibraryPolicy
from tasks.operator import Identification, Operator
from tasks.print_jobs import change_state
from tasks.printing.actions import copy_job
from tasks.printing.slip_lookup import find_slips
from tasks.requests.history import HistoryKind, HistoryLine, record
from tasks.unit_of_work import UnitOfWork

SlipEvent = SlipSeen | ReprintRequested


def handle_slip_events(
    events: Sequence[VerifiedEvent[SlipEvent]], uow: UnitOfWork, _policy: LibraryPolicy
) -> HandlerResult:
    """Perform what each of `events` asks for, in order."""
    return HandlerResult([_handle(each, uow) for each in events])


SLIP_HANDLER: Final = EventHandler(accepting(SlipSeen, ReprintRequested), handle_slip_events)


def _handle(verified: VerifiedEvent[SlipEvent], uow: UnitOfWork) -> ActionReply:
    event = verified.event
    match event:
        case SlipSeen():
            return _confirm(event, verified, uow)
        case ReprintRequested():
            return _reprint(event, verified, uow)
        case _:
            assert_never(event)


def _confirm(event: SlipSeen, verified: VerifiedEvent[SlipEvent], uow: UnitOfWork) -> ActionReply:
    slip = _find_slip(event, uow)
    if isinstance(slip, ActionReply):
        return slip
    job = uow.session.scalars(select(PrintJob).where(PrintJob.id == slip).with_for_update()).one_or_none()
    if job is None:
        return _refused(event, None, ReplyReason.UNKNOWN_SLIP, "No slip has this code", "Scan the slip's code again.")
    wrong = _wrong_item(event, job, uow) or _wrong_slip(event, job, uow)
    if wrong is not None:
        return wrong
    if job.state is State.CONFIRMED:
        return _reply(
            event,
            job,
            ActionOutcome.ALREADY_DONE,
            ReplyReason.ALREADY_CONFIRMED,
            "Scanned before: slip and item belong together",
        )
    change_state(job, State.CONFIRMED, uow.now)
    job.next_attempt_at = None
    job.last_error = None
    _record(verified, job, uow, HistoryKind.SLIP_CONFIRMED, None)
    return _reply(
        event,
        job,
        ActionOutcome.DONE,
        ReplyReason.CONFIRMED,
        f"Slip and item belong together: to {job.content['return_to']['name']}",
    )


def _find_slip(event: SlipSeen, uow: UnitOfWork) -> UUID | ActionReply:
    """The id of the slip. A short form that several slips have is refused, unless one of them belongs to the item."""
    if not is_short(event.slip):
        return event.slip
    found = find_slips(uow.session.connection(), [last_digits(event.slip)])
    if len(found) > 1:
        items = select(ItemBarcode.item_id).where(ItemBarcode.barcode == event.barcode)
        of_item = set(uow.session.scalars(items))
        found = [slip for slip in found if slip.item_id in of_item] or found
    if len(found) > 1:
        candidates = "; ".join(f"{slip_code(slip.job_id)} of {slip.request}, item {slip.barcode}" for slip in found[:5])
        return _refused(
            event, None, ReplyReason.SEVERAL_SLIPS, f"Several slips have this short form: {candidates}",
            "Scan the slip's code, or type all of it.",
        )  # fmt: skip
    return found[0].job_id if found else event.slip


def _wrong_item(event: SlipSeen, job: PrintJob, uow: UnitOfWork) -> ActionReply | None:
    """The refusal of a slip in an item that it does not belong to."""
    try:
        barcode = clean(event.barcode)
    except BarcodeRefusedError as error:
        return _refused(event, job, ReplyReason.NO_BARCODE, str(error), "Scan the barcode on the item again.")
    fits = exists().where(ItemBarcode.item_id == job.item_id, ItemBarcode.barcode == barcode)
    if uow.session.execute(select(fits)).scalar_one():
        return None
    return _refused(
        event, job, ReplyReason.WRONG_ITEM,
        f"WRONG SLIP: it belongs to “{job.content['title']}” ({job.content['barcode']}), not to {barcode}",
        "Take the slip out. Find the item it belongs to, and the slip of this one.",
    )  # fmt: skip


def _wrong_slip(event: SlipSeen, job: PrintJob, uow: UnitOfWork) -> ActionReply | None:
    """The refusal of a slip of this item that must not go with it: void, replaced, or not sent."""
    if job.voided_at is not None:
        newer = _slip_of_a_later_return(job, uow)
        if newer is not None:
            return _refused(
                event,
                job,
                ReplyReason.VOID_SLIP,
                f"The Return of this slip was undone, and the item was returned again: its slip is {short_code(newer)}",
                f"Throw this one away, and pack the item with the slip {short_code(newer)}.",
            )
        return _refused(
            event,
            job,
            ReplyReason.VOID_SLIP,
            "The Return of this slip was undone: the item stays here",
            "Throw the slip away.",
        )
    other = uow.session.execute(
        select(PrintJob.copy_number)
        .where(
            PrintJob.item_id == job.item_id,
            PrintJob.event_id == job.event_id,
            PrintJob.id != job.id,
            PrintJob.state == State.CONFIRMED,
        )
        .limit(1)
    ).scalar_one_or_none()
    if other is not None:
        return _refused(
            event, job, ReplyReason.SECOND_SLIP, f"Another slip of this item was seen already (copy {other})",
            "Throw this one away.",
        )  # fmt: skip
    if job.state is State.CANCELLED:
        return _refused(
            event, job, ReplyReason.CANCELLED_SLIP, "This slip was given up; a copy may have been ordered in its place",
            "Throw this one away, and pack the item with its copy.",
        )  # fmt: skip
    if job.state is not State.CONFIRMED and State.CONFIRMED not in TRANSITIONS[job.state]:
        return _refused(
            event, job, ReplyReason.NOT_SENT, f"This slip is not known as sent ({job.state.value.replace('_', ' ')})",
            "Scan it again in a minute; if that does not help, call the operator of the printers.",
        )  # fmt: skip
    return None


def _slip_of_a_later_return(job: PrintJob, uow: UnitOfWork) -> UUID | None:
    """The newest slip of the item that a later Return printed and that is valid."""
    return uow.session.scalars(
        select(PrintJob.id)
        .where(
            PrintJob.item_id == job.item_id,
            PrintJob.event_id != job.event_id,
            PrintJob.voided_at.is_(None),
            PrintJob.state.not_in((State.CANCELLED, State.EXPIRED)),
            PrintJob.created_at >= job.created_at,
        )
        .order_by(PrintJob.created_at.desc(), PrintJob.id.desc())
        .limit(1)
    ).one_or_none()


def _reprint(event: ReprintRequested, verified: VerifiedEvent[SlipEvent], uow: UnitOfWork) -> ActionReply:
    jobs = uow.session.scalars(
        select(PrintJob)
        .where(PrintJob.event_id == event.reprints)
        .order_by(PrintJob.item_id, PrintJob.copy_number)
        .with_for_update()
    ).all()
    newest = list({job.item_id: job for job in jobs}.values())
    if not newest:
        return _refused(
            event, None, ReplyReason.NO_SLIP, "That Return has no slip",
            "Return it from the request with “Automatically print slip”, or ask interlibrary loan.",
        )  # fmt: skip
    if newest[0].voided_at is not None:
        return _refused(
            event,
            newest[0],
            ReplyReason.VOID_SLIP,
            "That Return was undone: there is nothing to send back",
            "Continue.",
        )
    waiting = [job for job in newest if job.state in WAITING | IN_HAND]
    if waiting:
        return _refused(
            event, waiting[0], ReplyReason.NOT_SENT, "Its slip has not come out yet: it waits for its printer",
            "Wait for it; an operator can try it again or move it to another printer.",
        )  # fmt: skip
    by = _station_as_operator(event.station, event.reason)
    copies = [copy_job(job, uow, by) for job in newest]
    for job, copy in zip(newest, copies, strict=True):
        _record(
            verified,
            job,
            uow,
            HistoryKind.SLIP_REPRINTED,
            event.reason,
            copy=str(copy.id),
            copy_number=copy.copy_number,
        )
    number = copies[0].copy_number
    return _reply(
        event, newest[0], ActionOutcome.DONE, ReplyReason.REPRINTING, f"Copy {number} of the slip is on its way"
    )


def _station_as_operator(station: str, reason: str | None) -> Operator:
    """The operator of a station's event: the station, because the event names no person."""
    return Operator(f"station {station}", reason, Identification.STATION)


def _record(
    verified: VerifiedEvent[SlipEvent],
    job: PrintJob,
    uow: UnitOfWork,
    kind: HistoryKind,
    note: str | None,
    **details: Any,
) -> None:
    event, station = verified.event, verified.station
    line = HistoryLine(
        request_id=job.request_id,
        item_id=job.item_id,
        event_id=event.event_id,
        kind=kind,
        at=uow.now,
        recorded_at=uow.now,
        branch=station.branch,
        station=station.code,
        note=note,
        details={"slip": str(job.id), **_station_as_operator(station.code, None).details, **details},
    )
    uow.session.flush()
    record(uow.session, line)


def _refused(event: SlipEvent, job: PrintJob | None, reason: ReplyReason, message: str, next_step: str) -> ActionReply:
    return _reply(event, job, ActionOutcome.REFUSED, reason, message, next_step=next_step)


def _reply(
    event: SlipEvent,
    job: PrintJob | None,
    outcome: ActionOutcome,
    reason: ReplyReason,
    message: str,
    *,
    next_step: str | None = None,
) -> ActionReply:
    content = job.content if job is not None else {}
    return ActionReply(
        event_id=event.event_id,
        outcome=outcome,
        reason=reason,
        message=message,
        next_step=next_step,
        barcode=getattr(event, "barcode", None) or content.get("barcode"),
        title=content.get("title"),
        request=content.get("external_id"),
    )
