# SPDX-License-Identifier: Apache-2.0
"""The Celery task that purges links to patrons, and content whose retention is over."""

import structlog
from celery import shared_task

from schemas.topology import PURGE_LINKS
from tasks import context
from tasks.metrics import definitions
from tasks.privacy.purge import purge
from tasks.privacy.retention import erase_expired
from tasks.stations.administration import erase_expired_keys

log = structlog.get_logger()


@shared_task(name=PURGE_LINKS)
def purge_links() -> int:
    """Delete links kept for an undo whose window is over, sever unneeded links, erase expired content and keys.

    Returns the number of links.
    """
    current = context.current()
    with current.unit_of_work() as uow:
        purged = purge(uow.session, uow.now)
        erased_keys = erase_expired_keys(uow.session, uow.now)
    if purged.total:
        log.info("links_purged", count=purged.total)
        current.metrics.count(definitions.ERASED, definitions.PATRON_LINKS, purged.total)
    if erased_keys:
        log.info("station_keys_erased", count=erased_keys)
    for kind, count in erase_expired(current).items():
        if count:
            log.info("content_erased", kind=kind.value, count=count)
    return purged.total
