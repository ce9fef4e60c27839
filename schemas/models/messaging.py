# SPDX-License-Identifier: Apache-2.0
"""Messages in and out: the inbox of answered events, the outbox of promises, the quarantine."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String, Text, true
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
    """A message that could not be believed or read, kept with the reason; and what was decided about it."""

    __tablename__ = "quarantine"

    id: Mapped[Id]
    received_at: Mapped[datetime] = mapped_column(index=True)
    queue: Mapped[Short]
    reason: Mapped[Code]
    """`bad_signature`, `unknown_station`, `unknown_version`, `bad_schema`, `other_payload`, `malformed`, ..."""
    detail: Mapped[str] = mapped_column(Text, default="")
    station: Mapped[str | None] = mapped_column(String(100))
    event_id: Mapped[str | None] = mapped_column(String(100), index=True)
    """The event's id; of a message that is no event, its task's."""
    reply_to: Mapped[str | None] = mapped_column(String(100))
    body: Mapped[str] = mapped_column(Text)
    """The event's JSON, or a dead letter's body; at most 256 KiB. Empty once it was erased."""
    state: Mapped[Code] = mapped_column(default="kept", server_default="kept")
    """`kept`, `retried`, `settled`, `dropped` or `expired`."""
    task: Mapped[Short | None]
    """Name of the task that it was for."""
    envelope: Mapped[str | None] = mapped_column(Text)
    """JSON: headers and properties of a dead letter. `None` for an event, whose envelope is made anew."""
    encoding: Mapped[Code] = mapped_column(default="text", server_default="text")
    """`text`, or `base64` for a body that is no text."""
    whole: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Whether `body` is all of it."""
    letter: Mapped[str | None] = mapped_column(String(64), unique=True, index=True)
    """Digest of a dead letter: it is taken from the broker once, however often that is tried."""
    times: Mapped[int] = mapped_column(default=1, server_default="1")
    """How often this very message came."""
    last_at: Mapped[datetime | None]
    """When it came again."""
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[Short | None]
    decision_reason: Mapped[str | None] = mapped_column(Text)
    erased_at: Mapped[datetime | None]
    """When its body was let go of."""
