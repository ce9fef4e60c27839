# SPDX-License-Identifier: Apache-2.0
"""The claim of a print job: one slip at a time for each printer, the oldest first, by one worker with a lease.

The jobs of a printer form one line. While a worker holds one of them, or the printer is on hold or backing off, the
others wait. The worker that finishes a slip claims the next one (`tasks.printing.handler`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import and_, exists, or_, select, update

from schemas.models import Branch, PrintAttempt, Printer, PrintJob, Station
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from schemas.slip_codes import slip_code
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
"""Longest time for which a worker may hold one job; after it, the worker counts as dead."""

WORKER_DIED = "its worker died"
NOT_SENT_IN_TIME = "it could not be sent in time"

MAX_BARCODE_IN_FILE_NAME: Final = 40
"""Characters of the barcode in the name of a slip's file."""
_OUTSIDE_FILE_NAMES: Final = re.compile(r"[^A-Za-z0-9]+")


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
    """Consecutive failures of the printer before this attempt."""
    content: Mapping[str, Any]
    """As stored. The handler validates it when it renders the slip, so that an invalid one is held like any other
    slip that cannot be printed."""
    attempts: int
    """Number of this attempt. With the worker's name it identifies the claim."""
    attempt_id: int
    previous_state: State
    created_at: datetime
    """Creation time of the job."""

    @property
    def job_name(self) -> str:
        """The name of the job at the printer: the same for every attempt at the same slip."""
        return job_name(self.job_id, self.copy_number)

    @property
    def file_name(self) -> str:
        """The name of the slip as a file, without its ending: the same for every attempt at the same slip."""
        return file_name(self.job_id, self.copy_number, str(self.content.get("barcode", "")))


Claim = tuple[Claimed | State | None, list[PendingMessage]]
"""The result of a claim, and the messages that its transaction enqueued.

A state in place of a job: the transaction ended or held the job without an attempt (`held`, `unknown`, `expired`).
`None`: nothing to do, because another worker holds the line, or the job is not due or has ended.
"""


def job_name(job_id: UUID, copy_number: int) -> str:
    """The name of a slip's job at its printer."""
    return f"{job_id}-copy{copy_number}" if copy_number > 1 else str(job_id)


def file_name(job_id: UUID, copy_number: int, barcode: str) -> str:
    """The name of a slip's file: the item's barcode as far as a file can be called so, and the slip's code."""
    shown = _OUTSIDE_FILE_NAMES.sub("_", barcode)[:MAX_BARCODE_IN_FILE_NAME].strip("_") or "item"
    copy = f"-copy{copy_number}" if copy_number > 1 else ""
    return f"{shown}-{slip_code(job_id)}{copy}"


def claim(job_id: UUID, context: Context) -> Claim:
    """Claim the job, or the one before it in the line of its printer. Runs a separate transaction."""
    with context.unit_of_work() as uow:
        claimed = _claim_from_line(job_id, context, uow)
    return claimed, uow.pending_messages


def claim_next(printer_id: int, context: Context) -> Claim:
    """Claim the oldest waiting job of the printer. Runs a separate transaction."""
    with context.unit_of_work() as uow:
        printer = _lock_printer(printer_id, uow)
        claimed = None if printer is None or _is_closed(printer, uow) else _claim_head(printer, context, uow)
    return claimed, uow.pending_messages


def _claim_from_line(job_id: UUID, context: Context, uow: UnitOfWork) -> Claimed | State | None:
    job = uow.session.get(PrintJob, job_id)
    if job is None or job.voided_at is not None or job.state not in WAITING | IN_HAND:
        return None
    printer_id = job.printer_id or _default_printer(job, uow)
    if printer_id is None:
        return _end_without_attempt(job, State.HELD, uow, None, reason="no printer is set up for this branch")
    printer = _lock_printer(printer_id, uow)
    if printer is None:
        return None
    # Only after the printer's lock: the worker that held it before may have changed the job.
    uow.session.refresh(job, with_for_update=True)
    if job.state not in WAITING | IN_HAND:
        return None
    if job.printer_id is None:
        job.printer_id = printer.id
        uow.session.flush()
    if _is_closed(printer, uow):
        fallback = _lock_printer(printer.fallback_id, uow) if printer.fallback_id is not None else None
        if fallback is None or _is_closed(fallback, uow):
            return _hold_for_closed_printer(job, printer, uow)
        _move_line(printer, fallback, uow)
        printer = fallback
    return _claim_head(printer, context, uow)


def _claim_head(printer: Printer, context: Context, uow: UnitOfWork) -> Claimed | State | None:
    """Claim the oldest due job of the printer's line; jobs before it that are lost or expired end here."""
    in_hand = exists().where(
        PrintJob.printer_id == printer.id, PrintJob.state.in_(IN_HAND), PrintJob.lease_until > uow.now
    )
    if uow.session.execute(select(in_hand)).scalar_one():
        return None
    ended: State | None = None
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
            reason = f"{WORKER_DIED} while sending"
            ended = _end_without_attempt(job, State.UNKNOWN, uow, printer, reason=reason)
        elif job.state in WAITING and job.created_at + context.slip_expiry <= uow.now:
            ended = expire(job, uow, printer)
        elif rules.is_claimable(claimable, uow.now):
            return _start_attempt(job, printer, context.worker, uow)
    return ended


def expire(job: PrintJob, uow: UnitOfWork, printer: Printer | None) -> State:
    """End a job that waited too long, log it, and notify its station."""
    log.warning("slip_expired", job_id=str(job.id), printer=printer.code if printer else None)
    return _end_without_attempt(job, State.EXPIRED, uow, printer, reason=NOT_SENT_IN_TIME)


def _start_attempt(job: PrintJob, printer: Printer, worker: str, uow: UnitOfWork) -> Claimed:
    _close_attempts(job, uow)
    previous_state = job.state
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
        previous_state=previous_state,
        created_at=job.created_at,
    )


def _default_printer(job: PrintJob, uow: UnitOfWork) -> int | None:
    """The printer of the job's station today, else its branch's default; for a job from before the branch had one."""
    return uow.session.scalars(
        select(Printer.id)
        .join(Branch, Branch.id == Printer.branch_id)
        .outerjoin(Station, Station.code == job.station)
        .where(or_(Printer.id == Station.printer_id, and_(Branch.code == job.branch, Printer.is_default)))
        .order_by((Printer.id == Station.printer_id).desc(), Printer.id)
        .limit(1)
    ).one_or_none()


def _lock_printer(printer_id: int, uow: UnitOfWork) -> Printer | None:
    """Lock the printer, and with it its line, until the commit."""
    return uow.session.scalars(select(Printer).where(Printer.id == printer_id).with_for_update()).one_or_none()


def _is_closed(printer: Printer, uow: UnitOfWork) -> bool:
    return printer.on_hold or rules.is_backing_off(printer.failures, printer.retry_at, uow.now)


def _hold_for_closed_printer(job: PrintJob, printer: Printer, uow: UnitOfWork) -> State | None:
    """Hold a job whose printer is on hold or unavailable. While the printer only backs off, the job just waits."""
    if job.state not in WAITING:
        return None
    if printer.on_hold:
        reason = f"printer {printer.code} is on hold"
    elif rules.is_unavailable(printer.failures):
        reason = f"printer {printer.code} is unavailable, {printer.trouble}"
    else:
        return None
    return _end_without_attempt(job, State.HELD, uow, printer, reason=reason)


def _move_line(printer: Printer, fallback: Printer, uow: UnitOfWork) -> None:
    """Assign the waiting jobs to the fallback; no byte of them has left."""
    moved = uow.session.connection().execute(
        update(PrintJob)
        .where(PrintJob.printer_id == printer.id, PrintJob.state.in_(WAITING), PrintJob.voided_at.is_(None))
        .values(printer_id=fallback.id, next_attempt_at=None)
    )
    uow.session.expire_all()
    log.warning("slips_moved_to_fallback", printer=printer.code, fallback=fallback.code, count=moved.rowcount)


def _can_repeat(printer: Printer) -> bool:
    try:
        return open_printer(printer.uri).can_repeat
    except PrinterError:
        return False


def _end_without_attempt(
    job: PrintJob, state: State, uow: UnitOfWork, printer: Printer | None, *, reason: str
) -> State:
    """Move the job to `state` without an attempt; notify its station unless state and reason are unchanged."""
    _close_attempts(job, uow)
    is_repeated = job.state is state and job.last_error == reason
    change_state(job, state, uow.now)
    job.last_error = reason
    job.lease_until = None
    # A held job with a printer waits for that printer. An unknown job is due for reconciliation at once.
    waits_for_setup = state is State.HELD and printer is None
    if waits_for_setup:
        job.next_attempt_at = uow.now + rules.REDISPATCH_AFTER
    else:
        job.next_attempt_at = uow.now if state is State.UNKNOWN else None
    uow.session.flush()
    if not is_repeated:
        code = printer.code if printer else None
        enqueue_notice(
            uow, station=job.station, event_id=job.event_id, job_id=job.id, state=state, printer=code, reason=reason
        )
    return state


def _close_attempts(job: PrintJob, uow: UnitOfWork) -> None:
    """Record the outcome of an attempt that a dead worker left open."""
    if job.state in IN_HAND:
        outcome = State.UNKNOWN if job.state is State.SENDING else State.FAILED_SAFE
        uow.session.execute(
            update(PrintAttempt)
            .where(PrintAttempt.job_id == job.id, PrintAttempt.ended_at.is_(None))
            .values(ended_at=uow.now, outcome=outcome, error=WORKER_DIED)
        )
