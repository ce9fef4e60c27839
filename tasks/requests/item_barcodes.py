# SPDX-License-Identifier: Apache-2.0
"""Operators' changes of an item's barcodes: add, remove, correct. Each writes lines of the request's history.

A change that would leave the item without a barcode, or give it one that identifies another item, raises
`RefusedBarcodeError` and changes nothing. An import does not add a removed barcode again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from schemas.barcodes import BarcodeRefusedError, clean, unwrap_spreadsheet
from schemas.models import Branch, Item, ItemBarcode, Request, table
from schemas.request_status import CLOSED
from tasks.operator import Operator
from tasks.requests.barcode_lookup import is_patron_card
from tasks.requests.history import HistoryKind, HistoryLine, operator_line, record


class RefusedBarcodeError(Exception):
    """The change is not possible. The text contains the cause and the next step."""


@dataclass(frozen=True)
class Change:
    """The result of a change."""

    request: str
    position: int
    barcodes: tuple[str, ...]
    """The item's barcodes after the change; a slip shows the first."""
    changed: bool
    """False when the item was in this state before."""
    message: str
    """For the screen."""


@dataclass(frozen=True)
class Editor:
    """The operator who changes barcodes, the time, and the form of patron cards."""

    by: Operator
    now: datetime
    """Aware UTC."""
    patron_card_pattern: str | None = None


@dataclass(frozen=True)
class _Item:
    """An item of the locked request."""

    item_id: int
    position: int
    barcodes: dict[str, Any]
    """Rows of the barcodes, in the order in which they were added."""


@dataclass(frozen=True)
class _Subject:
    """The locked request."""

    request_id: int
    external_id: str
    branch: str
    items: Sequence[_Item]

    def at(self, position: int | None) -> _Item:
        """The item at a position, or the only item. Raises `RefusedBarcodeError`."""
        if position is None and len(self.items) == 1:
            return self.items[0]
        if position is None:
            raise RefusedBarcodeError(
                f"Request {self.external_id} has {len(self.items)} items. Name the item with --position."
            )
        for item in self.items:
            if item.position == position:
                return item
        raise RefusedBarcodeError(
            f"Request {self.external_id} has no item {position}. Run 'bookdrop items show {self.external_id}' to see all."
        )

    def having(self, barcode: str, position: int | None) -> _Item:
        """The item with a barcode, at the position if one is given. Raises `RefusedBarcodeError`."""
        found = [item for item in self.items if barcode in item.barcodes and position in {None, item.position}]
        if len(found) == 1:
            return found[0]
        where = f"request {self.external_id}" if position is None else f"item {position} of request {self.external_id}"
        if found:
            raise RefusedBarcodeError(f"Several items of {where} have barcode {barcode}. Name one with --position.")
        raise RefusedBarcodeError(
            f"Barcode {barcode} is not on {where}. Run 'bookdrop items show {self.external_id}' to see its barcodes."
        )


def add_barcode(
    session: Session, external_id: str, text: str, editor: Editor, *, position: int | None, temporary: bool
) -> Change:
    """Add a barcode to the item at `position`, or to the request's only item. Raises `RefusedBarcodeError`."""
    subject = _lock(session, external_id)
    barcode = _read(text, editor)
    item = subject.at(position)
    if barcode in item.barcodes:
        return _result(subject, item, item.barcodes, changed=False, message=f"Barcode {barcode} is on the item already")
    _require_free(session, subject, barcode)
    session.execute(insert(table(ItemBarcode)), [{"item_id": item.item_id, "barcode": barcode, "temporary": temporary}])
    record(session, _line(subject, item, HistoryKind.BARCODE_ADDED, barcode, editor, temporary=temporary))
    return _result(subject, item, [*item.barcodes, barcode], changed=True, message=f"Added barcode {barcode}")


def remove_barcode(session: Session, external_id: str, text: str, editor: Editor, *, position: int | None) -> Change:
    """Remove a barcode from its item. Raises `RefusedBarcodeError`, also for the last barcode of an item."""
    subject = _lock(session, external_id)
    barcode = text.strip()
    item = subject.having(barcode, position)
    if len(item.barcodes) == 1:
        raise RefusedBarcodeError(
            f"Barcode {barcode} is the only one of item {item.position}: without it, no scan finds the item. Correct it"
            " with 'bookdrop items correct-barcode', or add another one first."
        )
    _remove(session, subject, item, barcode, editor)
    left = [code for code in item.barcodes if code != barcode]
    return _result(subject, item, left, changed=True, message=f"Removed barcode {barcode}")


def correct_barcode(
    session: Session, external_id: str, old: str, new: str, editor: Editor, *, position: int | None
) -> Change:
    """Replace a barcode of an item by the correct one, in its place. Raises `RefusedBarcodeError`."""
    subject = _lock(session, external_id)
    wrong, correct = old.strip(), _read(new, editor)
    item = subject.having(wrong, position)
    if wrong == correct:
        return _result(subject, item, item.barcodes, changed=False, message=f"The item has barcode {correct} already")
    if correct in item.barcodes:
        _remove(session, subject, item, wrong, editor)
    else:
        _require_free(session, subject, correct)
        row = item.barcodes[wrong]
        # The row keeps its place: the slip shows an item's first barcode.
        session.execute(update(ItemBarcode).where(ItemBarcode.id == row.id).values(barcode=correct))
        record(
            session,
            _line(subject, item, HistoryKind.BARCODE_REMOVED, wrong, editor, replaced_by=correct),
            _line(subject, item, HistoryKind.BARCODE_ADDED, correct, editor, temporary=row.temporary),
        )
    after = dict.fromkeys(correct if code == wrong else code for code in item.barcodes)
    return _result(subject, item, after, changed=True, message=f"Corrected barcode {wrong} to {correct}")


def _lock(session: Session, external_id: str) -> _Subject:
    request = session.execute(
        select(Request.id, Request.external_id, Branch.code)
        .join(Branch, Branch.id == Request.branch_id)
        .where(Request.external_id == external_id.strip())
        .with_for_update(of=Request)
    ).one_or_none()
    if request is None:
        raise RefusedBarcodeError(
            f"There is no request {external_id.strip()}. Run 'bookdrop requests list' to see all requests."
        )
    items = {
        item.id: _Item(item.id, item.position, {})
        for item in session.execute(
            select(Item.id, Item.position).where(Item.request_id == request.id).order_by(Item.position, Item.id)
        )
    }
    for row in session.execute(
        select(ItemBarcode.id, ItemBarcode.item_id, ItemBarcode.barcode, ItemBarcode.temporary)
        .where(ItemBarcode.item_id.in_(items))
        .order_by(ItemBarcode.id)
    ):
        items[row.item_id].barcodes[row.barcode] = row
    return _Subject(request.id, request.external_id, request.code, list(items.values()))


def _read(text: str, editor: Editor) -> str:
    try:
        barcode = clean(unwrap_spreadsheet(text))
    except BarcodeRefusedError as error:
        raise RefusedBarcodeError(str(error)) from None
    if is_patron_card(barcode, editor.patron_card_pattern):
        raise RefusedBarcodeError("That is a patron card, not a barcode of an item. Scan the barcode on the item.")
    return barcode


def _require_free(session: Session, subject: _Subject, barcode: str) -> None:
    """Raise `RefusedBarcodeError` when another item of this request or of an open request has the barcode."""
    for item in subject.items:
        if barcode in item.barcodes:
            raise RefusedBarcodeError(
                f"Barcode {barcode} is on item {item.position} of this request. Remove it there first."
            )
    others = session.execute(
        select(Request.external_id)
        .join(Item, Item.request_id == Request.id)
        .join(ItemBarcode, ItemBarcode.item_id == Item.id)
        .where(ItemBarcode.barcode == barcode, Request.status.not_in(CLOSED), Request.id != subject.request_id)
        .order_by(Request.id)
        .limit(1)
    ).scalar_one_or_none()
    if others is not None:
        raise RefusedBarcodeError(
            f"Barcode {barcode} is on an item of the open request {others}, so a scan could not identify one. Remove it"
            " there first, or return that item."
        )


def _remove(session: Session, subject: _Subject, item: _Item, barcode: str, editor: Editor) -> None:
    session.execute(delete(ItemBarcode).where(ItemBarcode.id == item.barcodes[barcode].id))
    record(session, _line(subject, item, HistoryKind.BARCODE_REMOVED, barcode, editor))


def _line(
    subject: _Subject, item: _Item, kind: HistoryKind, barcode: str, editor: Editor, **details: Any
) -> HistoryLine:
    details |= {"barcode": barcode, "item": item.position}
    return operator_line(
        subject.request_id, kind, editor.by, editor.now, branch=subject.branch, item_id=item.item_id, **details
    )


def _result(subject: _Subject, item: _Item, barcodes: Any, *, changed: bool, message: str) -> Change:
    return Change(
        subject.external_id,
        item.position,
        tuple(barcodes),
        changed,
        f"{message} ({subject.external_id}, item {item.position})",
    )
