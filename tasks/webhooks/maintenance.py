# SPDX-License-Identifier: Apache-2.0
"""Deletion of old deliveries, of secrets after an overlap, and of operators' names after their retention.

May run twice and concurrently.
"""

from typing import Any, Final

from sqlalchemy import and_, delete, or_, select, update

from schemas.database import READ_ONLY
from schemas.models import WebhookChange, WebhookDelivery, WebhookEndpoint
from tasks.context import Context

BATCH_SIZE: Final = 500
MAX_BATCHES: Final = 20
"""Transactions in one run. The next run continues."""

_UNSYNCHRONIZED: dict[str, Any] = {"synchronize_session": False}


def maintain(context: Context) -> int:
    """Delete what is no longer needed; return the number of deleted deliveries. Without an endpoint it writes nothing."""
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        if session.scalar(select(WebhookEndpoint.id).limit(1)) is None:
            return 0
    _erase_secrets_and_names(context)
    total = 0
    for _ in range(MAX_BATCHES):
        deleted = _delete_batch(context)
        total += deleted
        if deleted < BATCH_SIZE:
            break
    return total


def _delete_batch(context: Context) -> int:
    """Delete settled deliveries behind the position of their endpoint: before it no line of history is read again."""
    with context.unit_of_work() as uow:
        due = uow.session.scalars(
            select(WebhookDelivery.id)
            .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
            .where(
                WebhookDelivery.state.in_(("delivered", "failed")),
                WebhookDelivery.settled_at < uow.now - context.webhooks.retention,
                WebhookDelivery.history_id <= WebhookEndpoint.position,
            )
            .limit(BATCH_SIZE)
            .with_for_update(of=WebhookDelivery, skip_locked=True)
        ).all()
        if due:
            uow.session.execute(
                delete(WebhookDelivery)
                .where(WebhookDelivery.id.in_(due), WebhookDelivery.state != "pending")
                .execution_options(**_UNSYNCHRONIZED)
            )
    return len(due)


def _erase_secrets_and_names(context: Context) -> None:
    with context.unit_of_work() as uow:
        uow.session.execute(
            update(WebhookEndpoint)
            .where(WebhookEndpoint.previous_secret_until <= uow.now)
            .values(previous_secret=None, previous_secret_until=None)
            .execution_options(**_UNSYNCHRONIZED)
        )
        uow.session.execute(
            update(WebhookChange)
            .where(
                and_(
                    WebhookChange.at <= uow.now - context.retention.notes,
                    or_(WebhookChange.actor.is_not(None), WebhookChange.account.is_not(None)),
                )
            )
            .values(actor=None, account=None)
            .execution_options(**_UNSYNCHRONIZED)
        )
