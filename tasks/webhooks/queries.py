# SPDX-License-Identifier: Apache-2.0
"""Endpoints and deliveries for operators. No row has a secret, and no URL its query."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, case, func, null, select

from schemas.models import WebhookChange, WebhookDelivery, WebhookEndpoint
from tasks.operator import named_person
from tasks.webhooks.endpoint_url import RefusedUrlError, read_url

STATES: Final = ("pending", "delivered", "failed")


def endpoints(connection: Connection, now: datetime, number: int | None = None) -> list[dict[str, Any]]:
    """All endpoints, or the one with `number`, with the numbers of their deliveries and their last failure."""
    counted = (
        select(
            WebhookDelivery.endpoint_id,
            *(
                func.sum(case((WebhookDelivery.state == state, 1), else_=0)).label(state)
                for state in ("pending", "failed")
            ),
            func.min(case((WebhookDelivery.state == "pending", WebhookDelivery.created_at))).label("oldest_pending_at"),
            func.max(case((WebhookDelivery.state == "delivered", WebhookDelivery.settled_at))).label("delivered_at"),
        )
        .group_by(WebhookDelivery.endpoint_id)
        .subquery()
    )
    question = (
        select(
            WebhookEndpoint.id.label("endpoint"),
            WebhookEndpoint.url,
            WebhookEndpoint.types,
            WebhookEndpoint.plain_http.label("allow_http"),
            WebhookEndpoint.active.label("enabled"),
            WebhookEndpoint.disabled_because,
            WebhookEndpoint.created_at,
            WebhookEndpoint.secret_since,
            case(
                (WebhookEndpoint.previous_secret_until > now, WebhookEndpoint.previous_secret_until), else_=null()
            ).label("overlap_until"),
            WebhookEndpoint.failures,
            WebhookEndpoint.retry_at,
            WebhookEndpoint.trouble,
            func.coalesce(counted.c.pending, 0).label("pending"),
            func.coalesce(counted.c.failed, 0).label("failed"),
            counted.c.oldest_pending_at,
            counted.c.delivered_at.label("last_delivered_at"),
        )
        .outerjoin(counted, counted.c.endpoint_id == WebhookEndpoint.id)
        .order_by(WebhookEndpoint.id)
    )
    if number is not None:
        question = question.where(WebhookEndpoint.id == number)
    return [{**row, "url": shown_url(row["url"])} for row in connection.execute(question).mappings()]


def deliveries(
    connection: Connection, number: int, states: Sequence[str] = (), limit: int = 50
) -> list[dict[str, Any]]:
    """The newest deliveries of an endpoint, without their bodies."""
    question = (
        select(
            WebhookDelivery.id.label("delivery"),
            WebhookDelivery.message_id,
            WebhookDelivery.history_id.label("cursor"),
            WebhookDelivery.type,
            WebhookDelivery.state,
            WebhookDelivery.created_at,
            WebhookDelivery.attempts,
            WebhookDelivery.last_attempt_at,
            WebhookDelivery.next_attempt_at,
            WebhookDelivery.status,
            WebhookDelivery.error,
            WebhookDelivery.settled_at,
        )
        .where(WebhookDelivery.endpoint_id == number)
        .order_by(WebhookDelivery.history_id.desc())
        .limit(limit)
    )
    if states:
        question = question.where(WebhookDelivery.state.in_(states))
    return [
        {**row, "next_attempt_at": row["next_attempt_at"] if row["state"] == "pending" else None}
        for row in connection.execute(question).mappings()
    ]


def changes(connection: Connection, number: int) -> list[dict[str, Any]]:
    """The operators' changes of an endpoint, oldest first."""
    rows = connection.execute(
        select(WebhookChange.at, WebhookChange.action, WebhookChange.actor, WebhookChange.identified_by,
               WebhookChange.account)
        .where(WebhookChange.endpoint_id == number)
        .order_by(WebhookChange.id)
    )  # fmt: skip
    return [
        {"at": row.at, "action": row.action, "by": named_person(row.actor, row.identified_by, row.account)}
        for row in rows
    ]


def shown_url(url: str) -> str:
    """The URL without its query, which may contain a token."""
    try:
        return read_url(url, plain_http=True).shown
    except RefusedUrlError:
        return "(not a valid URL)"
