# SPDX-License-Identifier: Apache-2.0
"""The Celery task of the quarantine."""

from dataclasses import asdict

import structlog
from celery import shared_task

from schemas.topology import SWEEP_QUARANTINE
from tasks import context
from tasks.quarantine.maintenance import sweep

log = structlog.get_logger()


@shared_task(name=SWEEP_QUARANTINE)
def sweep_quarantine() -> int:
    """Gather dead letters, settle what was retried, let go of bodies in time. Gives how many letters came."""
    swept = sweep(context.current())
    for state, count in asdict(swept).items():
        if count:
            log.info("quarantine_swept", state=state, count=count)
    return swept.gathered
