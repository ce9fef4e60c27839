# SPDX-License-Identifier: Apache-2.0
"""Slips that are due: ordered again, once, however many sweeps run side by side."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import or_, select

from schemas.models import PrintJob
from schemas.print_jobs import PrintSlip
from schemas.print_jobs import PrintState as State
from schemas.topology import PRINT_SLIP, printing_queue
from tasks.context import Context
from tasks.printing import job as rules
from tasks.unit_of_work import UnitOfWork


def order_due(here: Context, limit: int = 500) -> Sequence[UUID]:
    """Order every slip that is due, the oldest first, and give their ids.

    Due are: what failed or is held and whose wait is over, what a dead worker had in hand, and what was wanted and
    never taken. Safe to run twice and side by side.
    """
    with here.unit_of_work() as uow:
        due = _due(uow, limit)
        for job in due:
            order = PrintSlip(job_id=job.id).model_dump_json()
            uow.say(printing_queue(job.branch), order, task=PRINT_SLIP, event_id=job.event_id)
            _remember_order(job, uow)
        ids = [job.id for job in due]
    here.publish.publish_outbox(uow.promised)
    return ids


def _due(uow: UnitOfWork, limit: int) -> Sequence[PrintJob]:
    never_taken = or_(PrintJob.state != State.REQUESTED, PrintJob.created_at <= uow.now - rules.NEGLECTED)
    return uow.session.scalars(
        select(PrintJob)
        .where(
            PrintJob.state.in_(rules.WAITING | rules.IN_HAND),
            or_(PrintJob.next_attempt_at.is_(None), PrintJob.next_attempt_at <= uow.now),
            or_(PrintJob.lease_until.is_(None), PrintJob.lease_until <= uow.now),
            never_taken,
        )
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
    if job.state in rules.WAITING:
        job.lease_until = until
    else:
        job.next_attempt_at = until
