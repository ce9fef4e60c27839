# SPDX-License-Identifier: Apache-2.0
"""Inbox of processed events, outbox of messages to publish, quarantine."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, Text, text, true
from sqlalchemy.orm import Mapped, mapped_column
from uuid6 import uuid7

from schemas.models.columns import Code, Id, Model, Short


class InboxEntry(Model):
    """A processed event and its reply. The primary key guarantees that an event is processed once."""

    __tablename__ = "inbox"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the event's canonical JSON. Empty after its barcode was erased: a hash without a key permits guesses."""
    station: Mapped[Code]
    answered_at: Mapped[datetime] = mapped_column(index=True)
    outcome: Mapped[Code]
    reply: Mapped[str] = mapped_column(Text)
    """The reply's JSON as it was sent, until its content is erased. A resent event gets it again, signed with the key of
    that sending."""
    barcode_digest: Mapped[str | None] = mapped_column(String(64))
    """Keyed hash of an erased barcode that no item had (`tasks.privacy.digest`); equal for equal barcodes."""


class OutboxEntry(Model):
    """A message that a commit enqueued. The row is deleted when the broker has accepted the message."""

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    """UUIDv7: generated before the insert, in the order of enqueuing."""
    queue: Mapped[Short]
    task: Mapped[Short | None]
    """Name of the task for a task message; `None` for a plain message to a station."""
    body: Mapped[str] = mapped_column(Text)
    """JSON: the plain message, or the only argument of the task."""
    event_id: Mapped[UUID | None]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime] = mapped_column(index=True)
    """Time before which the sweep ignores it: its worker is publishing it, or the last attempt failed."""
    attempts: Mapped[int] = mapped_column(default=0)


class QuarantinedMessage(Model):
    """A rejected message or a dead letter with its reason, and the decision about it."""

    __tablename__ = "quarantine"
    __table_args__ = (
        Index(
            "ix_quarantine_content", "id", "size",
            postgresql_where=text("erased_at IS NULL"), sqlite_where=text("erased_at IS NULL"),
        ),
    )  # fmt: skip

    id: Mapped[Id]
    received_at: Mapped[datetime] = mapped_column(index=True)
    queue: Mapped[Short]
    reason: Mapped[Code]
    """`bad_signature`, `unknown_station`, `unknown_version`, `bad_schema`, `other_payload`, `malformed`, ..."""
    detail: Mapped[str] = mapped_column(Text, default="")
    station: Mapped[str | None] = mapped_column(String(100))
    event_id: Mapped[str | None] = mapped_column(String(100), index=True)
    """The event id; the task id for a message that is not an event."""
    reply_to: Mapped[str | None] = mapped_column(String(100))
    body: Mapped[str] = mapped_column(Text)
    """The event's JSON, or the dead letter's body; at most 256 KiB. Empty after it was erased."""
    state: Mapped[Code] = mapped_column(default="kept", server_default="kept")
    """`kept`, `retried`, `settled`, `dropped` or `expired`."""
    task: Mapped[Short | None]
    """Name of its task."""
    envelope: Mapped[str | None] = mapped_column(Text)
    """JSON: headers and properties of a dead letter. `None` for an event, which gets a new envelope."""
    encoding: Mapped[Code] = mapped_column(default="text", server_default="text")
    """`text`, or `base64` for a body that is not text."""
    whole: Mapped[bool] = mapped_column(default=True, server_default=true())
    """False if `body` was cut off."""
    letter: Mapped[str | None] = mapped_column(String(64), unique=True, index=True)
    """Digest of a dead letter: collecting it again finds its row."""
    size: Mapped[int | None]
    """Characters of body and envelope as they were stored; kept after both are erased."""
    digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the stored body, hexadecimal."""
    times: Mapped[int] = mapped_column(default=1, server_default="1")
    """Number of times that this message arrived."""
    last_at: Mapped[datetime | None]
    """Time of its last arrival after the first."""
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[Short | None]
    decided_identified_by: Mapped[Code | None]
    """Means of identification of the operator, for example `account` or `typed`. `None` for a decision of an earlier release."""
    decided_account: Mapped[str | None] = mapped_column(String(100))
    """Account of the operating system that ran the command, if the operator's name was typed."""
    decision_reason: Mapped[str | None] = mapped_column(Text)
    erased_at: Mapped[datetime | None]
    """Time at which its body was erased."""
