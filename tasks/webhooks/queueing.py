# SPDX-License-Identifier: Apache-2.0
"""Queue a delivery for each line of history and endpoint. The history is the outbox of webhooks.

A Return writes its line of history in its own transaction, whether or not there is an endpoint. So a scan needs no
statement for webhooks, and no event is lost between its commit and its delivery.

A transaction takes the id of a line before it commits: a line with a lower id can become visible later. An endpoint's
position therefore stays behind until no transaction can add a line before it. Lines after the position are read again, and
those that have a delivery are skipped. Deliveries are unique for each endpoint and line, so this may run twice and
concurrently.
"""

from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from schemas.database import READ_ONLY
from schemas.models import RequestEvent, WebhookDelivery, WebhookEndpoint, table
from tasks.context import Context
from tasks.unit_of_work import UnitOfWork
from tasks.webhooks.messages import lines_of, messages_for
from tasks.webhooks.policy import MAX_PENDING, WebhookPolicy

BATCH_SIZE = 200
"""Deliveries that one transaction inserts."""
MAX_BATCHES = 25
"""Transactions for one endpoint in one run. The next run continues."""


def queue_deliveries(context: Context) -> int:
    """Queue the deliveries of all active endpoints; return their number.

    Without a line after an endpoint's position it writes nothing, and on SQLite does not wait for the write lock.
    """
    newest = select(func.coalesce(func.max(RequestEvent.id), 0)).scalar_subquery()
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        endpoints = session.scalars(
            select(WebhookEndpoint.id)
            .where(WebhookEndpoint.active, WebhookEndpoint.position < newest)
            .order_by(WebhookEndpoint.id)
        ).all()
    total = 0
    for endpoint_id in endpoints:
        for _ in range(MAX_BATCHES):
            with context.unit_of_work() as uow:
                queued = _queue_batch(uow, endpoint_id, context.webhooks)
            total += queued
            if queued < BATCH_SIZE:
                break
    return total


def newest_line(session: Session) -> int:
    """The position at which an endpoint begins that receives no earlier event."""
    return session.scalar(select(func.coalesce(func.max(RequestEvent.id), 0))) or 0


def _queue_batch(uow: UnitOfWork, endpoint_id: int, policy: WebhookPolicy) -> int:
    session = uow.session
    endpoint = session.execute(
        select(WebhookEndpoint.position, WebhookEndpoint.types)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.active)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if endpoint is None:
        return 0
    pending = session.scalar(
        select(func.count())
        .select_from(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.state == "pending")
    )
    room = min(BATCH_SIZE, MAX_PENDING - (pending or 0))
    if room <= 0:
        return 0
    is_queued = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.history_id == RequestEvent.id)
        .exists()
    )
    lines = session.execute(
        lines_of(endpoint.types)
        .where(RequestEvent.id > endpoint.position, ~is_queued)
        .order_by(RequestEvent.id)
        .limit(room)
    ).all()
    messages = messages_for(session, lines)
    if messages:
        session.execute(
            insert(table(WebhookDelivery)),
            [
                {
                    "endpoint_id": endpoint_id,
                    "history_id": message.history_id,
                    "request_id": message.request_id,
                    "message_id": message.message_id,
                    "type": message.type.value,
                    "body": message.body,
                    "state": "pending",
                    "created_at": uow.now,
                    "attempts": 0,
                    "next_attempt_at": uow.now,
                    "give_up_at": uow.now + policy.give_up_after,
                }
                for message in messages
            ],
        )
    _advance(uow, endpoint_id, endpoint.position, messages[-1].history_id if len(messages) == room else None, policy)
    return len(messages)


def _advance(uow: UnitOfWork, endpoint_id: int, position: int, last: int | None, policy: WebhookPolicy) -> None:
    """Move the position over lines that are queued or not wanted, and before which no line can appear any more.

    `last`: the last line that was read, when there may be further ones.
    """
    passed: Any = RequestEvent.id > position
    if last is not None:  # bounds what a batch reads while an endpoint catches up
        passed &= RequestEvent.id <= last
    # The first line that is too young ends the range: a line after it may be older by its worker's clock.
    first_young = uow.session.scalar(
        select(func.min(RequestEvent.id)).where(passed, RequestEvent.recorded_at >= uow.now - policy.settled_after)
    )
    if first_young is not None:
        passed &= RequestEvent.id < first_young
    newest = uow.session.scalar(select(func.max(RequestEvent.id)).where(passed))
    if newest is not None:
        uow.session.execute(
            update(WebhookEndpoint)
            .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.position < newest)
            .values(position=newest)
            .execution_options(synchronize_session=False)
        )
