# SPDX-License-Identifier: Apache-2.0
"""The sweep of the print queue: dispatch each due job once, however many sweeps run at the same time."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import aliased

from schemas.models import Printer, PrintJob
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from tasks.context import Context
from tasks.print_jobs import enqueue_print_task
from tasks.printing import state_machine as rules
from tasks.printing.claim import expire
from tasks.unit_of_work import UnitOfWork


def dispatch_due_jobs(context: Context, limit: int = 500) -> Sequence[UUID]:
    """Expire jobs that waited too long, dispatch the oldest due job of each printer, and return their ids.

    Due are failed and held jobs whose backoff has ended, jobs whose worker died, and requested jobs that no worker has
    claimed. A printer that is on hold or backing off is left out, unless a fallback can take its jobs. The worker that
    receives a print task continues with the rest of the printer's line. Safe to run twice and concurrently.
    """
    with context.unit_of_work() as uow:
        _expire_old(context, uow, limit)
        due = _due(uow, limit)
        for job in due:
            enqueue_print_task(job, uow)
            _defer_redispatch(job, uow)
        ids = [job.id for job in due]
    context.publisher.publish_outbox(uow.pending_messages)
    return ids


def _expire_old(context: Context, uow: UnitOfWork, limit: int) -> None:
    old = uow.session.scalars(
        select(PrintJob)
        .where(
            PrintJob.state.in_(WAITING),
            PrintJob.voided_at.is_(None),
            PrintJob.created_at <= uow.now - context.slip_expiry,
        )
        .order_by(PrintJob.created_at, PrintJob.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for job in old:
        expire(job, uow, uow.session.get(Printer, job.printer_id) if job.printer_id is not None else None)


def _due(uow: UnitOfWork, limit: int) -> Sequence[PrintJob]:
    not_new = or_(PrintJob.state != State.REQUESTED, PrintJob.created_at <= uow.now - rules.REDISPATCH_AFTER)
    fallback = aliased(Printer)
    is_open = and_(Printer.on_hold.is_(False), or_(Printer.retry_at.is_(None), Printer.retry_at <= uow.now))
    has_open_fallback = and_(
        fallback.on_hold.is_(False), or_(fallback.retry_at.is_(None), fallback.retry_at <= uow.now)
    )
    place = (
        func.row_number()
        .over(partition_by=func.coalesce(PrintJob.printer_id, 0), order_by=(PrintJob.created_at, PrintJob.id))
        .label("place")
    )
    waiting = (
        select(PrintJob.id, PrintJob.printer_id, PrintJob.lease_until, place)
        .outerjoin(Printer, Printer.id == PrintJob.printer_id)
        .outerjoin(fallback, fallback.id == Printer.fallback_id)
        .where(
            PrintJob.state.in_(WAITING | IN_HAND),
            PrintJob.voided_at.is_(None),
            or_(PrintJob.next_attempt_at.is_(None), PrintJob.next_attempt_at <= uow.now),
            not_new,
            or_(PrintJob.printer_id.is_(None), is_open, has_open_fallback),
        )
        .subquery()
    )
    heads = select(waiting.c.id).where(
        or_(waiting.c.place == 1, waiting.c.printer_id.is_(None)),
        or_(waiting.c.lease_until.is_(None), waiting.c.lease_until <= uow.now),
    )
    return uow.session.scalars(
        select(PrintJob)
        .where(PrintJob.id.in_(heads))
        .order_by(PrintJob.created_at, PrintJob.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()


def _defer_redispatch(job: PrintJob, uow: UnitOfWork) -> None:
    """Exclude the job from the next sweeps while its print task is under way.

    `next_attempt_at` gates a waiting job, `lease_until` a claimed one; a claim reads only the column of the job's
    state. The sweep reads both and writes the other one, so that the dispatched task still finds the job due.
    """
    until = uow.now + rules.redispatch_delay(uow.now - job.state_since)
    if job.state in WAITING:
        job.lease_until = until
    else:
        job.next_attempt_at = until
