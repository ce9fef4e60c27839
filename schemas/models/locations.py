# SPDX-License-Identifier: Apache-2.0
"""Where things happen: branches, their stations, their printers."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import Code, Id, Model, Short


class Branch(Model):
    """A branch of the borrowing library."""

    __tablename__ = "branches"

    id: Mapped[Id]
    code: Mapped[Code] = mapped_column(unique=True)
    name: Mapped[Short]
    library: Mapped[Short]
    """Name of the library the branch belongs to, as it stands on the slip under FROM."""
    address: Mapped[list[str]] = mapped_column(default=list)


class Printer(Model):
    """A printer at a branch. What it is and where stands in its URI."""

    __tablename__ = "printers"

    id: Mapped[Id]
    code: Mapped[Code] = mapped_column(unique=True)
    branch_id: Mapped[int] = mapped_column(ForeignKey("branches.id"), index=True)
    uri: Mapped[str] = mapped_column(String(500))
    media: Mapped[Code] = mapped_column(default="label-4x6")
    is_default: Mapped[bool] = mapped_column(default=False)
    """Takes the branch's slips when the station names no other."""
    on_hold: Mapped[bool] = mapped_column(default=False)
    fallback_id: Mapped[int | None] = mapped_column(ForeignKey("printers.id"))
    """Takes its slips while it is on hold or away."""
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """How often in a row it took no slip."""
    retry_at: Mapped[datetime | None]
    """Until then it counts as away, and its slips wait together."""
    trouble: Mapped[str | None] = mapped_column(Text)
    """Why it took no slip the last time, in words."""


class Station(Model):
    """A desk with a scanner. Its key signs its events."""

    __tablename__ = "stations"

    id: Mapped[Id]
    code: Mapped[Code] = mapped_column(unique=True)
    branch_id: Mapped[int] = mapped_column(ForeignKey("branches.id"), index=True)
    key: Mapped[Short]
    """The shared secret, text."""
    active: Mapped[bool] = mapped_column(default=True)
    printer_id: Mapped[int | None] = mapped_column(ForeignKey("printers.id"))
    """Overrides the branch's default printer."""
