# SPDX-License-Identifier: Apache-2.0
"""Asking a printer what became of a slip: one that it accepted, and one whose worker died while sending.

The printer is asked with no transaction open; what it said is kept only if the job is still as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never, cast
from uuid import UUID

import structlog
from sqlalchemy import or_, select, update

from schemas.database import READ_ONLY
from schemas.models import Printer, PrintJob, table
from schemas.print_jobs import RECONCILABLE
from schemas.print_jobs import PrintState as State
from schemas.topology import FOLLOW_SLIP
from tasks.context import Context
from tasks.print_jobs import enqueue_print_task, state_change
from tasks.printing import state_machine as rules
from tasks.printing.claim import job_name
from tasks.printing.notifications import enqueue_notice
from tasks.printing.printers.driver import (
    Completed,
    JobFate,
    JobTrackingDriver,
    Lost,
    Pending,
    PrinterError,
    Waiting,
    in_words,
)
from tasks.printing.printers.factory import open_printer
from tasks.unit_of_work import UnitOfWork, retry_on_conflict

log = structlog.get_logger()

NO_SUCH_JOB = "the printer knows of no such slip; reprint it if none is there"
NEVER_SAID = "the printer never said what became of it"
CANNOT_SAY = "it cannot say what became of it"


@dataclass(frozen=True)
class _Asked:
    """A slip that its printer is asked about."""

    job_id: UUID
    event_id: UUID
    station: str | None
    state: State
    spool_id: str | None
    job_name: str
    known_trouble: str | None
    created_at: datetime
    printer: str
    uri: str


def dispatch_reconciliations(here: Context, limit: int = 500) -> Sequence[UUID]:
    """Order a look at every slip whose printer is to be asked, and give their ids. Safe to run twice."""
    with here.unit_of_work() as uow:
        due = uow.session.scalars(
            select(PrintJob)
            .where(PrintJob.state.in_(RECONCILABLE), PrintJob.next_attempt_at <= uow.now)
            .order_by(PrintJob.next_attempt_at, PrintJob.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for job in due:
            enqueue_print_task(job, uow, task=FOLLOW_SLIP)
            job.next_attempt_at = uow.now + rules.REDISPATCH_AFTER  # should the order be lost
        ids = [job.id for job in due]
    here.publisher.publish_outbox(uow.pending_messages)
    return ids


def follow(job_id: UUID, here: Context) -> State | None:
    """Ask the printer what became of the slip, and keep its answer.

    Gives the state it is in then; `None` when there was nothing to ask. Never raises for a printer.
    """
    asked = _read(job_id, here)
    if asked is None:
        return None
    try:
        driver = open_printer(asked.uri)
        if not driver.knows_its_jobs:
            return _keep(asked, here, asked.state, why=asked.known_trouble or CANNOT_SAY)
        keeper = cast("JobTrackingDriver", driver)
        spool_id = asked.spool_id if asked.state is State.ACCEPTED else keeper.find(asked.job_name)
        if spool_id is None:
            return _keep(asked, here, State.UNKNOWN, why=NO_SUCH_JOB)
        fate = keeper.follow(spool_id, job_name=asked.job_name)
    except PrinterError as error:
        if here.now() - asked.created_at > rules.FOLLOWED_FOR:
            return _keep(asked, here, State.UNKNOWN, why=NEVER_SAID)
        return _keep(
            asked, here, asked.state, why=asked.known_trouble or str(error), again=rules.REDISPATCH_AFTER, quiet=True
        )
    return _settle(asked, here, spool_id, fate)


def _settle(asked: _Asked, here: Context, spool_id: str, fate: JobFate) -> State | None:
    age = here.now() - asked.created_at
    match fate:
        case Completed():
            return _keep(asked, here, State.DONE, spool_id=spool_id)
        case Lost(why=why):
            return _keep(asked, here, State.UNKNOWN, why=why, spool_id=spool_id)
        case Pending() | Waiting() if age > rules.FOLLOWED_FOR:
            return _keep(asked, here, State.UNKNOWN, why=NEVER_SAID, spool_id=spool_id)
        case Pending():
            return _keep(asked, here, State.ACCEPTED, again=rules.next_poll_delay(age), spool_id=spool_id)
        case Waiting(reasons=reasons):
            again = rules.next_poll_delay(age)
            return _keep(asked, here, State.ACCEPTED, why=in_words(reasons), again=again, spool_id=spool_id)
        case _:
            assert_never(fate)


def _read(job_id: UUID, here: Context) -> _Asked | None:
    with here.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        row = session.execute(
            select(PrintJob, Printer.code, Printer.uri)
            .join(Printer, Printer.id == PrintJob.printer_id)
            .where(PrintJob.id == job_id, PrintJob.state.in_(RECONCILABLE))
        ).one_or_none()
        if row is None:
            return None
        job = row.PrintJob
        return _Asked(
            job_id=job.id,
            event_id=job.event_id,
            station=job.station,
            state=job.state,
            spool_id=job.spool_id,
            job_name=job_name(job.id, job.copy_number),
            known_trouble=job.last_error,
            created_at=job.created_at,
            printer=row.code,
            uri=row.uri,
        )


def _keep(
    asked: _Asked,
    here: Context,
    state: State,
    *,
    why: str | None = None,
    again: timedelta | None = None,
    spool_id: str | None = None,
    quiet: bool = False,
) -> State | None:
    """Record what the printer said, and tell the station what is new to it."""
    is_news = not quiet and (
        (state, why) != (asked.state, asked.known_trouble)
        # That it came out is what the station took for granted when it was sent, unless there was trouble.
        and not (asked.state is State.ACCEPTED and why is None and asked.known_trouble is None)
    )

    def record() -> tuple[bool, UnitOfWork]:
        with here.unit_of_work() as uow:
            values: dict[str, Any] = {
                "last_error": why,
                "next_attempt_at": None if again is None else uow.now + again,
                "spool_id": spool_id or asked.spool_id,
            }
            jobs = table(PrintJob)
            same_id = or_(jobs.c.spool_id == asked.spool_id, jobs.c.spool_id.is_(None))
            change = update(jobs) if state is asked.state else state_change(state, uow.now)
            changed = uow.session.connection().execute(
                change.where(jobs.c.id == asked.job_id, jobs.c.state == asked.state, same_id).values(values)
            )
            if changed.rowcount and is_news:
                enqueue_notice(
                    uow,
                    station=asked.station,
                    event_id=asked.event_id,
                    job_id=asked.job_id,
                    state=state,
                    printer=asked.printer,
                    why=why,
                    waits_there=state is State.ACCEPTED and why is not None,
                )
        return bool(changed.rowcount), uow

    kept, uow = retry_on_conflict(record)
    here.publisher.publish_outbox(uow.pending_messages)
    if not kept:
        return None
    if state is not asked.state or is_news:
        log.info("slip_followed", job_id=str(asked.job_id), printer=asked.printer, state=state.value, reason=why)
    return state
