# SPDX-License-Identifier: Apache-2.0
"""Branches with their stations and printers."""

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
    """Name of the library, as slips show it under FROM."""
    address: Mapped[list[str]] = mapped_column(default=list)
    delivery_code: Mapped[Code | None]
    """Its own code at the courier, as slips show it beside FROM."""
    timezone: Mapped[str | None] = mapped_column(String(64))
    """Name of the IANA time zone in which its due dates end; `None` for that of the machine."""


class Printer(Model):
    """A printer at a branch. Its URI names the driver and the address."""

    __tablename__ = "printers"

    id: Mapped[Id]
    code: Mapped[Code] = mapped_column(unique=True)
    branch_id: Mapped[int] = mapped_column(ForeignKey("branches.id"), index=True)
    uri: Mapped[str] = mapped_column(String(500))
    media: Mapped[Code] = mapped_column(default="label-4x6")
    is_default: Mapped[bool] = mapped_column(default=False)
    """Prints the branch's slips, unless the station has another printer."""
    on_hold: Mapped[bool] = mapped_column(default=False)
    fallback_id: Mapped[int | None] = mapped_column(ForeignKey("printers.id"))
    """Printer for its slips while it is on hold or unavailable."""
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Failed attempts in a row."""
    retry_at: Mapped[datetime | None]
    """End of the pause after a failure; until then its slips wait together."""
    trouble: Mapped[str | None] = mapped_column(Text)
    """Cause of the last failure, as text for operators."""


class Station(Model):
    """A station: a place with a barcode scanner. Its key signs its events."""

    __tablename__ = "stations"

    id: Mapped[Id]
    code: Mapped[Code] = mapped_column(unique=True)
    branch_id: Mapped[int] = mapped_column(ForeignKey("branches.id"), index=True)
    key: Mapped[Short]
    """The shared secret, as text."""
    key_since: Mapped[datetime | None]
    """Time since which the key is valid; `None` for a key from before this column."""
    previous_key: Mapped[Short | None]
    """The key before the last rotation: valid until `previous_key_until`, then erased."""
    previous_key_until: Mapped[datetime | None]
    """End of the overlap of both keys."""
    active: Mapped[bool] = mapped_column(default=True)
    printer_id: Mapped[int | None] = mapped_column(ForeignKey("printers.id"))
    """Overrides the branch's default printer."""
