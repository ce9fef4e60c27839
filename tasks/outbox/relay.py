# SPDX-License-Identifier: Apache-2.0
"""The sweep of the outbox: publish committed messages that are still there. Sweeps may run concurrently."""

from datetime import timedelta

from sqlalchemy import select, update

from schemas.models import OutboxEntry
from tasks.context import Context
from tasks.ports import PendingMessage

BATCH = 200
"""Number of messages that one transaction claims."""


def retry_after(attempts: int) -> timedelta:
    """Return the backoff of a message after `attempts` attempts: from 2 seconds to 1 minute."""
    return timedelta(seconds=min(2 * 2 ** min(attempts, 10), 60))


def sweep(context: Context, *, limit: int = 5_000) -> int:
    """Publish due messages, oldest first, at most `limit`; return how many the broker has confirmed.

    A separate transaction claims the rows: it moves their next attempt. So the sweep holds no lock while it publishes,
    and a later sweep publishes the rows of one that died.
    """
    total = 0
    while total < limit:
        claimed = _claim(context)
        if not claimed:
            return total
        published = context.publisher.publish_outbox(claimed)
        total += published
        if published < len(claimed):
            return total
    return total


def _claim(context: Context) -> list[PendingMessage]:
    with context.unit_of_work() as uow:
        rows = uow.session.execute(
            select(
                OutboxEntry.id,
                OutboxEntry.queue,
                OutboxEntry.task,
                OutboxEntry.body,
                OutboxEntry.event_id,
                OutboxEntry.attempts,
            )
            .where(OutboxEntry.next_attempt_at <= uow.now)
            .order_by(OutboxEntry.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        ).all()
        if rows:
            wait = retry_after(max(row.attempts for row in rows))
            uow.session.execute(
                update(OutboxEntry)
                .where(OutboxEntry.id.in_([row.id for row in rows]))
                .values(attempts=OutboxEntry.attempts + 1, next_attempt_at=uow.now + wait)
            )
    return [PendingMessage(row.id, row.queue, row.task, row.body, row.event_id) for row in rows]
