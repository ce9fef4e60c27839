# SPDX-License-Identifier: Apache-2.0
"""Operators' actions on a slip: retry, reprint, mark as printed, cancel, move.

Each action is one transaction, with a line in the request's history that contains operator and reason. An action that
the state of the slip does not allow raises `RefusedActionError` and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from uuid6 import uuid7

from schemas.models import Printer, PrintJob
from schemas.print_jobs import IN_HAND, RECONCILABLE, TRANSITIONS, WAITING, SlipContent
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.operator import Operator
from tasks.print_jobs import change_state, enqueue_print_task
from tasks.printing.messages import describe
from tasks.printing.notifications import enqueue_notice
from tasks.requests.history import HistoryKind, operator_line, record
from tasks.unit_of_work import UnitOfWork, retry_on_conflict


class RefusedActionError(Exception):
    """The slip's state does not allow the action. The text contains the cause and the next step."""


@dataclass(frozen=True)
class Done:
    """The result of an action."""

    slip: UUID
    """The job of the action; for a reprint, the new job."""
    state: State
    message: str
    """For the screen."""


def retry(slip: UUID, by: Operator, context: Context) -> Done:
    """Try a waiting slip's printer now, without its backoff: the line of the printer is sent, the oldest slip first.

    Raises `RefusedActionError` for a slip that may be on paper already, and while its printer and the printer's fallback
    are on hold, because then no worker would send it.
    """

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        _require_waiting(job)
        printer = _lock_printer(job, uow)
        if printer is not None and printer.on_hold and _fallback_on_hold(printer, uow):
            raise RefusedActionError(
                f"Printer {printer.code} is on hold, so no worker would send it. Resume the printer"
                f" ('bookdrop printers resume {printer.code}'), or move the slip to another one (move)."
            )
        job.next_attempt_at = None
        job.lease_until = None
        if printer is not None:
            # The operator has attended to the printer: its backoff ends.
            printer.retry_at = None
        enqueue_print_task(job, uow)
        _record(job, uow, HistoryKind.SLIP_RETRIED, by)
        return Done(job.id, job.state, _retried(printer))

    return _perform(slip, context, act)


def _fallback_on_hold(printer: Printer, uow: UnitOfWork) -> bool:
    """True if no fallback takes the printer's slips while it is on hold."""
    fallback = uow.session.get(Printer, printer.fallback_id) if printer.fallback_id is not None else None
    return fallback is None or fallback.on_hold


def _retried(printer: Printer | None) -> str:
    if printer is None:
        return "Retried: it goes to the printer of its station or branch, if there is one now"
    if printer.on_hold:
        return f"Retried: printer {printer.code} is on hold, its fallback prints the slip"
    return f"Retried: printer {printer.code} is tried now, the oldest slip of its line first"


def reprint(slip: UUID, by: Operator, context: Context) -> Done:
    """Print a copy of the slip, marked COPY n; a slip in doubt is cancelled. Requires a reason."""
    if not (by.reason or "").strip():
        raise RefusedActionError("A second slip needs a reason: the first one may still be in a book.")

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        if job.voided_at is not None:
            raise RefusedActionError("Its Return was undone: there is nothing to send back.")
        if job.state in WAITING:
            raise RefusedActionError("It has not been sent yet. Try it again instead (retry).")
        if job.state in IN_HAND:
            raise RefusedActionError("It is being sent just now. Look again in a minute.")
        copy = copy_job(job, uow, by)
        _record(job, uow, HistoryKind.SLIP_REPRINTED, by, copy=str(copy.id), copy_number=copy.copy_number)
        return Done(copy.id, copy.state, f"Copy {copy.copy_number} ordered")

    return _perform(slip, context, act)


def mark_printed(slip: UUID, by: Operator, context: Context) -> Done:
    """Record that the operator saw the slip on paper. The printer is not polled for it again."""

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        if job.state in {State.DONE, State.CONFIRMED}:
            return Done(job.id, job.state, "Known already")
        if job.state not in RECONCILABLE:
            raise RefusedActionError(
                f"It was not sent ({job.state.value}): what was seen is another slip. Compare the code on it."
            )
        change_state(job, State.DONE, uow.now)
        job.next_attempt_at = None
        job.last_error = None
        _record(job, uow, HistoryKind.SLIP_SEEN, by)
        return Done(job.id, job.state, "Noted: it printed")

    return _perform(slip, context, act)


def cancel(slip: UUID, by: Operator, context: Context) -> Done:
    """Cancel a slip that has not been sent, or whose result is unknown."""

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        if job.state is State.CANCELLED:
            return Done(job.id, job.state, "Cancelled already")
        if State.CANCELLED not in TRANSITIONS[job.state] or job.state in IN_HAND:
            raise RefusedActionError(f"It cannot be cancelled any more: {describe(job.state, None)}.")
        change_state(job, State.CANCELLED, uow.now)
        job.next_attempt_at = job.lease_until = None
        _record(job, uow, HistoryKind.SLIP_CANCELLED, by)
        enqueue_notice(
            uow, station=job.station, event_id=job.event_id, job_id=job.id, state=job.state, printer=None, reason=None
        )
        return Done(job.id, job.state, "Cancelled")

    return _perform(slip, context, act)


def move(slip: UUID, to: str, by: Operator, context: Context) -> Done:
    """Move a waiting slip to the printer `to`. Raises `RefusedActionError` for a slip that was sent: reprint that."""

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        printer = uow.session.scalars(select(Printer).where(Printer.code == to)).one_or_none()
        if printer is None:
            raise RefusedActionError(f"There is no printer {to}. 'bookdrop printers list' names them.")
        _require_waiting(job)
        job.printer_id = printer.id
        job.next_attempt_at = job.lease_until = None
        enqueue_print_task(job, uow)
        _record(job, uow, HistoryKind.SLIP_MOVED, by, printer=to)
        hold = ", which is on hold" if printer.on_hold else ""
        return Done(job.id, job.state, f"Goes to printer {to}{hold}")

    return _perform(slip, context, act)


def copy_job(job: PrintJob, uow: UnitOfWork, by: Operator) -> PrintJob:
    """Create and enqueue the next copy of a slip, marked COPY n. Cancels the original when its result is unknown."""
    number = (
        1
        + uow.session.execute(
            select(func.max(PrintJob.copy_number)).where(
                PrintJob.item_id == job.item_id, PrintJob.event_id == job.event_id
            )
        ).scalar_one()
    )
    new_id = uuid7()
    content = SlipContent.model_validate(job.content).model_copy(update={"job_id": new_id, "copy_number": number})
    copy = PrintJob(
        id=new_id,
        request_id=job.request_id,
        item_id=job.item_id,
        event_id=job.event_id,
        copy_number=number,
        reprint_of=job.id,
        reason=by.reason,
        actor=by.actor,
        branch=job.branch,
        printer_id=job.printer_id,
        station=job.station,
        content=content.model_dump(mode="json"),
        state=State.REQUESTED,
        state_since=uow.now,
        created_at=uow.now,
        attempts=0,
    )
    uow.session.add(copy)
    uow.session.flush()
    enqueue_print_task(copy, uow)
    if job.state is State.UNKNOWN:
        change_state(job, State.CANCELLED, uow.now)
        job.next_attempt_at = None
        job.last_error = f"copy {number} was ordered in its place"
    return copy


def _perform(slip: UUID, context: Context, act: Callable[[PrintJob, UnitOfWork], Done]) -> Done:
    def work() -> tuple[Done, UnitOfWork]:
        with context.unit_of_work() as uow:
            job = uow.session.scalars(select(PrintJob).where(PrintJob.id == slip).with_for_update()).one_or_none()
            if job is None:
                raise RefusedActionError(f"There is no slip {slip}. 'bookdrop prints list' names them.")
            return act(job, uow), uow

    done, uow = retry_on_conflict(work)
    context.publisher.publish_outbox(uow.pending_messages)
    return done


def _require_waiting(job: PrintJob) -> None:
    if job.voided_at is not None:
        raise RefusedActionError("Its Return was undone: there is nothing to send back.")
    if job.state in WAITING:
        return
    if job.state in IN_HAND:
        raise RefusedActionError("It is being sent just now. Look again in a minute.")
    if job.state is State.UNKNOWN:
        raise RefusedActionError(
            "It may be at the printer already. Look there: if it is, mark it (printed); if not, order a copy (reprint)."
        )
    raise RefusedActionError(f"{describe(job.state, None)}. For another one, order a copy (reprint).")


def _lock_printer(job: PrintJob, uow: UnitOfWork) -> Printer | None:
    if job.printer_id is None:
        return None
    return uow.session.scalars(select(Printer).where(Printer.id == job.printer_id).with_for_update()).one_or_none()


def _record(job: PrintJob, uow: UnitOfWork, kind: HistoryKind, by: Operator, **details: Any) -> None:
    """Write a line in the history of the slip's request."""
    details |= {"slip": str(job.id)}
    line = operator_line(job.request_id, kind, by, uow.now, branch=job.branch, item_id=job.item_id, **details)
    uow.session.flush()
    record(uow.session, line)
