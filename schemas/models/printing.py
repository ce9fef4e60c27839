# SPDX-License-Identifier: Apache-2.0
"""Print jobs and their attempts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import BigId, Code, Id, Model, Short
from schemas.print_jobs import PrintState


class PrintJob(Model):
    """One slip to print. Unique by item, Return and copy."""

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
    """Event id of the Return that prints the slip."""
    copy_number: Mapped[int] = mapped_column(default=1)
    reprint_of: Mapped[UUID | None] = mapped_column(ForeignKey("print_jobs.id"))
    reason: Mapped[str | None] = mapped_column(String(500))
    actor: Mapped[str | None] = mapped_column(String(100))
    branch: Mapped[Code]
    """Branch whose print workers handle it."""
    printer_id: Mapped[int | None] = mapped_column(ForeignKey("printers.id"), index=True)
    """`None` while the branch has no printer: the job is held."""
    station: Mapped[Code | None]
    """Station that receives notices about it."""
    content: Mapped[dict[str, Any]]
    """The slip as `SlipContent`, fixed at the Return."""
    state: Mapped[PrintState]
    state_since: Mapped[datetime]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    spool_id: Mapped[Short | None]
    """The printer's name of the job, or the name of the file written."""
    last_error: Mapped[str | None] = mapped_column(Text)
    voided_at: Mapped[datetime | None]
    """Time at which its Return was undone: the slip must not be printed, or must be taken out of the item."""


class PrintAttempt(Model):
    """One attempt at a print job: its times, printer and outcome."""

    __tablename__ = "print_attempts"

    id: Mapped[Id]
    job_id: Mapped[UUID] = mapped_column(ForeignKey("print_jobs.id"), index=True)
    printer_id: Mapped[int | None] = mapped_column(BigId)
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[PrintState | None]
    error: Mapped[str | None] = mapped_column(Text)
