# SPDX-License-Identifier: Apache-2.0
"""Notices of a slip to its station, enqueued in the transaction that changes the job."""

from uuid import UUID

from schemas.print_jobs import PrintState
from schemas.replies import SlipNotice
from schemas.reply_signature import sign_reply
from schemas.topology import reply_queue
from tasks.printing.messages import describe, describe_waiting
from tasks.stations.reply_keys import load_reply_keys
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
    """Enqueue a signed `SlipNotice` for `station`; does nothing for a job that has no station.

    `waits_in_printer`: the printer has accepted the slip and waits for staff, for example for paper.
    """
    if station is None:
        return
    message = describe_waiting(printer, reason) if waits_in_printer else describe(state, printer, reason)
    notice = SlipNotice(event_id=event_id, job_id=job_id, state=state.value, message=message, at=uow.now)
    body = notice.model_dump_json(exclude_none=True)
    keys = load_reply_keys(uow.session, station, uow.now)
    uow.enqueue(reply_queue(station), sign_reply(body, keys) if keys is not None else body, event_id=event_id)
