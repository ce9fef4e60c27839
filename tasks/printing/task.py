# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of printing: print, reconcile, and the sweep. Operators act through `tasks/printing/actions.py`."""

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
from schemas.topology import FOLLOW_SLIP, PRINT_SLIP, SWEEP_PRINTS
from tasks import context
from tasks.printing.dispatch import dispatch_due_jobs
from tasks.printing.handler import print_job
from tasks.printing.reconcile import dispatch_reconciliations, reconcile
from tasks.requeue import requeue_after_backoff
from tasks.unit_of_work import StaleStateError

log = structlog.get_logger()

TIME_LIMIT: Final = 100
"""Seconds after which Celery ends a hanging pool process. It exceeds `LONGEST_RUN`, at whose end one more slip may begin,
plus all `PrinterTimeouts` of that slip. It may exceed the visibility timeout: a redelivered print task finds its job
claimed and does nothing."""


@shared_task(bind=True, name=PRINT_SLIP, time_limit=TIME_LIMIT, default_retry_delay=0, max_retries=None)
def print_slip(self: Any, message: object) -> str:
    """Print one slip. `message`: a `PrintSlip` as JSON. Returns the state in which the job ended."""
    return _run(self, message, lambda job_id: print_job(job_id, context.current(), random.random))


@shared_task(bind=True, name=FOLLOW_SLIP, time_limit=TIME_LIMIT, default_retry_delay=0, max_retries=None)
def follow_slip(self: Any, message: object) -> str:
    """Poll a printer for the result of one slip. `message`: a `PrintSlip` as JSON. Returns the state of the job."""
    return _run(self, message, lambda job_id: reconcile(job_id, context.current()))


def _run(task: Any, message: object, work: Callable[[UUID], PrintState | None]) -> str:
    try:
        job_id = PrintSlip.model_validate(message).job_id
    except ValidationError:
        log.warning("print_task_rejected", reason="bad_schema")
        return "refused"
    structlog.contextvars.bind_contextvars(job_id=str(job_id))
    try:
        state = work(job_id)
    except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
        raise requeue_after_backoff(task, error, log_event="print_requeued") from error
    return "nothing_to_do" if state is None else state.value


@shared_task(name=SWEEP_PRINTS)
def sweep_prints() -> int:
    """Dispatch the due print jobs and the due reconciliations. Returns their number."""
    return len(dispatch_due_jobs(context.current())) + len(dispatch_reconciliations(context.current()))
