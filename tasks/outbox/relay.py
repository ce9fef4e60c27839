# SPDX-License-Identifier: Apache-2.0
"""The sweep: what was committed and not published goes out now. Safe to run twice and side by side."""

from datetime import timedelta

from sqlalchemy import select, update

from schemas.models import OutboxEntry
from tasks.context import Context
from tasks.ports import PendingMessage

BATCH = 200
"""How many messages one transaction takes."""


def retry_after(attempts: int) -> timedelta:
    """How long a message that was tried `attempts` times waits for its next try: from 2 seconds to 1 minute."""
    return timedelta(seconds=min(2 * 2 ** min(attempts, 10), 60))


def sweep(here: Context, *, limit: int = 5_000) -> int:
    """Publish what is due, oldest first, at most `limit` messages; return how many the broker has now.

    The rows are claimed by moving their next attempt on in a transaction of its own, so no lock is held while
    the broker is spoken to, and a sweep that dies leaves them for a later one.
    """
    total = 0
    while total < limit:
        claimed = _claim(here)
        if not claimed:
            return total
        published = here.publisher.publish_outbox(claimed)
        total += published
        if published < len(claimed):
            return total
    return total


def _claim(here: Context) -> list[PendingMessage]:
    with here.unit_of_work() as uow:
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
