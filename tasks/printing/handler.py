# SPDX-License-Identifier: Apache-2.0
"""One slip to its printer: claimed, rendered, sent, recorded; each step in the database before the next begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import or_, select, update

from schemas.models import PrintAttempt, Printer, PrintJob, table
from schemas.print_jobs import PrintSlip, SlipContent
from schemas.print_jobs import PrintState as State
from schemas.replies import SlipNotice
from schemas.topology import PRINT_SLIP, printing_queue, reply_queue
from tasks.context import Context
from tasks.printing import job as rules
from tasks.printing.pdf import render_pdf
from tasks.printing.printers.driver import (
    PrinterDriver,
    PrinterError,
    PrinterInterruptedError,
    PrinterUnavailableError,
)
from tasks.printing.printers.opening import open_printer
from tasks.unit_of_work import PendingMessage, UnitOfWork, run_again_on_conflict

log = structlog.get_logger()

LEASE = timedelta(seconds=90)
"""How long a worker may take for one slip before it is taken for dead."""

NEGLECTED = timedelta(seconds=30)
"""A slip that waits this long was not ordered, or its order was lost: the sweep orders it again."""


class LeaseLostError(Exception):
    """Another worker has taken this slip over: hands off."""


@dataclass(frozen=True)
class Claimed:
    """A job that this worker holds."""

    job_id: UUID
    event_id: UUID
    station: str | None
    printer: str
    printer_id: int
    uri: str
    media: str
    content: SlipContent
    attempts: int
    attempt_id: int


def print_job(job_id: UUID, here: Context, jitter: Callable[[], float]) -> State | None:
    """Print one slip, and tell its station.

    Gives the state it ended in; `None` when there was nothing to do: another worker has it, or it is done. Never
    raises for a printer: what became of the slip is in the database, and the sweep brings what is due again.
    """
    claimed, said = run_again_on_conflict(lambda: _claim(job_id, here))
    here.publish.publish_outbox(said)
    if not isinstance(claimed, Claimed):
        return claimed
    try:
        return _print(claimed, here, jitter)
    except LeaseLostError:
        log.warning("slip_left_to_another", job_id=str(job_id), printer=claimed.printer)
        return None


def _print(claimed: Claimed, here: Context, jitter: Callable[[], float]) -> State:
    try:
        driver = open_printer(claimed.uri)
        document = _render(claimed)
        _step(claimed, here, State.RENDERED)
        spool_id = driver.send(
            document, job_name=_job_name(claimed), on_first_byte=lambda: _step(claimed, here, State.SENDING)
        )
    except PrinterError as error:
        setback = rules.after_failure(
            byte_may_have_left=isinstance(error, PrinterInterruptedError),
            attempts=claimed.attempts,
            jitter=jitter(),
        )
        return _finish(claimed, here, setback.state, why=str(error), wait=setback.wait)
    _finish(claimed, here, State.ACCEPTED, spool_id=spool_id, tell=driver.knows_its_jobs)
    # A printer that cannot say later what became of the slip has said all it ever will.
    return State.ACCEPTED if driver.knows_its_jobs else _finish(claimed, here, State.DONE, spool_id=spool_id)


def _render(claimed: Claimed) -> bytes:
    """Draw the slip; a slip that cannot be drawn is held like one whose printer is away, and told."""
    try:
        return render_pdf(claimed.content, claimed.media)
    except Exception as error:
        log.exception("slip_not_drawn", job_id=str(claimed.job_id), error=type(error).__name__)
        raise PrinterUnavailableError(f"the slip could not be drawn ({type(error).__name__})") from error


def _job_name(claimed: Claimed) -> str:
    copy = claimed.content.copy_number
    return f"{claimed.job_id}-copy{copy}" if copy > 1 else str(claimed.job_id)


def _claim(job_id: UUID, here: Context) -> tuple[Claimed | State | None, list[PendingMessage]]:
    with here.unit_of_work() as uow:
        claimed = _take(job_id, here, uow)
    return claimed, uow.promised


def _take(job_id: UUID, here: Context, uow: UnitOfWork) -> Claimed | State | None:
    row = uow.session.execute(
        select(PrintJob, Printer)
        .outerjoin(Printer, Printer.id == PrintJob.printer_id)
        .where(PrintJob.id == job_id)
        .with_for_update(of=PrintJob, skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    job, printer = row
    claimable = rules.Claimable(job.state, job.next_attempt_at, job.lease_until, _can_repeat(printer))
    if rules.is_lost_while_sending(claimable, uow.now):
        _set(job, State.UNKNOWN, uow.now, why="its worker died while sending")
        _notify(uow, job, printer.code if printer else None)
        return State.UNKNOWN
    if not rules.may_claim(claimable, uow.now):
        return None
    if printer is None or printer.on_hold:
        why = "no printer is set up for this branch" if printer is None else f"printer {printer.code} is on hold"
        first = job.state is not State.HELD
        _set(job, State.HELD, uow.now, why=why)
        job.next_attempt_at = uow.now + NEGLECTED
        if first:
            _notify(uow, job, printer.code if printer else None)
        return State.HELD
    job.attempts += 1
    _set(job, State.CLAIMED, uow.now, why=job.last_error)
    job.claimed_by = here.worker
    job.lease_until = uow.now + LEASE
    attempt = PrintAttempt(job_id=job.id, printer_id=printer.id, started_at=uow.now)
    uow.session.add(attempt)
    uow.session.flush()
    return Claimed(
        job_id=job.id,
        event_id=job.event_id,
        station=job.station,
        printer=printer.code,
        printer_id=printer.id,
        uri=printer.uri,
        media=printer.media,
        content=SlipContent.model_validate(job.content),
        attempts=job.attempts,
        attempt_id=attempt.id,
    )


def _can_repeat(printer: Printer | None) -> bool:
    try:
        driver: PrinterDriver | None = open_printer(printer.uri) if printer else None
    except PrinterError:
        return False
    return driver is not None and driver.can_repeat


def _set(job: PrintJob, state: State, now: datetime, *, why: str | None) -> None:
    if state not in rules.TRANSITIONS[job.state]:
        raise ValueError(f"a print job cannot go from {job.state} to {state}")
    job.state = state
    job.state_since = now
    job.last_error = why


def _step(claimed: Claimed, here: Context, state: State) -> None:
    """Record a step of the job that we hold, committed before the next one begins."""
    with here.unit_of_work() as uow:
        _advance(claimed, here, uow, state)


def _advance(claimed: Claimed, here: Context, uow: UnitOfWork, state: State) -> None:
    before = [each for each, following in rules.TRANSITIONS.items() if state in following]
    changed = uow.session.connection().execute(
        update(table(PrintJob))
        .where(PrintJob.id == claimed.job_id, PrintJob.claimed_by == here.worker, PrintJob.state.in_(before))
        .values(state=state, state_since=uow.now)
    )
    if changed.rowcount != 1:
        raise LeaseLostError(claimed.job_id)


def _finish(
    claimed: Claimed,
    here: Context,
    state: State,
    *,
    why: str | None = None,
    wait: timedelta | None = None,
    spool_id: str | None = None,
    tell: bool = True,
) -> State:
    """Record how the try ended, and promise the station its notice."""
    with here.unit_of_work() as uow:
        _advance(claimed, here, uow, state)
        uow.session.execute(
            update(PrintJob)
            .where(PrintJob.id == claimed.job_id)
            .values(
                last_error=why,
                next_attempt_at=None if wait is None else uow.now + wait,
                lease_until=None,
                spool_id=spool_id,
            )
        )
        uow.session.execute(
            update(PrintAttempt)
            .where(PrintAttempt.id == claimed.attempt_id)
            .values(ended_at=uow.now, outcome=state, error=why)
        )
        # Each failed try of a printer that stays away would be the same words again.
        repeated = state is State.FAILED_SAFE and claimed.attempts > 1
        if tell and claimed.station is not None and not repeated:
            notice = SlipNotice(
                event_id=claimed.event_id,
                job_id=claimed.job_id,
                state=state.value,
                message=rules.words(state, claimed.printer, why),
                at=uow.now,
            )
            uow.say(reply_queue(claimed.station), notice.model_dump_json(), event_id=claimed.event_id)
    here.publish.publish_outbox(uow.promised)
    log.info("slip_moved", job_id=str(claimed.job_id), printer=claimed.printer, state=state.value, reason=why)
    return state


def _notify(uow: UnitOfWork, job: PrintJob, printer: str | None) -> None:
    if job.station is None:
        return
    notice = SlipNotice(
        event_id=job.event_id,
        job_id=job.id,
        state=job.state.value,
        message=rules.words(job.state, printer, job.last_error),
        at=uow.now,
    )
    uow.say(reply_queue(job.station), notice.model_dump_json(), event_id=job.event_id)


def order_due(here: Context, limit: int = 500) -> Sequence[UUID]:
    """Order every slip that is due again, and give their ids. Safe to run twice and side by side."""
    with here.unit_of_work() as uow:
        waits = PrintJob.state.in_([State.FAILED_SAFE, State.HELD]) & (PrintJob.next_attempt_at <= uow.now)
        dropped = PrintJob.state.in_([State.CLAIMED, State.RENDERED, State.SENDING]) & (PrintJob.lease_until <= uow.now)
        neglected = (
            (PrintJob.state == State.REQUESTED)
            & (PrintJob.created_at <= uow.now - NEGLECTED)
            & or_(PrintJob.next_attempt_at.is_(None), PrintJob.next_attempt_at <= uow.now)
        )
        rows = uow.session.execute(
            select(PrintJob.id, PrintJob.branch, PrintJob.event_id, PrintJob.state)
            .where(or_(waits, dropped, neglected))
            .order_by(PrintJob.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            order = PrintSlip(job_id=row.id).model_dump_json()
            uow.say(printing_queue(row.branch), order, task=PRINT_SLIP, event_id=row.event_id)
        fresh = [row.id for row in rows if row.state is State.REQUESTED]
        if fresh:
            # Ordered now: not again by the next sweep, while its worker may only be slow.
            uow.session.execute(
                update(PrintJob).where(PrintJob.id.in_(fresh)).values(next_attempt_at=uow.now + NEGLECTED)
            )
    here.publish.publish_outbox(uow.promised)
    return [row.id for row in rows]
