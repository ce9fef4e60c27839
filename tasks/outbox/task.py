# SPDX-License-Identifier: Apache-2.0
"""The Celery task of the outbox."""

from celery import shared_task

from schemas.topology import SWEEP_OUTBOX
from tasks import context
from tasks.outbox.relay import sweep


@shared_task(name=SWEEP_OUTBOX)
def sweep_outbox() -> int:
    """Publish committed messages that are not published yet. Returns how many the broker has confirmed."""
    return sweep(context.current())
