# SPDX-License-Identifier: Apache-2.0
"""Deliver the pending messages of one endpoint, in order for each request. No transaction is open while it sends.

An endpoint has one sender at a time: a lease in its row. The lease of a process that died ends, and another sends the
same message with the same id again; receivers discard duplicates by `webhook-id`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import func, literal_column, or_, select, update
from sqlalchemy.orm import aliased

from schemas.database import READ_ONLY
from schemas.models import WebhookDelivery, WebhookEndpoint
from schemas.webhook_messages import WebhookTest, WebhookTestData
from schemas.webhook_signature import signed_headers
from tasks.context import Context
from tasks.stations.keys import previous_key_at
from tasks.unit_of_work import UnitOfWork
from tasks.webhooks.administration import find_endpoint
from tasks.webhooks.endpoint_url import RefusedUrlError, read_url
from tasks.webhooks.http_sender import DeliveryError, Response, send
from tasks.webhooks.policy import LONGEST_DELAY, LONGEST_PAUSE, Result, delay_after, result_of, retry_after

log = structlog.get_logger()

_PENDING: Any = literal_column("'pending'")
"""A literal, so that a prepared statement uses the partial index as well."""
_UNSYNCHRONIZED: dict[str, Any] = {"synchronize_session": False}


@dataclass(frozen=True)
class Message:
    """A message, and the endpoint to which it is sent."""

    message_id: str
    body: bytes
    url: str
    plain_http: bool
    secrets: Sequence[str] = field(repr=False)
    """The present secret, and the previous one while it is valid."""


@dataclass(frozen=True)
class _Claimed:
    """A delivery to send now."""

    delivery_id: int
    attempt: int
    """1 for the first."""
    message: Message


@dataclass(frozen=True)
class Attempt:
    """The result of one attempt."""

    result: Result
    status: int | None = None
    error: str | None = None
    """The cause of a failure, to follow the name of the endpoint."""
    pause: timedelta = timedelta(0)
    """The pause that the response asks for."""


def due_endpoints(context: Context) -> list[int]:
    """The active endpoints with a delivery that is due, to which no process sends."""
    now = context.now()
    due = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.endpoint_id == WebhookEndpoint.id,
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_attempt_at <= now,
        )
        .exists()
    )
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        return list(
            session.scalars(
                select(WebhookEndpoint.id)
                .where(
                    WebhookEndpoint.active,
                    or_(WebhookEndpoint.retry_at.is_(None), WebhookEndpoint.retry_at <= now),
                    or_(WebhookEndpoint.claimed_until.is_(None), WebhookEndpoint.claimed_until <= now),
                    due,
                )
                .order_by(WebhookEndpoint.id)
            )
        )


def deliver(
    context: Context,
    endpoint_id: int,
    sender: UUID,
    *,
    stopped: Callable[[], bool] = lambda: False,
    chance: Callable[[], float] = random.random,
) -> int:
    """Send the due messages of the endpoint until none is left, it fails, or `stopped`; return the number delivered.

    `sender` identifies this process in the lease. Does nothing while another process has the lease.
    """
    delivered = 0
    try:
        while not stopped():
            claimed = _claim(context, endpoint_id, sender)
            if claimed is None:
                break
            attempt = send_message(claimed.message, context)
            with context.unit_of_work() as uow:
                _record(uow, endpoint_id, sender, claimed, attempt, chance=chance)
            delivered += attempt.result is Result.ACKNOWLEDGED
            if attempt.result in {Result.GONE, Result.UNAVAILABLE}:
                break
    finally:
        _release(context, endpoint_id, sender)
    return delivered


def send_test(context: Context, endpoint_id: int) -> Attempt:
    """Send a test message once, also to a disabled endpoint. Raises `RefusedEndpointError` if there is no endpoint."""
    now = context.now()
    with context.sessions() as session:
        session.connection(execution_options=READ_ONLY)
        endpoint = find_endpoint(session, endpoint_id)
    test = WebhookTest(timestamp=now, data=WebhookTestData(endpoint=endpoint_id))
    return send_message(
        Message(
            f"msg_{uuid4().hex}", test.model_dump_json().encode(), endpoint.url, endpoint.plain_http,
            _secrets(endpoint, now),
        ),
        context,
    )  # fmt: skip


def send_message(message: Message, context: Context) -> Attempt:
    """Sign and send one message. Never raises."""
    try:
        url = read_url(message.url, plain_http=message.plain_http)
        headers = signed_headers(message.secrets, message.message_id, context.now(), message.body)
        response = send(url, headers, message.body, context.webhooks.timeout)
    except (RefusedUrlError, DeliveryError) as error:
        return Attempt(Result.UNAVAILABLE, error=str(error))
    return _attempt(response)


def _attempt(response: Response) -> Attempt:
    result = result_of(response.status)
    error = None if result is Result.ACKNOWLEDGED else response.description
    return Attempt(result, response.status, error, retry_after(response.retry_after))


def _claim(context: Context, endpoint_id: int, sender: UUID) -> _Claimed | None:
    """Take or extend the lease, and count an attempt for the next delivery; `None` if there is nothing to send."""
    with context.unit_of_work() as uow:
        now = uow.now
        endpoint = uow.session.execute(
            update(WebhookEndpoint)
            .where(
                WebhookEndpoint.id == endpoint_id,
                WebhookEndpoint.active,
                or_(WebhookEndpoint.retry_at.is_(None), WebhookEndpoint.retry_at <= now),
                or_(
                    WebhookEndpoint.claimed_until.is_(None),
                    WebhookEndpoint.claimed_until <= now,
                    WebhookEndpoint.claimed_by == sender,
                ),
            )
            .values(claimed_by=sender, claimed_until=now + context.webhooks.lease)
            .returning(
                WebhookEndpoint.url,
                WebhookEndpoint.plain_http,
                WebhookEndpoint.secret,
                WebhookEndpoint.previous_secret,
                WebhookEndpoint.previous_secret_until,
            )
            .execution_options(**_UNSYNCHRONIZED)
        ).one_or_none()
        if endpoint is None:
            return None
        earlier = aliased(WebhookDelivery)
        # A scalar subquery, not EXISTS: PostgreSQL would join all pending rows with each other.
        first_of_request = (
            select(func.min(earlier.history_id))
            .where(
                earlier.endpoint_id == WebhookDelivery.endpoint_id,
                earlier.request_id == WebhookDelivery.request_id,
                earlier.state == _PENDING,
            )
            .scalar_subquery()
        )
        delivery = uow.session.execute(
            select(WebhookDelivery.id, WebhookDelivery.attempts, WebhookDelivery.message_id, WebhookDelivery.body)
            .where(
                WebhookDelivery.endpoint_id == endpoint_id,
                WebhookDelivery.state == _PENDING,
                WebhookDelivery.next_attempt_at <= now,
                WebhookDelivery.history_id == first_of_request,
            )
            .order_by(WebhookDelivery.history_id)
            .limit(1)
        ).one_or_none()
        if delivery is None:
            return None
        attempt = delivery.attempts + 1
        uow.session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery.id)
            .values(attempts=attempt, last_attempt_at=now)
            .execution_options(**_UNSYNCHRONIZED)
        )
    return _Claimed(
        delivery.id,
        attempt,
        Message(
            delivery.message_id, delivery.body.encode(), endpoint.url, endpoint.plain_http, _secrets(endpoint, now)
        ),
    )


def _secrets(endpoint: Any, now: datetime) -> list[str]:
    previous = previous_key_at(now, endpoint.previous_secret, endpoint.previous_secret_until)
    return [endpoint.secret] if previous is None else [endpoint.secret, previous]


def _record(
    uow: UnitOfWork,
    endpoint_id: int,
    sender: UUID,
    claimed: _Claimed,
    attempt: Attempt,
    *,
    chance: Callable[[], float],
) -> None:
    """Store the result. A delivery that an operator or another process settled meanwhile stays as it is."""
    now = uow.now
    values: dict[str, Any] = {"status": attempt.status, "error": attempt.error}
    bound = log.bind(webhook=endpoint_id, delivery=claimed.delivery_id, attempt=claimed.attempt)
    if attempt.result is Result.ACKNOWLEDGED:
        values |= {"state": "delivered", "settled_at": now}
        bound.info("webhook_delivered")
    else:
        give_up_at = uow.session.scalar(
            select(WebhookDelivery.give_up_at).where(WebhookDelivery.id == claimed.delivery_id)
        )
        if give_up_at is not None and now >= give_up_at and attempt.result is not Result.GONE:
            values |= {"state": "failed", "settled_at": now}
            bound.error("webhook_failed", error=attempt.error)
        else:
            wait = delay_after(claimed.attempt, LONGEST_DELAY, chance())
            values["next_attempt_at"] = now + max(wait, attempt.pause)
            bound.warning("webhook_not_delivered", error=attempt.error)
    uow.session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == claimed.delivery_id, WebhookDelivery.state == "pending")
        .values(values)
        .execution_options(**_UNSYNCHRONIZED)
    )
    _record_endpoint(uow, endpoint_id, sender, attempt, chance)


def _record_endpoint(
    uow: UnitOfWork, endpoint_id: int, sender: UUID, attempt: Attempt, chance: Callable[[], float]
) -> None:
    now = uow.now
    endpoint = uow.session.execute(
        select(WebhookEndpoint.failures)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.claimed_by == sender)
        .with_for_update()
    ).one_or_none()
    if endpoint is None:
        return  # the lease ended, and another process sends
    values: dict[str, Any]
    match attempt.result:
        case Result.ACKNOWLEDGED:
            values = {"failures": 0, "retry_at": None, "trouble": None}
            if endpoint.failures > 1:
                _make_due(uow, endpoint_id)
        case Result.REFUSED:
            values = {"failures": 0, "retry_at": None, "trouble": attempt.error}
        case Result.GONE:
            values = {"active": False, "disabled_because": "gone", "trouble": attempt.error}
            log.error("webhook_endpoint_disabled", webhook=endpoint_id, reason="gone")
        case Result.UNAVAILABLE:
            failures = endpoint.failures + 1
            pause = max(delay_after(failures, LONGEST_PAUSE, chance()), attempt.pause)
            values = {"failures": failures, "retry_at": now + pause, "trouble": attempt.error}
    uow.session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id)
        .values(values)
        .execution_options(**_UNSYNCHRONIZED)
    )


def _make_due(uow: UnitOfWork, endpoint_id: int) -> None:
    """After an outage: what failed because of it is not delayed any longer."""
    uow.session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_attempt_at > uow.now,
        )
        .values(next_attempt_at=uow.now)
        .execution_options(**_UNSYNCHRONIZED)
    )


def _release(context: Context, endpoint_id: int, sender: UUID) -> None:
    with context.unit_of_work() as uow:
        uow.session.execute(
            update(WebhookEndpoint)
            .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.claimed_by == sender)
            .values(claimed_by=None, claimed_until=None)
            .execution_options(**_UNSYNCHRONIZED)
        )
