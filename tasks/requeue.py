# SPDX-License-Identifier: Apache-2.0
"""A task that cannot be done just now goes back to its queue, whatever else is away."""

from typing import Any

from celery.exceptions import Reject, Retry


def requeue(task: Any, error: Exception) -> Retry | Reject:
    """What puts the running `task` back on its queue when it is raised; `error` is why.

    It is published anew, so that its tries are counted. When the broker is away as well Celery would give the message up:
    then it is given back as it came, and delivered again.
    """
    try:
        again: Retry = task.retry(exc=error, countdown=0, throw=False)
    except Reject as away:
        return Reject(away.reason, requeue=True)  # type: ignore[attr-defined]  # missing in its stubs
    return again
