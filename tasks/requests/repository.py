# SPDX-License-Identifier: Apache-2.0
"""Lock and read the requests of a batch of events: a fixed number of statements, whatever the size of the batch."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, exists, select, union
from sqlalchemy.orm import Session

from schemas.models import (
    Item,
    ItemBarcode,
    Loan,
    Partner,
    PrintJob,
    Request,
)
from schemas.replies import Destination
from tasks.requests.barcode_lookup import Ambiguous, Found, Match, find_item
from tasks.requests.model import ItemState, OpenLoan, Refused, RequestState


@dataclass(frozen=True)
class RequestDetails:
    """Columns of a request for its slip and its patron link; the rules do not need them."""

    author: str | None
    return_to: tuple[str, ...]
    """Name and address; the return address that the lender gave with the item, if it gave one."""
    damage_note: str | None
    patron_id: int | None
    branch_id: int
    """The branch that owns the request."""
    fee_open: bool


@dataclass
class RequestSet:
    """The requests of a batch of events. A handler replaces a state in `states` after each decision."""

    states: dict[int, RequestState] = field(default_factory=dict)
    """By request id."""
    details: dict[int, RequestDetails] = field(default_factory=dict)
    external_ids: dict[str, int] = field(default_factory=dict)
    items_by_barcode: dict[str, list[tuple[int, int | None]]] = field(default_factory=lambda: defaultdict(list))
    """Barcode to (item id, request id); the request id is `None` for an item of the library itself."""
    barcodes: dict[int, str] = field(default_factory=dict)
    """The first barcode of each item."""
    loan_patrons: dict[int, int] = field(default_factory=dict)
    """Patron link of each open loan that has one."""

    def find_item(self, barcode: str, patron_card_pattern: str | None) -> Found | Ambiguous | Refused:
        """The item that `barcode` identifies, or why it identifies none."""
        return find_item(
            self.matches(barcode),
            barcode,
            is_external_id=barcode in self.external_ids,
            patron_card_pattern=patron_card_pattern,
        )

    def find_request(self, external_id: str) -> RequestState | None:
        """The request with the external identifier."""
        request_id = self.external_ids.get(external_id)
        return None if request_id is None else self.states[request_id]

    def matches(self, barcode: str) -> list[Match]:
        """The items that have `barcode`."""
        return [
            Match(item_id, None if request_id is None else self.states[request_id])
            for item_id, request_id in self.items_by_barcode.get(barcode, ())
        ]


def _any_of(name: str) -> BindParameter[Any]:
    """A parameter that takes any number of values."""
    return bindparam(name, expanding=True)


# Built once: building a statement costs as much as sending it.
_HAS_BARCODE = ItemBarcode.barcode.in_(_any_of("barcodes"))
_LOCK_REQUESTS = (
    select(
        Request.id,
        Request.external_id,
        Request.title,
        Request.author,
        Request.status,
        Request.patron_id,
        Request.branch_id,
        Request.return_address,
        Request.damage_note,
        Request.returned_at,
        Request.returned_by,
        Partner.name,
        Partner.code,
        Partner.address,
        Partner.delivery_code,
        exists()
        .where(Loan.item_id == Item.id, Item.request_id == Request.id, Loan.fee_open)
        .correlate(Request)
        .label("fee_open"),
    )
    .join(Partner, Partner.id == Request.partner_id)
    .where(
        Request.id.in_(
            union(
                select(Item.request_id)
                .join(ItemBarcode, ItemBarcode.item_id == Item.id)
                .where(_HAS_BARCODE, Item.request_id.is_not(None)),
                select(Request.id).where(Request.external_id.in_(_any_of("external_ids"))),
            )
            .subquery()
            .select()
        )
    )
    .order_by(Request.id)
    .with_for_update(of=Request)
)
_READ_ITEMS = (
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
    .where(Item.request_id.in_(_any_of("request_ids")))
    .order_by(Item.request_id, Item.position, Item.id)
)
_BARCODES = select(ItemBarcode.id, ItemBarcode.barcode, ItemBarcode.item_id, Item.request_id).join(
    Item, Item.id == ItemBarcode.item_id
)
_READ_BARCODES = union(_BARCODES.where(_HAS_BARCODE), _BARCODES.where(Item.request_id.in_(_any_of("request_ids"))))


def lock_and_read(session: Session, barcodes: Collection[str], external_ids: Collection[str]) -> RequestSet:
    """Lock each request that has one of the barcodes or identifiers, in order of id, then read it.

    Items, loans and barcodes are read after the lock is held, so they cannot be older than the lock.
    """
    requests = RequestSet()
    _lock_requests(session, requests, barcodes, external_ids)
    _read_items(session, requests)
    _read_barcodes(session, requests, barcodes)
    return requests


def _lock_requests(
    session: Session, requests: RequestSet, barcodes: Collection[str], external_ids: Collection[str]
) -> None:
    rows = session.execute(_LOCK_REQUESTS, {"barcodes": list(barcodes), "external_ids": [*external_ids, *barcodes]})
    for row in rows:
        own_address = bool(row.return_address)
        requests.external_ids[row.external_id] = row.id
        requests.states[row.id] = RequestState(
            request_id=row.id,
            external_id=row.external_id,
            title=row.title,
            status=row.status,
            destination=Destination(
                name=row.name,
                code=row.code,
                # The delivery code belongs to the default address, not to the one given with this item.
                delivery_code=None if own_address else row.delivery_code,
            ),
            items=(),
            own_return_address=own_address,
            returned_at=row.returned_at,
            returned_by=row.returned_by,
        )
        requests.details[row.id] = RequestDetails(
            author=row.author,
            return_to=tuple(row.return_address) if own_address else (row.name, *row.address),
            damage_note=row.damage_note,
            patron_id=row.patron_id,
            branch_id=row.branch_id,
            fee_open=row.fee_open,
        )


def _read_items(session: Session, requests: RequestSet) -> None:
    rows = session.execute(_READ_ITEMS, {"request_ids": list(requests.states)})
    items: dict[int, list[ItemState]] = defaultdict(list)
    for row in rows:
        loan = None
        if row.loan_id is not None:
            requester = requests.details[row.request_id].patron_id
            loan = OpenLoan(
                loan_id=row.loan_id,
                loaned_at=row.loaned_at,
                other_patron=None not in (requester, row.patron_id) and requester != row.patron_id,
                claimed_returned=row.claimed_returned,
            )
            if row.patron_id is not None:
                requests.loan_patrons[row.loan_id] = row.patron_id
        items[row.request_id].append(ItemState(row.id, row.position, loan, row.returned_at, row.returned_by))
    for request_id, of_request in items.items():
        requests.states[request_id] = replace(requests.states[request_id], items=tuple(of_request))


def _read_barcodes(session: Session, requests: RequestSet, barcodes: Collection[str]) -> None:
    wanted = set(barcodes)
    rows = session.execute(_READ_BARCODES, {"barcodes": list(barcodes), "request_ids": list(requests.states)})
    for row in sorted(rows, key=lambda row: row.id):
        requests.barcodes.setdefault(row.item_id, row.barcode)
        if row.barcode in wanted and (row.request_id is None or row.request_id in requests.states):
            requests.items_by_barcode[row.barcode].append((row.item_id, row.request_id))


def slips_of(session: Session, item_ids: Collection[int]) -> dict[int, UUID]:
    """The newest print job of each item."""
    rows = session.execute(
        select(PrintJob.item_id, PrintJob.id).where(PrintJob.item_id.in_(item_ids)).order_by(PrintJob.created_at)
    )
    return {row.item_id: row.id for row in rows}
