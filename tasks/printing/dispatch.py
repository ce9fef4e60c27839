# SPDX-License-Identifier: Apache-2.0
"""Slips that are due: ordered again, once, however many sweeps run side by side."""

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


def dispatch_due_jobs(here: Context, limit: int = 500) -> Sequence[UUID]:
    """Order the slips that are due, for each printer the oldest one, and give their ids.

    Due are: what failed or is held and whose wait is over, what a dead worker had in hand, and what was wanted and
    never taken. A printer that is on hold or away is left alone, unless a fallback can take its slips. Who gets an
    order goes on with the rest of the printer's line. What waited too long expires. Safe to run twice and side by side.
    """
    with here.unit_of_work() as uow:
        _expire_old(here, uow, limit)
        due = _due(uow, limit)
        for job in due:
            enqueue_print_task(job, uow)
            _remember_order(job, uow)
        ids = [job.id for job in due]
    here.publisher.publish_outbox(uow.pending_messages)
    return ids


def _expire_old(here: Context, uow: UnitOfWork, limit: int) -> None:
    old = uow.session.scalars(
        select(PrintJob)
        .where(
            PrintJob.state.in_(WAITING),
            PrintJob.voided_at.is_(None),
            PrintJob.created_at <= uow.now - here.slip_expiry,
        )
        .order_by(PrintJob.created_at, PrintJob.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for job in old:
        expire(job, uow, uow.session.get(Printer, job.printer_id) if job.printer_id is not None else None)


def _due(uow: UnitOfWork, limit: int) -> Sequence[PrintJob]:
    never_taken = or_(PrintJob.state != State.REQUESTED, PrintJob.created_at <= uow.now - rules.REDISPATCH_AFTER)
    fallback = aliased(Printer)
    is_open = and_(Printer.on_hold.is_(False), or_(Printer.retry_at.is_(None), Printer.retry_at <= uow.now))
    has_stand_in = and_(fallback.on_hold.is_(False), or_(fallback.retry_at.is_(None), fallback.retry_at <= uow.now))
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
            never_taken,
            or_(PrintJob.printer_id.is_(None), is_open, has_stand_in),
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


def _remember_order(job: PrintJob, uow: UnitOfWork) -> None:
    """Keep the next sweeps off while the order is on its way.

    A job has two times, and who takes it heeds one: the next attempt of a job that waits, the lease of one in hand.
    The sweep looks at both, and writes the other one: the order just given must not find the job not due.
    """
    until = uow.now + rules.order_again_after(uow.now - job.state_since)
    if job.state in WAITING:
        job.lease_until = until
    else:
        job.next_attempt_at = until
