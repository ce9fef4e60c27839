# SPDX-License-Identifier: Apache-2.0
"""Webhooks: endpoints of the library's own systems, deliveries to them, and the operators' changes."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, false, text, true
from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import BigId, Code, Id, Model, Short

_PENDING = text("state = 'pending'")


class WebhookEndpoint(Model):
    """A URL that receives events. Its deliveries form one line: one process at a time sends to it."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[Id]
    url: Mapped[str] = mapped_column(String(500))
    types: Mapped[list[str]] = mapped_column(default=list)
    """Types of events (`schemas.webhook_messages.WebhookType`); empty for all."""
    plain_http: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Permits `http://` to an address of this machine or of a private network."""
    secret: Mapped[Short]
    """The shared secret, as text: `whsec_` and base64."""
    secret_since: Mapped[datetime]
    previous_secret: Mapped[Short | None]
    """The secret before the last rotation: it signs as well until `previous_secret_until`, then it is erased."""
    previous_secret_until: Mapped[datetime | None]
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    disabled_because: Mapped[Code | None]
    """`operator`, or `gone` after the response 410; `None` for an active endpoint."""
    created_at: Mapped[datetime]
    position: Mapped[int] = mapped_column(BigId, default=0)
    """Id of a line of history: all its events up to this one have a delivery, and no transaction can still add one."""
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts in a row that failed because of the endpoint."""
    retry_at: Mapped[datetime | None]
    """End of the pause after such a failure."""
    trouble: Mapped[str | None] = mapped_column(Text)
    """Cause of the last failure, as text for operators."""
    claimed_by: Mapped[UUID | None]
    """The process that sends to it."""
    claimed_until: Mapped[datetime | None]
    """End of the lease of that process."""


class WebhookDelivery(Model):
    """An event for an endpoint, and the result of sending it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("uq_webhook_deliveries_endpoint_id_history_id", "endpoint_id", "history_id", unique=True),
        Index(
            "ix_webhook_deliveries_pending", "endpoint_id", "request_id", "history_id",
            sqlite_where=_PENDING, postgresql_where=_PENDING,
        ),
        Index("ix_webhook_deliveries_state_settled_at", "state", "settled_at"),
    )  # fmt: skip

    id: Mapped[Id]
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id"))
    history_id: Mapped[int] = mapped_column(BigId)
    """Id of the line in `request_events`."""
    request_id: Mapped[int] = mapped_column(BigId)
    message_id: Mapped[Code]
    """`webhook-id`: equal for each attempt and each endpoint."""
    type: Mapped[Code]
    body: Mapped[str] = mapped_column(Text)
    """The JSON that is signed and sent."""
    state: Mapped[Code] = mapped_column(default="pending", server_default="pending")
    """`pending`, `delivered` or `failed`."""
    created_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[datetime]
    give_up_at: Mapped[datetime]
    """A failure after this time is the last one."""
    last_attempt_at: Mapped[datetime | None]
    status: Mapped[int | None]
    """HTTP status of the last response."""
    error: Mapped[str | None] = mapped_column(Text)
    """Cause of the last failure, as text for operators."""
    settled_at: Mapped[datetime | None]
    """Time at which it was delivered, or failed for good."""


class WebhookChange(Model):
    """An operator's change of an endpoint."""

    __tablename__ = "webhook_changes"

    id: Mapped[Id]
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id"), index=True)
    at: Mapped[datetime]
    action: Mapped[Code]
    """`added`, `secret_rotated`, `disabled`, `enabled` or `retried`."""
    actor: Mapped[Short | None]
    """Name of the operator; `None` after its retention."""
    identified_by: Mapped[Code]
    account: Mapped[str | None] = mapped_column(String(100))
