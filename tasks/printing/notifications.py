# SPDX-License-Identifier: Apache-2.0
"""What a station hears of its slip: promised in the transaction that makes it true."""

from uuid import UUID

from schemas.print_jobs import PrintState
from schemas.replies import SlipNotice
from schemas.topology import reply_queue
from tasks.printing.messages import waiting_words, words
from tasks.unit_of_work import UnitOfWork


def enqueue_notice(
    uow: UnitOfWork,
    *,
    station: str | None,
    event_id: UUID,
    job_id: UUID,
    state: PrintState,
    printer: str | None,
    why: str | None,
    waits_there: bool = False,
) -> None:
    """Promise `station` a `SlipNotice`; a job that no station waits for is told to nobody.

    `waits_there`: the printer has the slip and waits for somebody, such as for paper.
    """
    if station is None:
        return
    message = waiting_words(printer, why) if waits_there else words(state, printer, why)
    notice = SlipNotice(event_id=event_id, job_id=job_id, state=state.value, message=message, at=uow.now)
    uow.enqueue(reply_queue(station), notice.model_dump_json(), event_id=event_id)
