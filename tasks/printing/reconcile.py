# SPDX-License-Identifier: Apache-2.0
"""Reconcile print jobs with their printers: jobs that a printer accepted, and jobs whose worker died while sending.

The worker polls the printer with no transaction open. It stores the result only if the job is unchanged. One task polls
one printer for all its due jobs, so that a slow printer holds one process of the worker, however many jobs it has.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

import structlog
from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import aliased

from schemas.database import READ_ONLY
from schemas.models import Printer, PrintJob, table
from schemas.print_jobs import RECONCILABLE
from schemas.print_jobs import PrintState as State
from schemas.topology import FOLLOW_SLIP
from tasks.context import Context
from tasks.print_jobs import enqueue_print_task, state_change
from tasks.printing import state_machine as rules
from tasks.printing.claim import LEASE, job_name
from tasks.printing.handler import LONGEST_RUN
from tasks.printing.notifications import enqueue_notice
from tasks.printing.printers.driver import (
    Completed,
    JobFate,
    Lost,
    Pending,
    PrinterError,
    Waiting,
    describe_reasons,
    is_job_tracking,
)
from tasks.printing.printers.factory import open_printer
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

log = structlog.get_logger()

NO_SUCH_JOB = "the printer has no such job; reprint the slip if none is there"
NO_RESULT = "the printer never reported the result"
NOT_TRACKED = "this printer cannot report the result"


@dataclass(frozen=True)
class _SentJob:
    """A job whose printer is polled, as it was read."""

    job_id: UUID
    event_id: UUID
    station: str | None
    state: State
    spool_id: str | None
    job_name: str
    last_error: str | None
    created_at: datetime
    printer_id: int
    printer: str
    uri: str


def dispatch_reconciliations(context: Context, limit: int = 500) -> Sequence[UUID]:
    """Dispatch the first job of each printer that is due for a poll, and return the ids. Safe to run twice.

    The task continues with the other due jobs of the printer. Until it ends, `lease_until` of its first job excludes the
    printer from the next sweeps.
    """
    with context.unit_of_work() as uow:
        place = (
            func.row_number()
            .over(partition_by=PrintJob.printer_id, order_by=(PrintJob.next_attempt_at, PrintJob.id))
            .label("place")
        )
        waiting = (
            select(PrintJob.id, place)
            .where(PrintJob.state.in_(RECONCILABLE), PrintJob.next_attempt_at <= uow.now)
            .subquery()
        )
        polled = aliased(PrintJob)
        is_polled = exists().where(
            polled.printer_id == PrintJob.printer_id, polled.state.in_(RECONCILABLE), polled.lease_until > uow.now
        )
        due = uow.session.scalars(
            select(PrintJob)
            .where(PrintJob.id.in_(select(waiting.c.id).where(waiting.c.place == 1)), ~is_polled)
            .order_by(PrintJob.next_attempt_at, PrintJob.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for job in due:
            enqueue_print_task(job, uow, task=FOLLOW_SLIP)
            job.lease_until = uow.now + LEASE  # in case the task is lost
        ids = [job.id for job in due]
    context.publisher.publish_outbox(uow.pending_messages)
    return ids


def reconcile(job_id: UUID, context: Context) -> State | None:
    """Poll the printer for the result of the job, then for its other due jobs, and store the results.

    Returns the state of the first job after that; `None` when it is not reconcilable or has changed meanwhile. Never
    raises for a printer: one that cannot be queried is polled again later.
    """
    ends = context.now() + LONGEST_RUN
    first = job = _read(job_id, context)
    state: State | None = None
    polled: set[UUID] = set()
    while job is not None and job.job_id not in polled:
        polled.add(job.job_id)
        stored, responds = _poll(job, context)
        state = stored if job is first else state
        if not responds:
            _postpone(job.printer_id, context)
        if not responds or context.now() >= ends:
            break
        following = _next_due(job.printer_id, context)
        job = None if following is None else _read(following, context)
        if job is not None:
            _set_lease({job.job_id}, context.now() + LEASE, context)
    if polled:
        _set_lease(polled, None, context)
    return state


def _next_due(printer_id: int, context: Context) -> UUID | None:
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        return session.scalars(
            select(PrintJob.id)
            .where(
                PrintJob.printer_id == printer_id,
                PrintJob.state.in_(RECONCILABLE),
                PrintJob.next_attempt_at <= context.now(),
            )
            .order_by(PrintJob.next_attempt_at, PrintJob.id)
            .limit(1)
        ).one_or_none()


def _postpone(printer_id: int, context: Context) -> None:
    """Defer all due jobs of a printer that cannot be queried: each would wait for its deadline again."""

    def record() -> None:
        with context.unit_of_work() as uow:
            uow.session.execute(
                update(PrintJob)
                .where(
                    PrintJob.printer_id == printer_id,
                    PrintJob.state.in_(RECONCILABLE),
                    PrintJob.next_attempt_at <= uow.now,
                )
                .values(next_attempt_at=uow.now + rules.REDISPATCH_AFTER)
            )

    retry_on_conflict(record)


def _set_lease(job_ids: Collection[UUID], until: datetime | None, context: Context) -> None:
    """Exclude the printer of these jobs from the sweep, or end that with `None`."""

    def record() -> None:
        with context.unit_of_work() as uow:
            uow.session.execute(
                update(PrintJob)
                .where(PrintJob.id.in_(job_ids), PrintJob.state.in_(RECONCILABLE))
                .values(lease_until=until)
            )

    retry_on_conflict(record)


def _poll(job: _SentJob, context: Context) -> tuple[State | None, bool]:
    """Poll for one job. Returns its state, `None` when it has changed meanwhile; and whether the printer responds."""
    try:
        driver = open_printer(job.uri)
        if not is_job_tracking(driver):
            return _store(job, context, job.state, reason=job.last_error or NOT_TRACKED), True
        spool_id = job.spool_id if job.state is State.ACCEPTED else driver.find_job(job.job_name)
        if spool_id is None:
            return _store(job, context, State.UNKNOWN, reason=NO_SUCH_JOB), True
        fate = driver.job_fate(spool_id, job_name=job.job_name)
    except PrinterError as error:
        if context.now() - job.created_at > rules.RECONCILE_WINDOW:
            return _store(job, context, State.UNKNOWN, reason=NO_RESULT), False
        reason = job.last_error or str(error)
        return _store(job, context, job.state, reason=reason, poll_after=rules.REDISPATCH_AFTER, notify=False), False
    return _store_fate(job, context, spool_id, fate), True


def _store_fate(job: _SentJob, context: Context, spool_id: str, fate: JobFate) -> State | None:
    age = context.now() - job.created_at
    match fate:
        case Completed():
            return _store(job, context, State.DONE, spool_id=spool_id)
        case Lost(reason=reason):
            return _store(job, context, State.UNKNOWN, reason=reason, spool_id=spool_id)
        case Pending() | Waiting() if age > rules.RECONCILE_WINDOW:
            return _store(job, context, State.UNKNOWN, reason=NO_RESULT, spool_id=spool_id)
        case Pending():
            return _store(job, context, State.ACCEPTED, poll_after=rules.next_poll_delay(age), spool_id=spool_id)
        case Waiting(reasons=reasons):
            reason, poll_after = describe_reasons(reasons), rules.next_poll_delay(age)
            return _store(job, context, State.ACCEPTED, reason=reason, poll_after=poll_after, spool_id=spool_id)
        case _:
            assert_never(fate)


def _read(job_id: UUID, context: Context) -> _SentJob | None:
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        row = session.execute(
            select(PrintJob, Printer.id.label("printer_id"), Printer.code, Printer.uri)
            .join(Printer, Printer.id == PrintJob.printer_id)
            .where(PrintJob.id == job_id, PrintJob.state.in_(RECONCILABLE))
        ).one_or_none()
        if row is None:
            return None
        job = row.PrintJob
        return _SentJob(
            job_id=job.id,
            event_id=job.event_id,
            station=job.station,
            state=job.state,
            spool_id=job.spool_id,
            job_name=job_name(job.id, job.copy_number),
            last_error=job.last_error,
            created_at=job.created_at,
            printer_id=row.printer_id,
            printer=row.code,
            uri=row.uri,
        )


def _store(
    job: _SentJob,
    context: Context,
    state: State,
    *,
    reason: str | None = None,
    poll_after: timedelta | None = None,
    spool_id: str | None = None,
    notify: bool = True,
) -> State | None:
    """Store the result of a poll, and notify the station of a change. `None` when the job has changed meanwhile."""
    is_news = notify and (
        (state, reason) != (job.state, job.last_error)
        # The station expects a sent slip to come out; it gets a notice of that only after a problem.
        and not (job.state is State.ACCEPTED and reason is None and job.last_error is None)
    )

    def record() -> tuple[bool, UnitOfWork]:
        with context.unit_of_work() as uow:
            values: dict[str, Any] = {
                "last_error": reason,
                "next_attempt_at": None if poll_after is None else uow.now + poll_after,
                "spool_id": spool_id or job.spool_id,
            }
            jobs = table(PrintJob)
            same_spool_id = or_(jobs.c.spool_id == job.spool_id, jobs.c.spool_id.is_(None))
            change = update(jobs) if state is job.state else state_change(state, uow.now)
            changed = uow.session.connection().execute(
                change.where(jobs.c.id == job.job_id, jobs.c.state == job.state, same_spool_id).values(values)
            )
            if changed.rowcount and is_news:
                enqueue_notice(
                    uow,
                    station=job.station,
                    event_id=job.event_id,
                    job_id=job.job_id,
                    state=state,
                    printer=job.printer,
                    reason=reason,
                    waits_in_printer=state is State.ACCEPTED and reason is not None,
                )
        return bool(changed.rowcount), uow

    stored, uow = retry_on_conflict(record)
    context.publisher.publish_outbox(uow.pending_messages)
    if not stored:
        return None
    if state is not job.state or is_news:
        log.info("slip_reconciled", job_id=str(job.job_id), printer=job.printer, state=state.value, reason=reason)
    return state
