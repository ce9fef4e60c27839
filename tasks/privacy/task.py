# SPDX-License-Identifier: Apache-2.0
"""The Celery task that lets go of links to readers, now and then."""

import structlog
from celery import shared_task

from schemas.topology import PURGE_LINKS
from tasks import context
from tasks.privacy.purge import purge

log = structlog.get_logger()


@shared_task(name=PURGE_LINKS)
def purge_links() -> int:
    """Delete what was set aside for an undo that is over, and sever what is not needed. Gives how many links went."""
    with context.current().unit_of_work() as uow:
        purged = purge(uow.session, uow.now)
    if purged.total:
        log.info("links_purged", count=purged.total)
    return purged.total
