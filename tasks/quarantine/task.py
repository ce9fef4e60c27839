# SPDX-License-Identifier: Apache-2.0
"""The Celery task of the quarantine."""

from dataclasses import asdict

import structlog
from celery import shared_task

from schemas.topology import SWEEP_QUARANTINE
from tasks import context
from tasks.metrics import definitions
from tasks.privacy.policy import ContentKind
from tasks.quarantine.maintenance import sweep

log = structlog.get_logger()


@shared_task(name=SWEEP_QUARANTINE)
def sweep_quarantine() -> int:
    """Collect dead letters, settle retried messages, erase expired bodies. Returns the number of collected letters."""
    current = context.current()
    result = sweep(current)
    if result.erased:
        current.metrics.count(definitions.ERASED, ContentKind.QUARANTINE.value, result.erased)
    for state, count in asdict(result).items():
        if count:
            log.info("quarantine_swept", state=state, count=count)
    return result.collected
