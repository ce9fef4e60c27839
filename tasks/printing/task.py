# SPDX-License-Identifier: Apache-2.0
"""The Celery tasks of printing: an id comes in, the handler does the rest."""

import random
import time
from typing import Any, Final

import structlog
from celery import shared_task
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from schemas.print_jobs import PrintSlip
from schemas.topology import PRINT_SLIP, SWEEP_PRINTS
from tasks import context
from tasks.printing.handler import print_job
from tasks.printing.sweep import order_due
from tasks.unit_of_work import StaleStateError

log = structlog.get_logger()

LONGEST_PAUSE: Final = 15.0
"""Longest wait before an order is put back on the queue while the database is away, in seconds."""


@shared_task(bind=True, name=PRINT_SLIP, default_retry_delay=0, max_retries=None)
def print_slip(self: Any, order: object) -> str:
    """Print one slip. `order`: a `PrintSlip` as JSON. Gives the state the job ended in."""
    try:
        wanted = PrintSlip.model_validate(order)
    except ValidationError:
        log.warning("print_order_refused", reason="bad_schema")
        return "refused"
    structlog.contextvars.bind_contextvars(job_id=str(wanted.job_id))
    try:
        state = print_job(wanted.job_id, context.current(), random.random)
    except (DBAPIError, PoolTimeoutError, StaleStateError) as error:
        pause = min(0.5 * 2**self.request.retries, LONGEST_PAUSE)
        log.warning("print_put_back", error=type(error).__name__, pause_seconds=pause)
        time.sleep(pause)
        raise self.retry(exc=error, countdown=0) from error
    return "nothing_to_do" if state is None else state.value


@shared_task(name=SWEEP_PRINTS)
def sweep_prints() -> int:
    """Order the slips that are due again. Gives how many."""
    return len(order_due(context.current()))
