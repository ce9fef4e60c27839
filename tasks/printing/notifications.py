# SPDX-License-Identifier: Apache-2.0
"""Notices of a slip to its station, enqueued in the transaction that changes the job."""

from uuid import UUID

from schemas.print_jobs import PrintState
from schemas.replies import SlipNotice
from schemas.topology import reply_queue
from tasks.printing.messages import describe, describe_waiting
from tasks.unit_of_work import UnitOfWork


def enqueue_notice(
    uow: UnitOfWork,
    *,
    station: str | None,
    event_id: UUID,
    job_id: UUID,
    state: PrintState,
    printer: str | None,
    reason: str | None,
    waits_in_printer: bool = False,
) -> None:
    """Enqueue a `SlipNotice` for `station`; does nothing for a job that has no station.

    `waits_in_printer`: the printer has accepted the slip and waits for staff, for example for paper.
    """
    if station is None:
        return
    message = describe_waiting(printer, reason) if waits_in_printer else describe(state, printer, reason)
    notice = SlipNotice(event_id=event_id, job_id=job_id, state=state.value, message=message, at=uow.now)
    uow.enqueue(reply_queue(station), notice.model_dump_json(), event_id=event_id)
