# SPDX-License-Identifier: Apache-2.0
"""The Celery task that purges links to patrons."""

import structlog
from celery import shared_task

from schemas.topology import PURGE_LINKS
from tasks import context
from tasks.privacy.purge import purge

log = structlog.get_logger()


@shared_task(name=PURGE_LINKS)
def purge_links() -> int:
    """Delete links kept for an undo whose window is over, and sever unneeded links. Returns their number."""
    with context.current().unit_of_work() as uow:
        purged = purge(uow.session, uow.now)
    if purged.total:
        log.info("links_purged", count=purged.total)
    return purged.total
