# SPDX-License-Identifier: Apache-2.0
"""Requeue a task that cannot run now, even when the broker is unreachable."""

import random
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from celery.exceptions import Reject, Retry

log = structlog.get_logger()

FIRST_BACKOFF: Final = 0.5
"""Backoff before the first requeue, in seconds; it doubles with each further one."""

LONGEST_BACKOFF: Final = 15.0
"""Longest backoff, in seconds."""

_LARGEST_EXPONENT: Final = 16
"""Limits the power: after 1024 requeues of one task, four hours of an outage, it would exceed a float."""


def requeue(task: Any, error: Exception) -> Retry | Reject:
    """Return the exception that requeues the running `task` when it is raised. `error` is the cause.

    Publishes the message again, with its retries counted. When the broker is unreachable as well, Celery would give up
    the message: then the exception rejects the delivery, and the broker redelivers the message unchanged.
    """
    try:
        retry: Retry = task.retry(exc=error, countdown=0, throw=False)
    except Reject as unreachable:
        return Reject(unreachable.reason, requeue=True)  # type: ignore[attr-defined]  # missing in its stubs
    return retry


def requeue_after_backoff(
    task: Any, error: Exception, *, log_event: str, sleep: Callable[[float], None] = time.sleep
) -> Retry | Reject:
    """Log `log_event`, wait, and return the exception that requeues the running `task` when it is raised.

    The worker waits in the task, because no other task that needs the database could run in the meantime. The
    backoff is exponential, with jitter. `sleep` takes seconds.
    """
    backoff = min(FIRST_BACKOFF * 2 ** min(task.request.retries, _LARGEST_EXPONENT), LONGEST_BACKOFF)
    log.warning(log_event, error=type(error).__name__, pause_seconds=backoff)
    sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
    return requeue(task, error)
