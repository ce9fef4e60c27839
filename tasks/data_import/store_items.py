# SPDX-License-Identifier: Apache-2.0
"""Store rows of items with their barcodes. A stored barcode that a row does not have stays."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from schemas.models import Item, ItemBarcode, Request, table
from schemas.request_status import CLOSED, RequestStatus
from tasks.data_import.batches import batches
from tasks.data_import.item_matching import KnownItem, NewItem, Unmatched, match_item
from tasks.data_import.outcome import Note, Outcome, RowResult, refused, unchanged
from tasks.data_import.past_events import past_events, removed_barcodes
from tasks.data_import.precedence import note_of_closed
from tasks.data_import.row_models import ItemRow, Row
from tasks.data_import.upsert import StoreContext, missing_columns, unknown_reference

VALUES_PER_QUERY: Final = 10_000
"""A batch may have more barcodes than SQLite accepts as values of one query."""


@dataclass
class _Batch:
    """The stored items of a batch of rows. Rows add items, barcodes and descriptions as they are decided."""

    requests: dict[str, Any]
    """By external identifier: id and status."""
    closed_here: dict[int, RequestStatus]
    """Requests that an event of this system closed, with their status."""
    of_request: dict[int, list[KnownItem]]
    own: dict[str, KnownItem]
    """Items that the library owns, by barcode."""
    added: list[KnownItem] = field(default_factory=list)
    barcodes: list[tuple[KnownItem, str, bool]] = field(default_factory=list)
    described: dict[int, str | None] = field(default_factory=dict)


def store_items(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert items of requests by position or barcode, and the library's own items by barcode."""
    item_rows = [cast("ItemRow", row) for row in rows]
    batch = _read(item_rows, session, context)
    decided = [_decide(row, batch) for row in item_rows]
    _write(session, batch)
    return [RowResult(Outcome.ADDED, item_id=item.item_id) if item is not None else result for result, item in decided]


def _read(rows: Sequence[ItemRow], session: Session, context: StoreContext) -> _Batch:
    """Lock the requests of a batch in order of id, as events do, then read their items."""
    requests = {
        request.external_id: request
        for request in session.execute(
            select(Request.id, Request.external_id, Request.status)
            .where(Request.external_id.in_({row.request for row in rows if row.request}))
            .order_by(Request.id)
            .with_for_update()
        )
    }
    ids = {request.id: request.status for request in requests.values()}
    items = {
        item.id: KnownItem(item.position, item.description, item.id, item.request_id, item.id in context.added_items)
        for item in session.execute(
            select(Item.id, Item.request_id, Item.position, Item.description)
            .where(Item.request_id.in_(ids))
            .order_by(Item.position, Item.id)
        )
    }
    of_request: dict[int, list[KnownItem]] = defaultdict(list)
    for item in items.values():
        of_request[cast("int", item.request_id)].append(item)
    for code in _barcodes(session, items):
        items[code.item_id].barcodes[code.barcode] = code.temporary
    unknown = {
        requests[row.request].id
        for row in rows
        if row.request in requests
        and not {code for item in of_request.get(requests[row.request].id, ()) for code in item.barcodes}.issuperset(
            _barcodes_of(row)
        )
    }
    for item_id, barcode in removed_barcodes(session, unknown):
        if item_id in items and barcode not in items[item_id].barcodes:
            items[item_id].removed.add(barcode)
    events = past_events(session, [request_id for request_id, status in ids.items() if status in CLOSED])
    closed_here = {request_id: ids[request_id] for request_id, past in events.items() if past.status in CLOSED}
    return _Batch(requests, closed_here, of_request, _own_items(rows, session))


def _own_items(rows: Sequence[ItemRow], session: Session) -> dict[str, KnownItem]:
    wanted = {code for row in rows if not row.request for code in _barcodes_of(row)}
    found: dict[int, KnownItem] = {}
    for some in batches(wanted, VALUES_PER_QUERY):
        for item in session.execute(
            select(Item.id, Item.position, Item.description)
            .join(ItemBarcode, ItemBarcode.item_id == Item.id)
            .where(Item.request_id.is_(None), ItemBarcode.barcode.in_(some))
        ):
            found[item.id] = KnownItem(item.position, item.description, item.id)
    for code in _barcodes(session, found):
        found[code.item_id].barcodes[code.barcode] = code.temporary
    return {code: found[item_id] for item_id in sorted(found) for code in found[item_id].barcodes}


def _barcodes(session: Session, item_ids: Collection[int]) -> Iterator[Any]:
    for some in batches(item_ids, VALUES_PER_QUERY):
        yield from session.execute(
            select(ItemBarcode.item_id, ItemBarcode.barcode, ItemBarcode.temporary).where(ItemBarcode.item_id.in_(some))
        )


def _barcodes_of(row: ItemRow) -> dict[str, bool]:
    """The barcodes of a row; the value is true for a temporary one."""
    return dict.fromkeys(row.barcode, False) | dict.fromkeys(row.temporary_barcode, True)


def _decide(row: ItemRow, batch: _Batch) -> tuple[RowResult, KnownItem | None]:
    """The result of a row, and the item that it adds."""
    if not row.request:
        own = batch.own.get(row.barcode[0])
        return _apply(row, own or NewItem(1), None, batch)
    request = batch.requests.get(row.request)
    if request is None:
        return refused(unknown_reference("request", row.request)), None
    found = match_item(_barcodes_of(row), row.position, batch.of_request[request.id], row.request)
    status = batch.closed_here.get(request.id)
    if status is not None and _would_change(row, found):
        return unchanged(note_of_closed(status)), None
    return _apply(row, found, request.id, batch)


def _would_change(row: ItemRow, found: KnownItem | NewItem | Unmatched) -> bool:
    if not isinstance(found, KnownItem):
        return True
    describes = "description" in row.model_fields_set and row.description != found.description
    return describes or any(code not in found.barcodes and code not in found.removed for code in _barcodes_of(row))


def _apply(
    row: ItemRow, found: KnownItem | NewItem | Unmatched, request_id: int | None, batch: _Batch
) -> tuple[RowResult, KnownItem | None]:
    if isinstance(found, Unmatched):
        return refused(found.reason), None
    if isinstance(found, NewItem):
        if row.missing_columns():
            return refused(missing_columns(row.missing_columns())), None
        new = KnownItem(found.position, row.description, request_id=request_id, added_by_import=True)
        batch.added.append(new)
        if request_id is not None:
            batch.of_request[request_id].append(new)
        _add_barcodes(row, new, batch)
        return RowResult(Outcome.ADDED), new
    changed = "description" in row.model_fields_set and found.description != row.description
    if changed:
        found.description = row.description
        if found.item_id is not None:
            batch.described[found.item_id] = row.description
    notes = (Note.BARCODE_REMOVED,) if not found.removed.isdisjoint(_barcodes_of(row)) else ()
    changed = _add_barcodes(row, found, batch) or changed
    return RowResult(Outcome.CHANGED if changed else Outcome.UNCHANGED, notes), None


def _add_barcodes(row: ItemRow, item: KnownItem, batch: _Batch) -> bool:
    """Add the barcodes that the item does not have and that staff did not take off. False if there are none."""
    new = {
        code: temporary
        for code, temporary in _barcodes_of(row).items()
        if code not in item.barcodes and code not in item.removed
    }
    item.barcodes.update(new)
    batch.barcodes += [(item, code, temporary) for code, temporary in new.items()]
    if item.request_id is None:
        batch.own.update(dict.fromkeys(new, item))
    return bool(new)


def _write(session: Session, batch: _Batch) -> None:
    items = table(Item)
    if batch.added:
        values = [
            {"request_id": item.request_id, "position": item.position, "description": item.description}
            for item in batch.added
        ]
        ids = session.execute(insert(items).returning(items.c.id, sort_by_parameter_order=True), values).scalars()
        for item, item_id in zip(batch.added, ids, strict=True):
            item.item_id = item_id
    if batch.described:
        session.connection().execute(
            update(items)
            .where(items.c.id == bindparam("b_id"))
            .values(description=bindparam("b_description", type_=items.c.description.type)),
            [{"b_id": item_id, "b_description": text} for item_id, text in batch.described.items()],
        )
    if batch.barcodes:
        session.execute(
            insert(table(ItemBarcode)),
            [
                {"item_id": item.item_id, "barcode": code, "temporary": temporary}
                for item, code, temporary in batch.barcodes
            ],
        )
