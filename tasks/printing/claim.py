# SPDX-License-Identifier: Apache-2.0
"""Taking a print job: one worker has it at a time, for as long as its lease."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, or_, select, update

from schemas.models import Branch, PrintAttempt, Printer, PrintJob, Station
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.printing import job as rules
from tasks.printing.notices import say_notice
from tasks.printing.printers.driver import PrinterError
from tasks.printing.printers.opening import open_printer
from tasks.unit_of_work import PendingMessage, UnitOfWork

LEASE = timedelta(seconds=90)
"""How long a worker may take for one slip before it is taken for dead."""

DIED = "its worker died"


@dataclass(frozen=True)
class Claimed:
    """A job that this worker holds."""

    job_id: UUID
    event_id: UUID
    copy_number: int
    station: str | None
    printer: str
    uri: str
    media: str
    content: Mapping[str, Any]
    """As it is stored; read when it is drawn, so that a slip nobody can read is held like one nobody can print."""
    attempts: int
    """Which try this is. With the worker's name it tells this claim from every other one."""
    attempt_id: int

    @property
    def job_name(self) -> str:
        """What the printer is told the job is called: always the same for the same slip."""
        return f"{self.job_id}-copy{self.copy_number}" if self.copy_number > 1 else str(self.job_id)


def claim(job_id: UUID, here: Context) -> tuple[Claimed | State | None, list[PendingMessage]]:
    """Take the job, in a transaction of its own; and what that transaction promised.

    Gives the state in its place when it was settled without printing (`held`, `unknown`), or `None` when there was
    nothing to do: another worker has it, it is not due, or it is done.
    """
    with here.unit_of_work() as uow:
        claimed = _take(job_id, here.worker, uow)
    return claimed, uow.promised


def _take(job_id: UUID, worker: str, uow: UnitOfWork) -> Claimed | State | None:
    job = uow.session.scalars(
        select(PrintJob).where(PrintJob.id == job_id).with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        return None
    printer = _printer(job, uow)
    claimable = rules.Claimable(job.state, job.next_attempt_at, job.lease_until, _can_repeat(printer))
    if rules.is_lost_while_sending(claimable, uow.now):
        return _settle(job, State.UNKNOWN, uow, printer, why=f"{DIED} while sending")
    if not rules.may_claim(claimable, uow.now):
        return None
    if printer is None:
        return _settle(job, State.HELD, uow, printer, why="no printer is set up for this branch")
    if printer.on_hold:
        return _settle(job, State.HELD, uow, printer, why=f"printer {printer.code} is on hold")
    _close_attempts(job, uow)
    _move(job, State.CLAIMED, uow.now)
    job.attempts += 1
    job.claimed_by = worker
    job.lease_until = uow.now + LEASE
    job.next_attempt_at = None
    job.printer_id = printer.id
    attempt = PrintAttempt(job_id=job.id, printer_id=printer.id, started_at=uow.now)
    uow.session.add(attempt)
    uow.session.flush()
    return Claimed(
        job_id=job.id,
        event_id=job.event_id,
        copy_number=job.copy_number,
        station=job.station,
        printer=printer.code,
        uri=printer.uri,
        media=printer.media,
        content=job.content,
        attempts=job.attempts,
        attempt_id=attempt.id,
    )


def _printer(job: PrintJob, uow: UnitOfWork) -> Printer | None:
    """The job's printer; for a job from before its branch had one, the one that its station would use now."""
    if job.printer_id is not None:
        return uow.session.get(Printer, job.printer_id)
    return uow.session.scalars(
        select(Printer)
        .join(Branch, Branch.id == Printer.branch_id)
        .outerjoin(Station, Station.code == job.station)
        .where(or_(Printer.id == Station.printer_id, and_(Branch.code == job.branch, Printer.is_default)))
        .order_by((Printer.id == Station.printer_id).desc(), Printer.id)
        .limit(1)
    ).one_or_none()


def _can_repeat(printer: Printer | None) -> bool:
    try:
        return printer is not None and open_printer(printer.uri).can_repeat
    except PrinterError:
        return False


def _settle(job: PrintJob, state: State, uow: UnitOfWork, printer: Printer | None, *, why: str) -> State:
    """Leave the job in `state` without a try of ours, and tell the station the first time."""
    _close_attempts(job, uow)
    known = job.state is state and job.last_error == why
    _move(job, state, uow.now)
    job.last_error = why
    job.lease_until = None
    job.next_attempt_at = uow.now + rules.NEGLECTED if state is State.HELD else None
    if not known:
        code = printer.code if printer else None
        say_notice(uow, station=job.station, event_id=job.event_id, job_id=job.id, state=state, printer=code, why=why)
    return state


def _close_attempts(job: PrintJob, uow: UnitOfWork) -> None:
    """Say of a try that a dead worker left open how it ended."""
    if job.state in rules.IN_HAND:
        outcome = State.UNKNOWN if job.state is State.SENDING else State.FAILED_SAFE
        uow.session.execute(
            update(PrintAttempt)
            .where(PrintAttempt.job_id == job.id, PrintAttempt.ended_at.is_(None))
            .values(ended_at=uow.now, outcome=outcome, error=DIED)
        )


def _move(job: PrintJob, state: State, now: datetime) -> None:
    if state not in rules.TRANSITIONS[job.state]:
        raise ValueError(f"a print job cannot go from {job.state} to {state}")
    job.state = state
    job.state_since = now
