# SPDX-License-Identifier: Apache-2.0
"""Reading what a batch of events is about: a fixed number of statements, whatever the batch's size."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import CompoundSelect, exists, select, union
from sqlalchemy.orm import Session, aliased

from schemas.models import (
    Branch,
    InboxEntry,
    Item,
    ItemBarcode,
    Loan,
    Partner,
    Printer,
    PrintJob,
    Request,
    Station,
)
from schemas.replies import Destination
from tasks.returns.resolution import Match
from tasks.returns.states import ItemState, OpenLoan, RequestState


@dataclass(frozen=True)
class Desk:
    """A station as the worker knows it."""

    code: str
    key: str
    branch: str
    sent_from: tuple[str, ...]
    """Library, branch, and the branch's address: FROM on the slip."""
    printer_id: int | None


@dataclass(frozen=True)
class Paperwork:
    """What the rules need not know of a request: for its slip, and for severing its patron link."""

    author: str | None
    return_to: tuple[str, ...]
    """Name and address; the lender's own return address if it gave one."""
    damage_note: str | None
    patron_id: int | None
    fee_open: bool


@dataclass
class Shelf:
    """All that a batch of events is about, as it is now; `states` moves on with each decision."""

    states: dict[int, RequestState] = field(default_factory=dict)
    """By request id."""
    paperwork: dict[int, Paperwork] = field(default_factory=dict)
    external_ids: dict[str, int] = field(default_factory=dict)
    bearers: dict[str, list[tuple[int, int | None]]] = field(default_factory=lambda: defaultdict(list))
    """Barcode to (item id, request id or None)."""
    barcodes: dict[int, str] = field(default_factory=dict)
    """A barcode for each item, the first it was given."""
    loan_patrons: dict[int, int] = field(default_factory=dict)
    """Patron link of each open loan that has one."""

    def matches(self, barcode: str) -> list[Match]:
        """The items that bear `barcode`."""
        return [
            Match(item_id, None if request_id is None else self.states[request_id])
            for item_id, request_id in self.bearers.get(barcode, ())
        ]


def known_answers(session: Session, event_ids: Collection[UUID]) -> dict[UUID, tuple[str, str]]:
    """Fingerprint and stored reply of those events that were answered before."""
    rows = session.execute(
        select(InboxEntry.event_id, InboxEntry.fingerprint, InboxEntry.reply).where(InboxEntry.event_id.in_(event_ids))
    )
    return {row.event_id: (row.fingerprint, row.reply) for row in rows}


def desks(session: Session, codes: Collection[str]) -> dict[str, Desk]:
    """The active stations among `codes`, each with the printer that takes its slips."""
    default = aliased(Printer)
    rows = session.execute(
        select(
            Station.code,
            Station.key,
            Branch.code.label("branch"),
            Branch.library,
            Branch.name,
            Branch.address,
            Station.printer_id,
            default.id.label("default_printer_id"),
        )
        .join(Branch, Branch.id == Station.branch_id)
        .outerjoin(default, (default.branch_id == Branch.id) & default.is_default)
        .where(Station.code.in_(codes), Station.active)
        .order_by(default.id.desc())
    )
    return {
        row.code: Desk(
            code=row.code,
            key=row.key,
            branch=row.branch,
            sent_from=(row.library, row.name, *row.address),
            printer_id=row.printer_id or row.default_printer_id,
        )
        for row in rows
    }


def lock_and_read(session: Session, barcodes: Collection[str], external_ids: Collection[str]) -> Shelf:
    """Lock every request that the barcodes or identifiers can mean, in order of id, then read it as it is.

    The rows that hang on a request are read after its lock is had, so they cannot be older than the lock.
    """
    shelf = Shelf()
    _lock_requests(session, shelf, barcodes, external_ids)
    _read_items(session, shelf)
    _read_barcodes(session, shelf, barcodes)
    return shelf


def _lock_requests(session: Session, shelf: Shelf, barcodes: Collection[str], external_ids: Collection[str]) -> None:
    meant: CompoundSelect[Any] = union(
        select(Item.request_id)
        .join(ItemBarcode, ItemBarcode.item_id == Item.id)
        .where(ItemBarcode.barcode.in_(barcodes), Item.request_id.is_not(None)),
        select(Request.id).where(Request.external_id.in_([*external_ids, *barcodes])),
    )
    fee_open = exists().where(Loan.item_id == Item.id, Item.request_id == Request.id, Loan.fee_open).correlate(Request)
    rows = session.execute(
        select(
            Request.id,
            Request.external_id,
            Request.title,
            Request.author,
            Request.status,
            Request.patron_id,
            Request.return_address,
            Request.damage_note,
            Request.returned_at,
            Request.returned_by,
            Partner.name,
            Partner.code,
            Partner.address,
            Partner.delivery_code,
            fee_open.label("fee_open"),
        )
        .join(Partner, Partner.id == Request.partner_id)
        .where(Request.id.in_(meant.subquery().select()))
        .order_by(Request.id)
        .with_for_update(of=Request)
    )
    for row in rows:
        own_address = bool(row.return_address)
        shelf.external_ids[row.external_id] = row.id
        shelf.states[row.id] = RequestState(
            request_id=row.id,
            external_id=row.external_id,
            title=row.title,
            status=row.status,
            destination=Destination(
                name=row.name,
                code=row.code,
                # The courier's code leads to the default address, not to the one given with this item.
                delivery_code=None if own_address else row.delivery_code,
            ),
            items=(),
            own_return_address=own_address,
            returned_at=row.returned_at,
            returned_by=row.returned_by,
        )
        shelf.paperwork[row.id] = Paperwork(
            author=row.author,
            return_to=tuple(row.return_address) if own_address else (row.name, *row.address),
            damage_note=row.damage_note,
            patron_id=row.patron_id,
            fee_open=row.fee_open,
        )


def _read_items(session: Session, shelf: Shelf) -> None:
    rows = session.execute(
        select(
            Item.id,
            Item.request_id,
            Item.position,
            Item.returned_at,
            Item.returned_by,
            Loan.id.label("loan_id"),
            Loan.loaned_at,
            Loan.patron_id,
            Loan.claimed_returned,
        )
        .outerjoin(Loan, (Loan.item_id == Item.id) & Loan.discharged_at.is_(None))
        .where(Item.request_id.in_(shelf.states))
        .order_by(Item.request_id, Item.position, Item.id)
    )
    items: dict[int, list[ItemState]] = defaultdict(list)
    for row in rows:
        loan = None
        if row.loan_id is not None:
            requester = shelf.paperwork[row.request_id].patron_id
            loan = OpenLoan(
                loan_id=row.loan_id,
                loaned_at=row.loaned_at,
                other_patron=None not in (requester, row.patron_id) and requester != row.patron_id,
                claimed_returned=row.claimed_returned,
            )
            if row.patron_id is not None:
                shelf.loan_patrons[row.loan_id] = row.patron_id
        items[row.request_id].append(ItemState(row.id, row.position, loan, row.returned_at, row.returned_by))
    for request_id, of_request in items.items():
        shelf.states[request_id] = replace(shelf.states[request_id], items=tuple(of_request))


def _read_barcodes(session: Session, shelf: Shelf, barcodes: Collection[str]) -> None:
    columns = (ItemBarcode.id, ItemBarcode.barcode, ItemBarcode.item_id, Item.request_id)
    joined = select(*columns).join(Item, Item.id == ItemBarcode.item_id)
    wanted = set(barcodes)
    rows = session.execute(
        union(joined.where(ItemBarcode.barcode.in_(barcodes)), joined.where(Item.request_id.in_(shelf.states)))
    )
    for row in sorted(rows, key=lambda row: row.id):
        shelf.barcodes.setdefault(row.item_id, row.barcode)
        if row.barcode in wanted and (row.request_id is None or row.request_id in shelf.states):
            shelf.bearers[row.barcode].append((row.item_id, row.request_id))


def slips_of(session: Session, item_ids: Collection[int]) -> dict[int, UUID]:
    """The newest print job of each item, to offer its reprint."""
    rows = session.execute(
        select(PrintJob.item_id, PrintJob.id).where(PrintJob.item_id.in_(item_ids)).order_by(PrintJob.created_at)
    )
    return {row.item_id: row.id for row in rows}
