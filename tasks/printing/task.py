# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of printing: an id comes in, the handler does the rest."""

import random
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import structlog
from celery import shared_task
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from schemas.print_jobs import PrintSlip, PrintState
from schemas.topology import (
    CANCEL_SLIP,
    FOLLOW_SLIP,
    MOVE_SLIP,
    PRINT_SLIP,
    REPRINT_SLIP,
    RETRY_SLIP,
    SLIP_PRINTED,
    SWEEP_PRINTS,
)
from tasks import context
from tasks.operator import Operator
from tasks.printing import actions
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.printing.handler import print_job
from tasks.printing.reconcile import dispatch_reconciliations, follow
from tasks.requeue import requeue_after_backoff
from tasks.unit_of_work import StaleStateError

log = structlog.get_logger()

TIME_LIMIT: Final = 100
"""A worker that is longer at a printer hangs, and is ended, in seconds: above `LONGEST_SHIFT`, in whose last moment one
more slip may begin, and all of a printer's `PrinterTimeouts`. The same whatever the visibility timeout: an order that is
delivered again meanwhile finds its slip claimed, and does nothing."""


@shared_task(bind=True, name=PRINT_SLIP, time_limit=TIME_LIMIT, default_retry_delay=0, max_retries=None)
def print_slip(self: Any, order: object) -> str:
    """Print one slip. `order`: a `PrintSlip` as JSON. Gives the state the job ended in."""
    return _heeded(self, order, lambda job_id: print_job(job_id, context.current(), random.random))


@shared_task(bind=True, name=FOLLOW_SLIP, time_limit=TIME_LIMIT, default_retry_delay=0, max_retries=None)
def follow_slip(self: Any, order: object) -> str:
    """Ask a printer what became of one slip. `order`: a `PrintSlip` as JSON. Gives the state the job is in."""
    return _heeded(self, order, lambda job_id: follow(job_id, context.current()))


def _heeded(task: Any, order: object, work: Callable[[UUID], PrintState | None]) -> str:
    try:
        wanted = PrintSlip.model_validate(order)
    except ValidationError:
        log.warning("print_order_refused", reason="bad_schema")
        return "refused"
    structlog.contextvars.bind_contextvars(job_id=str(wanted.job_id))
    try:
        state = work(wanted.job_id)
    except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
        raise requeue_after_backoff(task, error, log_event="print_requeued") from error
    return "nothing_to_do" if state is None else state.value


@shared_task(bind=True, name=RETRY_SLIP, default_retry_delay=0, max_retries=None)
def retry_slip(self: Any, slip: str, actor: str, reason: str | None = None) -> str:
    """Try a slip that waits again, now. `slip`: its id; `actor`: who decided. Gives what became of it, in words."""
    return _decided(self, slip, lambda job_id, here: actions.retry(job_id, Operator(actor, reason), here))


@shared_task(bind=True, name=REPRINT_SLIP, default_retry_delay=0, max_retries=None)
def reprint_slip(self: Any, slip: str, actor: str, reason: str) -> str:
    """Order a copy of a slip, which says so. Gives what became of it, in words."""
    return _decided(self, slip, lambda job_id, here: actions.reprint(job_id, Operator(actor, reason), here))


@shared_task(bind=True, name=SLIP_PRINTED, default_retry_delay=0, max_retries=None)
def slip_printed(self: Any, slip: str, actor: str, reason: str | None = None) -> str:
    """Note that `actor` saw the slip. Gives what became of it, in words."""
    return _decided(self, slip, lambda job_id, here: actions.mark_printed(job_id, Operator(actor, reason), here))


@shared_task(bind=True, name=CANCEL_SLIP, default_retry_delay=0, max_retries=None)
def cancel_slip(self: Any, slip: str, actor: str, reason: str | None = None) -> str:
    """Give up a slip that was not sent. Gives what became of it, in words."""
    return _decided(self, slip, lambda job_id, here: actions.cancel(job_id, Operator(actor, reason), here))


@shared_task(bind=True, name=MOVE_SLIP, default_retry_delay=0, max_retries=None)
def move_slip(self: Any, slip: str, actor: str, to: str, reason: str | None = None) -> str:
    """Have a slip that waits printed on printer `to`. Gives what became of it, in words."""
    return _decided(self, slip, lambda job_id, here: actions.move(job_id, to, Operator(actor, reason), here))


def _decided(task: Any, slip: str, act: Callable[[UUID, context.Context], actions.Done]) -> str:
    try:
        job_id = UUID(slip)
    except (ValueError, AttributeError, TypeError):
        return "refused: that is no slip's id"
    structlog.contextvars.bind_contextvars(job_id=slip)
    try:
        done = act(job_id, context.current())
    except actions.RefusedActionError as error:
        return f"refused: {error}"
    except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
        raise requeue_after_backoff(task, error, log_event="print_requeued") from error
    return done.message


@shared_task(name=SWEEP_PRINTS)
def sweep_prints() -> int:
    """Order the slips that are due again, and looks at those whose printer is to be asked. Gives how many."""
    return len(dispatch_due_jobs(context.current())) + len(dispatch_reconciliations(context.current()))
