# SPDX-License-Identifier: Apache-2.0
"""Taking a print job: one at a time for each printer, the oldest first, one worker for as long as its lease.

The slips of a printer stand in one line. While one of them is in a worker's hand, or the printer counts as away, the
others wait; who finishes one goes on with the next (`tasks.printing.handler`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import and_, exists, or_, select, update

from schemas.models import Branch, PrintAttempt, Printer, PrintJob, Station
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.ports import PendingMessage
from tasks.print_jobs import change_state
from tasks.printing import state_machine as rules
from tasks.printing.notifications import enqueue_notice
from tasks.printing.printers.driver import PrinterError
from tasks.printing.printers.factory import open_printer
from tasks.unit_of_work import UnitOfWork

log = structlog.get_logger()

LEASE = timedelta(seconds=90)
"""How long a worker may take for one slip before it is taken for dead."""

DIED = "its worker died"
TOO_LATE = "it could not be sent in time"


@dataclass(frozen=True)
class Claimed:
    """A job that this worker holds."""

    job_id: UUID
    event_id: UUID
    copy_number: int
    station: str | None
    printer_id: int
    printer: str
    uri: str
    media: str
    printer_failures: int
    """How often in a row the printer took no slip before this one."""
    content: Mapping[str, Any]
    """As it is stored; read when it is drawn, so that a slip nobody can read is held like one nobody can print."""
    attempts: int
    """Which try this is. With the worker's name it tells this claim from every other one."""
    attempt_id: int
    before: State
    """State it was in."""
    created_at: datetime
    """When the slip was wanted."""

    @property
    def job_name(self) -> str:
        """What the printer is told the job is called: always the same for the same slip."""
        return job_name(self.job_id, self.copy_number)


Claim = tuple[Claimed | State | None, list[PendingMessage]]
"""What was taken, and what the transaction promised.

A state in its place: the job was settled without printing (`held`, `unknown`, `expired`). `None`: there was nothing to
do, because another worker is at the printer, it is not due, or it is done.
"""


def job_name(job_id: UUID, copy_number: int) -> str:
    """What a printer is told that a slip is called."""
    return f"{job_id}-copy{copy_number}" if copy_number > 1 else str(job_id)


def claim(job_id: UUID, here: Context) -> Claim:
    """Take the job, or the one that stands before it in the line of its printer. A transaction of its own."""
    with here.unit_of_work() as uow:
        claimed = _take(job_id, here, uow)
    return claimed, uow.pending_messages


def claim_next(printer_id: int, here: Context) -> Claim:
    """Take the oldest job that waits for the printer. A transaction of its own."""
    with here.unit_of_work() as uow:
        printer = _locked(printer_id, uow)
        claimed = None if printer is None or _is_closed(printer, uow) else _take_head(printer, here, uow)
    return claimed, uow.pending_messages


def _take(job_id: UUID, here: Context, uow: UnitOfWork) -> Claimed | State | None:
    job = uow.session.get(PrintJob, job_id)
    if job is None or job.voided_at is not None or job.state not in WAITING | IN_HAND:
        return None
    printer_id = job.printer_id or _printer_of_today(job, uow)
    if printer_id is None:
        return _settle(job, State.HELD, uow, None, why="no printer is set up for this branch")
    printer = _locked(printer_id, uow)
    if printer is None:
        return None
    # Only now: whoever had the printer before us may have changed the job.
    uow.session.refresh(job, with_for_update=True)
    if job.state not in WAITING | IN_HAND:
        return None
    if job.printer_id is None:
        job.printer_id = printer.id
        uow.session.flush()
    if _is_closed(printer, uow):
        fallback = _locked(printer.fallback_id, uow) if printer.fallback_id is not None else None
        if fallback is None or _is_closed(fallback, uow):
            return _hold_back(job, printer, uow)
        _pass_line_on(printer, fallback, uow)
        printer = fallback
    return _take_head(printer, here, uow)


def _take_head(printer: Printer, here: Context, uow: UnitOfWork) -> Claimed | State | None:
    """Take the oldest job of the printer's line that is due, past those that are settled on the way."""
    in_hand = exists().where(
        PrintJob.printer_id == printer.id, PrintJob.state.in_(IN_HAND), PrintJob.lease_until > uow.now
    )
    if uow.session.execute(select(in_hand)).scalar_one():
        return None
    settled: State | None = None
    due = uow.session.scalars(
        select(PrintJob)
        .where(
            PrintJob.printer_id == printer.id,
            PrintJob.voided_at.is_(None),
            or_(
                and_(
                    PrintJob.state.in_(WAITING),
                    or_(PrintJob.next_attempt_at.is_(None), PrintJob.next_attempt_at <= uow.now),
                ),
                and_(
                    PrintJob.state.in_(IN_HAND),
                    or_(PrintJob.lease_until.is_(None), PrintJob.lease_until <= uow.now),
                ),
            ),
        )
        .order_by(PrintJob.created_at, PrintJob.id)
        .limit(50)
        .with_for_update(skip_locked=True)
    ).all()
    for job in due:
        claimable = rules.Claimable(job.state, job.next_attempt_at, job.lease_until, _can_repeat(printer))
        if rules.is_lost_while_sending(claimable, uow.now):
            settled = _settle(job, State.UNKNOWN, uow, printer, why=f"{DIED} while sending")
        elif job.state in WAITING and job.created_at + here.slip_expiry <= uow.now:
            settled = expire(job, uow, printer)
        elif rules.may_claim(claimable, uow.now):
            return _claimed(job, printer, here.worker, uow)
    return settled


def expire(job: PrintJob, uow: UnitOfWork, printer: Printer | None) -> State:
    """Give up a slip that waited too long, and tell its station and operations."""
    log.warning("slip_expired", job_id=str(job.id), printer=printer.code if printer else None)
    return _settle(job, State.EXPIRED, uow, printer, why=TOO_LATE)


def _claimed(job: PrintJob, printer: Printer, worker: str, uow: UnitOfWork) -> Claimed:
    _close_attempts(job, uow)
    before = job.state
    change_state(job, State.CLAIMED, uow.now)
    job.attempts += 1
    job.claimed_by = worker
    job.lease_until = uow.now + LEASE
    job.next_attempt_at = None
    attempt = PrintAttempt(job_id=job.id, printer_id=printer.id, started_at=uow.now)
    uow.session.add(attempt)
    uow.session.flush()
    return Claimed(
        job_id=job.id,
        event_id=job.event_id,
        copy_number=job.copy_number,
        station=job.station,
        printer_id=printer.id,
        printer=printer.code,
        uri=printer.uri,
        media=printer.media,
        printer_failures=printer.failures,
        content=job.content,
        attempts=job.attempts,
        attempt_id=attempt.id,
        before=before,
        created_at=job.created_at,
    )


def _printer_of_today(job: PrintJob, uow: UnitOfWork) -> int | None:
    """For a job from before its branch had a printer: the one that its station would use now."""
    return uow.session.scalars(
        select(Printer.id)
        .join(Branch, Branch.id == Printer.branch_id)
        .outerjoin(Station, Station.code == job.station)
        .where(or_(Printer.id == Station.printer_id, and_(Branch.code == job.branch, Printer.is_default)))
        .order_by((Printer.id == Station.printer_id).desc(), Printer.id)
        .limit(1)
    ).one_or_none()


def _locked(printer_id: int, uow: UnitOfWork) -> Printer | None:
    """The printer, whose line is ours until the commit."""
    return uow.session.scalars(select(Printer).where(Printer.id == printer_id).with_for_update()).one_or_none()


def _is_closed(printer: Printer, uow: UnitOfWork) -> bool:
    return printer.on_hold or rules.is_away(printer.failures, printer.retry_at, uow.now)


def _hold_back(job: PrintJob, printer: Printer, uow: UnitOfWork) -> State | None:
    """A slip for a printer that takes none now: it waits, and its station hears of it once the printer is told as away."""
    if job.state not in WAITING:
        return None
    if printer.on_hold:
        return _settle(job, State.HELD, uow, printer, why=f"printer {printer.code} is on hold")
    if not rules.counts_as_away(printer.failures):
        return None
    return _settle(job, State.HELD, uow, printer, why=f"printer {printer.code} is away, {printer.trouble}")


def _pass_line_on(printer: Printer, fallback: Printer, uow: UnitOfWork) -> None:
    """Let the fallback take what waits; nothing of it has left."""
    moved = uow.session.connection().execute(
        update(PrintJob)
        .where(PrintJob.printer_id == printer.id, PrintJob.state.in_(WAITING), PrintJob.voided_at.is_(None))
        .values(printer_id=fallback.id, next_attempt_at=None)
    )
    uow.session.expire_all()
    log.warning("slips_to_fallback", printer=printer.code, fallback=fallback.code, count=moved.rowcount)


def _can_repeat(printer: Printer) -> bool:
    try:
        return open_printer(printer.uri).can_repeat
    except PrinterError:
        return False


def _settle(job: PrintJob, state: State, uow: UnitOfWork, printer: Printer | None, *, why: str) -> State:
    """Leave the job in `state` without a try of ours, and tell the station the first time."""
    _close_attempts(job, uow)
    known = job.state is state and job.last_error == why
    change_state(job, state, uow.now)
    job.last_error = why
    job.lease_until = None
    # With a printer it waits for that one; an unknown one is asked for there (`tasks.printing.reconcile`).
    waits = state is State.HELD and printer is None
    job.next_attempt_at = uow.now + rules.REDISPATCH_AFTER if waits else uow.now if state is State.UNKNOWN else None
    uow.session.flush()
    if not known:
        code = printer.code if printer else None
        enqueue_notice(
            uow, station=job.station, event_id=job.event_id, job_id=job.id, state=state, printer=code, why=why
        )
    return state


def _close_attempts(job: PrintJob, uow: UnitOfWork) -> None:
    """Say of a try that a dead worker left open how it ended."""
    if job.state in IN_HAND:
        outcome = State.UNKNOWN if job.state is State.SENDING else State.FAILED_SAFE
        uow.session.execute(
            update(PrintAttempt)
            .where(PrintAttempt.job_id == job.id, PrintAttempt.ended_at.is_(None))
            .values(ended_at=uow.now, outcome=outcome, error=DIED)
        )
