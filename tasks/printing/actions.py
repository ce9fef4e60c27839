# SPDX-License-Identifier: Apache-2.0
"""What a person decides about a slip: again, a copy, it printed, not at all, elsewhere.

Each is one transaction with a line in the request's history that names who and why. What cannot be done is a
`RefusedActionError` with words on what can; nothing was changed then.
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
from tasks.printing.messages import words
from tasks.printing.notifications import enqueue_notice
from tasks.requests.history import HistoryKind, HistoryLine, record
from tasks.unit_of_work import UnitOfWork, retry_on_conflict


class RefusedActionError(Exception):
    """It cannot be done to this slip. The text says why, and what can be done."""


@dataclass(frozen=True)
class Done:
    """What became of the slip."""

    slip: UUID
    """The job acted on; for a reprint, the new one."""
    state: State
    message: str
    """For the screen."""


def retry(slip: UUID, by: Operator, here: Context) -> Done:
    """Try a slip that waits again, now. Raises `RefusedActionError` for one that may be on paper already."""

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        _need_waiting(job)
        job.next_attempt_at = None
        job.lease_until = None
        printer = _printer_of(job, uow)
        if printer is not None:
            # Whoever asks has seen to the printer: its pause is over.
            printer.retry_at = None
        enqueue_print_task(job, uow)
        _record(job, uow, HistoryKind.SLIP_RETRIED, by)
        hold = f", but printer {printer.code} is on hold" if printer is not None and printer.on_hold else ""
        return Done(job.id, job.state, f"Ordered again{hold}")

    return _in_one_commit(slip, here, act)


def retry_all(by: Operator, here: Context, *, branch: str | None = None, printer: str | None = None) -> list[Done]:
    """Try every slip that failed or is held again, the oldest first."""
    with here.sessions() as session:
        wanted = (
            select(PrintJob.id)
            .outerjoin(Printer, Printer.id == PrintJob.printer_id)
            .where(PrintJob.state.in_((State.FAILED_SAFE, State.HELD)), PrintJob.voided_at.is_(None))
            .order_by(PrintJob.created_at, PrintJob.id)
        )
        if branch is not None:
            wanted = wanted.where(PrintJob.branch == branch)
        if printer is not None:
            wanted = wanted.where(Printer.code == printer)
        found = session.scalars(wanted).all()
    done = []
    for slip in found:
        try:
            done.append(retry(slip, by, here))
        except RefusedActionError:  # it went on in the meantime
            continue
    return done


def reprint(slip: UUID, by: Operator, here: Context) -> Done:
    """Print the slip once more; the paper says COPY n. Needs a reason. The first one is no longer expected."""
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
        if job.state is State.UNKNOWN:
            change_state(job, State.CANCELLED, uow.now)
            job.next_attempt_at = None
            job.last_error = f"copy {copy.copy_number} was ordered in its place"
        _record(job, uow, HistoryKind.SLIP_REPRINTED, by, copy=str(copy.id), copy_number=copy.copy_number)
        return Done(copy.id, copy.state, f"Copy {copy.copy_number} ordered")

    return _in_one_commit(slip, here, act)


def mark_printed(slip: UUID, by: Operator, here: Context) -> Done:
    """A person saw the slip: nobody need ask any more."""

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

    return _in_one_commit(slip, here, act)


def cancel(slip: UUID, by: Operator, here: Context) -> Done:
    """Give a slip up that has not been sent, or that nobody knows of."""

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        if job.state is State.CANCELLED:
            return Done(job.id, job.state, "Cancelled already")
        if State.CANCELLED not in TRANSITIONS[job.state] or job.state in IN_HAND:
            raise RefusedActionError(f"It cannot be cancelled any more: {words(job.state, None)}.")
        change_state(job, State.CANCELLED, uow.now)
        job.next_attempt_at = job.lease_until = None
        _record(job, uow, HistoryKind.SLIP_CANCELLED, by)
        enqueue_notice(
            uow, station=job.station, event_id=job.event_id, job_id=job.id, state=job.state, printer=None, why=None
        )
        return Done(job.id, job.state, "Cancelled")

    return _in_one_commit(slip, here, act)


def move(slip: UUID, to: str, by: Operator, here: Context) -> Done:
    """Have a slip that waits printed on another printer; one that was sent is reprinted there instead."""

    def act(job: PrintJob, uow: UnitOfWork) -> Done:
        printer = uow.session.scalars(select(Printer).where(Printer.code == to)).one_or_none()
        if printer is None:
            raise RefusedActionError(f"There is no printer {to}. 'bookdrop printers list' names them.")
        _need_waiting(job)
        job.printer_id = printer.id
        job.next_attempt_at = job.lease_until = None
        enqueue_print_task(job, uow)
        _record(job, uow, HistoryKind.SLIP_MOVED, by, printer=to)
        return Done(job.id, job.state, f"Goes to printer {to}")

    return _in_one_commit(slip, here, act)


def copy_job(job: PrintJob, uow: UnitOfWork, by: Operator) -> PrintJob:
    """The next copy of a slip, ordered. COPY n stands on it."""
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
    return copy


def _in_one_commit(slip: UUID, here: Context, act: Callable[[PrintJob, UnitOfWork], Done]) -> Done:
    def work() -> tuple[Done, UnitOfWork]:
        with here.unit_of_work() as uow:
            job = uow.session.scalars(select(PrintJob).where(PrintJob.id == slip).with_for_update()).one_or_none()
            if job is None:
                raise RefusedActionError(f"There is no slip {slip}. 'bookdrop prints list' names them.")
            return act(job, uow), uow

    done, uow = retry_on_conflict(work)
    here.publisher.publish_outbox(uow.pending_messages)
    return done


def _need_waiting(job: PrintJob) -> None:
    if job.voided_at is not None:
        raise RefusedActionError("Its Return was undone: there is nothing to send back.")
    if job.state in WAITING:
        return
    if job.state in IN_HAND:
        raise RefusedActionError("It is being sent just now. Look again in a minute.")
    if job.state is State.UNKNOWN:
        raise RefusedActionError(
            "It may be at the printer already. Look there: if it is, say so (printed); if not, order a copy (reprint)."
        )
    raise RefusedActionError(f"{words(job.state, None)}. For another one, order a copy (reprint).")


def _printer_of(job: PrintJob, uow: UnitOfWork) -> Printer | None:
    if job.printer_id is None:
        return None
    return uow.session.scalars(select(Printer).where(Printer.id == job.printer_id).with_for_update()).one_or_none()


def _record(job: PrintJob, uow: UnitOfWork, kind: HistoryKind, by: Operator, **details: Any) -> None:
    """Write a line in the history of the slip's request."""
    line = HistoryLine(
        request_id=job.request_id,
        item_id=job.item_id,
        kind=kind,
        at=uow.now,
        recorded_at=uow.now,
        branch=job.branch,
        station=None,
        note=by.reason,
        details={"slip": str(job.id), "actor": by.actor, **details},
    )
    uow.session.flush()
    record(uow.session, line)
