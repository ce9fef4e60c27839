# SPDX-License-Identifier: Apache-2.0
"""Partners, patrons, and requests with their items, barcodes, loans and history."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from schemas.models.columns import BigId, Code, Id, Model, Short
from schemas.models.locations import Branch
from schemas.request_status import RequestStatus


class Partner(Model):
    """A lending library."""

    __tablename__ = "partners"

    id: Mapped[Id]
    code: Mapped[Code] = mapped_column(unique=True)
    """Identifier of the library among partners, usually its ISIL (ISO 15511)."""
    name: Mapped[Short]
    address: Mapped[list[str]] = mapped_column(default=list)
    delivery_code: Mapped[str | None] = mapped_column(String(40))


class Patron(Model):
    """A patron. Only requests and loans refer to a patron, and these links are severed at discharge."""

    __tablename__ = "patrons"

    id: Mapped[Id]
    number: Mapped[Short] = mapped_column(unique=True)
    name: Mapped[Short]


class Request(Model):
    """A borrowing request: one loan from a partner, of one or more items."""

    __tablename__ = "requests"

    id: Mapped[Id]
    external_id: Mapped[str] = mapped_column(String(100), unique=True)
    partner_id: Mapped[int] = mapped_column(ForeignKey("partners.id"), index=True)
    branch_id: Mapped[int] = mapped_column(ForeignKey("branches.id"), index=True)
    """The branch that owns the request."""
    status: Mapped[RequestStatus] = mapped_column(index=True)
    title: Mapped[str] = mapped_column(String(1000))
    author: Mapped[str | None] = mapped_column(String(500))
    isbn: Mapped[str | None] = mapped_column(String(13), index=True)
    """13 digits, whichever form the import had."""
    patron_id: Mapped[int | None] = mapped_column(ForeignKey("patrons.id"), index=True)
    return_address: Mapped[list[str] | None]
    """Return address that the lender gave with this item, in place of the partner's. Its first line is the name."""
    damage_note: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime] = mapped_column(index=True)
    returned_at: Mapped[datetime | None]
    returned_by: Mapped[str | None] = mapped_column(String(40))
    """Code of the station of the Return."""

    partner: Mapped[Partner] = relationship(lazy="raise")
    branch: Mapped[Branch] = relationship(lazy="raise")
    items: Mapped[list["Item"]] = relationship(lazy="raise", order_by="Item.position", back_populates="request")


class Item(Model):
    """The physical item. Without a request it belongs to the library and is not an interlibrary loan."""

    __tablename__ = "items"

    id: Mapped[Id]
    request_id: Mapped[int | None] = mapped_column(ForeignKey("requests.id"), index=True)
    position: Mapped[int] = mapped_column(default=1)
    """1 for the first item of its request."""
    description: Mapped[str | None] = mapped_column(String(500))
    """For example "vol. 2"."""
    returned_at: Mapped[datetime | None]
    """Time at which it was checked in for its return to the partner."""
    returned_by: Mapped[str | None] = mapped_column(String(40))

    request: Mapped[Request | None] = relationship(lazy="raise", back_populates="items")
    barcodes: Mapped[list["ItemBarcode"]] = relationship(lazy="raise", back_populates="item")
    loans: Mapped[list["Loan"]] = relationship(lazy="raise", order_by="Loan.loaned_at", back_populates="item")


class ItemBarcode(Model):
    """A barcode of an item: the lender's own, or a temporary one. Not unique, because barcodes are reused."""

    __tablename__ = "item_barcodes"
    __table_args__ = (Index("uq_item_barcodes_item_id_barcode", "item_id", "barcode", unique=True),)

    id: Mapped[Id]
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    barcode: Mapped[str] = mapped_column(String(64), index=True)
    temporary: Mapped[bool] = mapped_column(default=False)

    item: Mapped[Item] = relationship(lazy="raise", back_populates="barcodes")


class Loan(Model):
    """A loan of an item to a patron; it ends at discharge. An item has at most one open loan."""

    __tablename__ = "loans"
    __table_args__ = (
        Index(
            "uq_loans_open_item",
            "item_id",
            unique=True,
            sqlite_where=text("discharged_at IS NULL"),
            postgresql_where=text("discharged_at IS NULL"),
        ),
        Index("ix_loans_item_id", "item_id"),
    )

    id: Mapped[Id]
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    patron_id: Mapped[int | None] = mapped_column(ForeignKey("patrons.id"), index=True)
    loaned_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    discharged_at: Mapped[datetime | None]
    fee_open: Mapped[bool] = mapped_column(default=False)
    """A fee or claim is open: the link to the patron stays until it is settled."""
    claimed_returned: Mapped[bool] = mapped_column(default=False)

    item: Mapped[Item] = relationship(lazy="raise", back_populates="loans")


class UndoPatronLink(Model):
    """The patron link of a discharged loan or request: kept here alone for the undo window, then purged."""

    __tablename__ = "set_aside_links"

    id: Mapped[Id]
    event_id: Mapped[UUID] = mapped_column(index=True)
    """Event id of the Return that severed it."""
    request_id: Mapped[int] = mapped_column(ForeignKey("requests.id"), index=True)
    loan_id: Mapped[int | None] = mapped_column(ForeignKey("loans.id"))
    """The discharged loan, if the link was that of a loan; `None` for the link of the request."""
    patron_id: Mapped[int] = mapped_column(ForeignKey("patrons.id"))
    purge_after: Mapped[datetime] = mapped_column(index=True)


class RequestEvent(Model):
    """An entry of a request's history: station, time, kind. It never contains a patron."""

    __tablename__ = "request_events"
    __table_args__ = (Index("ix_request_events_request_id_id", "request_id", "id"),)

    id: Mapped[Id]
    request_id: Mapped[int] = mapped_column(ForeignKey("requests.id"))
    item_id: Mapped[int | None] = mapped_column(BigId)
    event_id: Mapped[UUID | None] = mapped_column(index=True)
    kind: Mapped[Code]
    """A verb in the past, for example `returned`, `item_checked_in`, `received` or `undone`."""
    status_before: Mapped[RequestStatus | None]
    status_after: Mapped[RequestStatus | None]
    at: Mapped[datetime]
    """Time of the event at the station."""
    recorded_at: Mapped[datetime]
    branch: Mapped[Code | None]
    station: Mapped[Code | None]
    note: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
