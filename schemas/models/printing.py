# SPDX-License-Identifier: Apache-2.0
"""Print jobs and every attempt at one."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import BigId, Code, Id, Model, Short
from schemas.print_jobs import PrintState


class PrintJob(Model):
    """One slip on its way to paper. Unique per item, Return and copy."""

    __tablename__ = "print_jobs"
    __table_args__ = (
        Index("uq_print_jobs_item_id_event_id_copy", "item_id", "event_id", "copy_number", unique=True),
        Index("ix_print_jobs_state_next_attempt_at", "state", "next_attempt_at"),
        Index("ix_print_jobs_printer_id_state", "printer_id", "state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("requests.id"), index=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    event_id: Mapped[UUID] = mapped_column(index=True)
    """The Return that wants the slip."""
    copy_number: Mapped[int] = mapped_column(default=1)
    reprint_of: Mapped[UUID | None] = mapped_column(ForeignKey("print_jobs.id"))
    reason: Mapped[str | None] = mapped_column(String(500))
    actor: Mapped[str | None] = mapped_column(String(100))
    branch: Mapped[Code]
    """Branch whose print workers do it."""
    printer_id: Mapped[int | None] = mapped_column(ForeignKey("printers.id"), index=True)
    """`None` when the branch has no printer yet: the job is held."""
    station: Mapped[Code | None]
    """Station that hears of it."""
    content: Mapped[dict[str, Any]]
    """The slip, as `SlipContent`, frozen at the Return."""
    state: Mapped[PrintState]
    state_since: Mapped[datetime]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    spool_id: Mapped[Short | None]
    """What the printer called the job, or the file it became."""
    last_error: Mapped[str | None] = mapped_column(Text)
    voided_at: Mapped[datetime | None]
    """When its Return was undone: the slip must not go out, or must come out of the book again."""


class PrintAttempt(Model):
    """One try at a print job: when, where, how it ended."""

    __tablename__ = "print_attempts"

    id: Mapped[Id]
    job_id: Mapped[UUID] = mapped_column(ForeignKey("print_jobs.id"), index=True)
    printer_id: Mapped[int | None] = mapped_column(BigId)
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[PrintState | None]
    error: Mapped[str | None] = mapped_column(Text)
