# SPDX-License-Identifier: Apache-2.0
"""The item of an imported row, among the items of its request. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

MAX_LISTED = 3
"""Number of barcodes that a reason lists."""


@dataclass
class KnownItem:
    """An item that is stored, or that an earlier row of the batch adds."""

    position: int
    description: str | None
    item_id: int | None = None
    """`None` until the batch is stored."""
    request_id: int | None = None
    added_by_import: bool = False
    """True when this import added the item."""
    barcodes: dict[str, bool] = field(default_factory=dict)
    """Each barcode; the value is true for a temporary one."""
    removed: set[str] = field(default_factory=set)
    """Barcodes that staff took off the item."""


@dataclass(frozen=True)
class NewItem:
    """The row is of an item that is not stored yet."""

    position: int


@dataclass(frozen=True)
class Unmatched:
    """The row does not identify an item. The text states the reason, and the ways out."""

    reason: str


def match_item(
    barcodes: Collection[str], position: int | None, items: Sequence[KnownItem], request: str
) -> KnownItem | NewItem | Unmatched:
    """The item that a row of `request` is about.

    A barcode identifies the item that has it, else the one from which staff took it off. A row whose barcodes are on no
    item is a new item at its position, never an alias. Without a position it is a new item only when no item could be
    meant: the request has none, or this import added them all. An item that has temporary barcodes alone takes the
    barcodes of the lender from a row that can only mean that item.
    """
    having = [item for item in items if not item.barcodes.keys().isdisjoint(barcodes)]
    having = having or [item for item in items if not item.removed.isdisjoint(barcodes)]
    if position is not None:
        return _at_position(barcodes, position, items, having, request)
    if len(having) > 1:
        positions = " and ".join(str(item.position) for item in having)
        return Unmatched(f"its barcodes are on items {positions} of request {request}; list the barcodes of one item")
    return having[0] if having else _without_match(barcodes, items, request)


def _without_match(
    barcodes: Collection[str], items: Sequence[KnownItem], request: str
) -> KnownItem | NewItem | Unmatched:
    """The item of a row that names no position, and whose barcodes are on no item."""
    if not items:
        return NewItem(1)
    if len(items) == 1 and (not barcodes or _is_provisional(items[0])):
        return items[0]
    if not barcodes:
        return Unmatched(f"request {request} has {len(items)} items; name the position or a barcode of one")
    if all(item.added_by_import for item in items):
        return NewItem(max(item.position for item in items) + 1)
    return Unmatched(
        f"request {request} has items, but none with {_listed(barcodes)}; name the position of the item, list further"
        " barcodes of one item with |, or use 'bookdrop items add-barcode'"
    )


def _at_position(
    barcodes: Collection[str], position: int, items: Sequence[KnownItem], having: Sequence[KnownItem], request: str
) -> KnownItem | NewItem | Unmatched:
    here = next((item for item in items if item.position == position), None)
    other = next((item for item in having if item.position != position), None)
    if other is not None and not other.barcodes.keys().isdisjoint(barcodes):
        found = _listed([code for code in barcodes if code in other.barcodes])
        return Unmatched(
            f"{found} is on item {other.position} of request {request}, and the row names position {position}; correct"
            " the position, or use 'bookdrop items remove-barcode'"
        )
    if here is None:
        return NewItem(position)
    if not barcodes or here in having or _is_provisional(here):
        return here
    return Unmatched(
        f"item {position} of request {request} has other barcodes ({_listed(here.barcodes)}); list further barcodes of"
        " one item with |, or use 'bookdrop items correct-barcode'"
    )


def _is_provisional(item: KnownItem) -> bool:
    """True when the item has no barcode of its lender yet."""
    return all(item.barcodes.values())


def _listed(barcodes: Collection[str]) -> str:
    listed = sorted(barcodes)
    more = ", ..." if len(listed) > MAX_LISTED else ""
    return ", ".join(listed[:MAX_LISTED]) + more
