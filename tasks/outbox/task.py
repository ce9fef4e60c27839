# SPDX-License-Identifier: Apache-2.0
"""The Celery task of the outbox."""

from celery import shared_task

from schemas.topology import SWEEP_OUTBOX
from tasks import context
from tasks.outbox.relay import sweep


@shared_task(name=SWEEP_OUTBOX)
def sweep_outbox() -> int:
    """Publish what was committed and not published. Gives how many messages went out."""
    return sweep(context.current())
