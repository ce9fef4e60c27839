# SPDX-License-Identifier: Apache-2.0
"""Write operations on print jobs that `tasks.returns` and `tasks.printing` share: state change and print task."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Update, update

from schemas.models import PrintJob, table
from schemas.print_jobs import TRANSITIONS, PrintSlip, PrintState
from schemas.topology import PRINT_SLIP, printing_queue
from tasks.events.model import FollowUp
from tasks.unit_of_work import UnitOfWork

_jobs = table(PrintJob)
_PREDECESSORS = {
    state: tuple(before for before, following in TRANSITIONS.items() if state in following) for state in PrintState
}


def change_state(job: PrintJob, state: PrintState, now: datetime) -> None:
    """Set the state of a locked job. Raises `ValueError` for a transition that `TRANSITIONS` does not contain."""
    if state not in TRANSITIONS[job.state]:
        raise ValueError(f"a print job cannot change from {job.state} to {state}")
    if state is not job.state:
        job.state_since = now
    job.state = state


def state_change(state: PrintState, now: datetime) -> Update:
    """An UPDATE of the jobs whose present state may change to `state`, for jobs that are not locked.

    The caller adds the condition that selects its jobs, and further values.
    """
    return update(_jobs).where(_jobs.c.state.in_(_PREDECESSORS[state])).values(state=state, state_since=now)


def print_task(job_id: UUID, branch: str, event_id: UUID, *, task: str = PRINT_SLIP) -> FollowUp:
    """The message that has a print worker of `branch` run `task` on the job."""
    return FollowUp(printing_queue(branch), task, PrintSlip(job_id=job_id).model_dump_json(), event_id)


def enqueue_print_task(job: PrintJob, uow: UnitOfWork, *, task: str = PRINT_SLIP) -> None:
    """Enqueue a print task for the job in the transaction of `uow`."""
    message = print_task(job.id, job.branch, job.event_id, task=task)
    uow.enqueue(message.queue, message.body, task=message.task, event_id=message.event_id)
