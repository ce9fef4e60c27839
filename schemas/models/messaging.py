# SPDX-License-Identifier: Apache-2.0
"""Messages in and out: the inbox of answered events, the outbox of promises, the quarantine."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column
from uuid6 import uuid7

from schemas.models.columns import Code, Id, Model, Short


class InboxEntry(Model):
    """An event that was answered, and its answer. The primary key is what makes a scan happen once."""

    __tablename__ = "inbox"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the event's canonical JSON."""
    station: Mapped[Code]
    answered_at: Mapped[datetime] = mapped_column(index=True)
    outcome: Mapped[Code]
    reply: Mapped[str] = mapped_column(Text)
    """The reply's JSON, sent again byte for byte."""


class OutboxEntry(Model):
    """A message that a commit promised. The row goes when the broker has it."""

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    """UUIDv7: made before the insert, and in the order of the promises."""
    queue: Mapped[Short]
    task: Mapped[Short | None]
    """Task name, when it is an order to a worker; `None` for a plain message to a station."""
    body: Mapped[str] = mapped_column(Text)
    """JSON: the plain message, or the task's one argument."""
    event_id: Mapped[UUID | None]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime] = mapped_column(index=True)
    """The sweep leaves it alone until then: its own worker is just publishing it, or the last try failed."""
    attempts: Mapped[int] = mapped_column(default=0)


class QuarantinedMessage(Model):
    """A message that could not be believed or read, kept with the reason."""

    __tablename__ = "quarantine"

    id: Mapped[Id]
    received_at: Mapped[datetime] = mapped_column(index=True)
    queue: Mapped[Short]
    reason: Mapped[Code]
    """`bad_signature`, `unknown_station`, `unknown_version`, `bad_schema`, `other_payload`, ..."""
    detail: Mapped[str] = mapped_column(Text, default="")
    station: Mapped[str | None] = mapped_column(String(100))
    event_id: Mapped[str | None] = mapped_column(String(100))
    reply_to: Mapped[str | None] = mapped_column(String(100))
    body: Mapped[str] = mapped_column(Text)
    """The message as it came, at most 64 KiB."""
