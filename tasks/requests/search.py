# SPDX-License-Identifier: Apache-2.0
"""Read-only search for requests: by status, date and words, or by what identifies one. It selects no patron column."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, exists, false, func, select
from sqlalchemy.orm import InstrumentedAttribute

from schemas.barcodes import BarcodeRefusedError, ScannerFormat, read_line
from schemas.isbn import find_isbn
from schemas.models import Branch, Item, ItemBarcode, Loan, Partner, Request
from schemas.request_status import CLOSED, RequestStatus
from schemas.title_search import restrict_to_words, split_words
from tasks.requests.queries import select_requests, summary

MAX_IDENTIFIED: Final = 100
"""Most requests that one barcode or ISBN identifies."""

MAX_FOUND: Final = 500
"""Most requests that a search box finds."""


MAX_COUNTED: Final = 100_000
"""Largest total that is counted: a count of millions would take longer than the page."""


@dataclass(frozen=True)
class Filter:
    """The requests to list."""

    status: RequestStatus | None = None
    partner: str | None = None
    branch: str | None = None
    overdue: bool = False
    words: str | None = None
    """Title and author together have a word that begins with each of these."""
    created_from: datetime | None = None
    created_before: datetime | None = None
    ids: Sequence[int] | None = None
    """Only requests with these internal ids."""
    after: int | None = None
    """Internal id of the previous page's last request."""
    limit: int = 50


@dataclass(frozen=True)
class Page:
    """Some requests, newest first, and where the next page begins."""

    requests: list[dict[str, Any]]
    total: int | None
    """Number of matching requests on all pages; `None` if it is above `MAX_COUNTED`."""
    next_after: int | None
    """`None` when this was the last page."""


def page(connection: Connection, wanted: Filter, now: datetime) -> Page:
    """The requests that match `wanted`. Overdue: an open loan was due before `now`."""
    matching, order = _matching(connection, wanted, now)
    counted = connection.execute(
        select(func.count()).select_from(matching.limit(MAX_COUNTED + 1).subquery())
    ).scalar_one()
    newest = matching.order_by(order.desc()).limit(wanted.limit + 1)
    if wanted.after is not None:
        newest = newest.where(order < wanted.after)
    ids = list(connection.scalars(newest))
    shown = ids[: wanted.limit]
    rows = connection.execute(select_requests().where(Request.id.in_(shown)).order_by(Request.id.desc())).all()
    barcodes = _barcodes(connection, shown)
    return Page(
        [summary(row) | {"barcodes": barcodes[row.id]} for row in rows],
        counted if counted <= MAX_COUNTED else None,
        shown[-1] if len(ids) > wanted.limit else None,
    )


def _matching(
    connection: Connection, wanted: Filter, now: datetime
) -> tuple[Select[Any], ColumnElement[int] | InstrumentedAttribute[int]]:
    """Select the ids of the matching requests; and the column to order them by."""
    requests: Select[Any] = select(Request.id)
    order: ColumnElement[int] | InstrumentedAttribute[int] = Request.id
    if wanted.ids is not None:
        requests = requests.where(Request.id.in_(wanted.ids))
    if wanted.status is not None:
        requests = requests.where(Request.status == wanted.status)
    if wanted.partner is not None:
        requests = requests.join(Partner, Partner.id == Request.partner_id).where(Partner.code == wanted.partner)
    if wanted.branch is not None:
        requests = requests.join(Branch, Branch.id == Request.branch_id).where(Branch.code == wanted.branch)
    if wanted.created_from is not None:
        requests = requests.where(Request.created_at >= wanted.created_from)
    if wanted.created_before is not None:
        requests = requests.where(Request.created_at < wanted.created_before)
    if wanted.words is not None:
        words = split_words(wanted.words)
        if words:
            requests, order = restrict_to_words(requests, connection, words)
        else:
            requests = requests.where(false())
    if wanted.overdue:
        requests = requests.where(
            exists()
            .where(Item.request_id == Request.id, Loan.item_id == Item.id)
            .where(Loan.discharged_at.is_(None), Loan.due_at < now)
        )
    return requests, order


def _barcodes(connection: Connection, request_ids: list[int]) -> dict[int, list[str]]:
    """Barcodes of all items of each request, in the order of the items."""
    found: dict[int, list[str]] = defaultdict(list)
    for row in connection.execute(
        select(Item.request_id, ItemBarcode.barcode)
        .join(Item, Item.id == ItemBarcode.item_id)
        .where(Item.request_id.in_(request_ids))
        .order_by(Item.position, ItemBarcode.id)
    ):
        found[row.request_id].append(row.barcode)
    return found


@dataclass(frozen=True)
class Identified:
    """A request that a text identifies."""

    id: int
    external_id: str
    is_open: bool


def identify(connection: Connection, text: str) -> list[Identified]:
    """The requests whose external identifier, item's barcode or ISBN is `text`: open ones first, newest first.

    The first of the three that matches counts.
    """
    found = select(Request.id, Request.external_id, Request.status)
    by_barcode = select(Item.request_id).join(ItemBarcode, ItemBarcode.item_id == Item.id)
    text = "".join(character for character in text if character.isprintable()).strip()
    isbn = find_isbn(text)
    for condition in (
        Request.external_id == text,
        Request.id.in_(by_barcode.where(ItemBarcode.barcode == _cleaned(text))),
        Request.isbn == isbn if isbn else None,
    ):
        if condition is None:
            continue
        rows = connection.execute(found.where(condition).order_by(Request.id.desc()).limit(MAX_IDENTIFIED)).all()
        if rows:
            each = [Identified(row.id, row.external_id, row.status not in CLOSED) for row in rows]
            return sorted(each, key=lambda request: not request.is_open)
    return []


def _cleaned(text: str) -> str | None:
    try:
        return read_line(text, ScannerFormat())
    except BarcodeRefusedError:
        return None


def find_requests(connection: Connection, text: str) -> list[int]:
    """Internal ids of the requests that a search box finds, newest first, at most `MAX_FOUND`.

    The first of these that matches counts: external identifier, barcode or ISBN; the partner's code; words of title and
    author; words of the partner's name. Unknown words find nothing.
    """
    identified = identify(connection, text)
    if identified:
        return [request.id for request in identified]
    found = select(Request.id)
    words = split_words(text)
    if not words:
        return []
    of_partner = select(Partner.id).where(func.lower(Partner.code) == text.strip().lower())
    of_name = select(Partner.id)
    for word in words:
        of_name = of_name.where(func.lower(Partner.name).contains(word.lower(), autoescape=True))
    for requests, order in (
        (found.where(Request.partner_id.in_(of_partner)), Request.id),
        restrict_to_words(found, connection, words),
        (found.where(Request.partner_id.in_(of_name)), Request.id),
    ):
        ids = list(connection.scalars(requests.order_by(order.desc()).limit(MAX_FOUND)))
        if ids:
            return ids
    return []


def external_ids(connection: Connection, requests: Sequence[int]) -> dict[int, str]:
    """The external identifiers of requests by their internal ids, newest first."""
    found = select(Request.id, Request.external_id).where(Request.id.in_(requests)).order_by(Request.id.desc())
    return {row.id: row.external_id for row in connection.execute(found)}
