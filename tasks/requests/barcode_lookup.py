# SPDX-License-Identifier: Apache-2.0
"""The item and the request that a scanned barcode identifies. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.reasons import ReplyReason
from schemas.request_status import CLOSED
from schemas.slip_codes import parse_slip_code
from tasks.requests.model import Refused, RequestState


@dataclass(frozen=True)
class Match:
    """An item that has the barcode, with its request; an item of the library itself has none."""

    item_id: int
    request: RequestState | None


@dataclass(frozen=True)
class Ambiguous:
    """Several open requests have the barcode; staff pick one."""

    requests: tuple[RequestState, ...]


@dataclass(frozen=True)
class Found:
    """The one item that the barcode identifies, and its request."""

    request: RequestState
    item_id: int


def find_item(
    matches: Sequence[Match], barcode: str, *, is_external_id: bool, patron_card_pattern: str | None
) -> Found | Ambiguous | Refused:
    """The item that `barcode` identifies among `matches`, or why it identifies none.

    The single open request is meant; closed ones are ignored. With no open request and no item of the library itself, the
    request that was closed last is meant. `is_external_id`: the code is the external identifier of a request.
    """
    own = [match for match in matches if match.request is None]
    borrowed = [Found(match.request, match.item_id) for match in matches if match.request is not None]
    still_open = [found for found in borrowed if found.request.status not in CLOSED]
    if len({found.request.request_id for found in still_open}) > 1:
        return Ambiguous(tuple({found.request.request_id: found.request for found in still_open}.values()))
    if still_open:
        return still_open[0]
    if own:
        return Refused(
            ReplyReason.NOT_INTERLIBRARY_LOAN,
            "Not an interlibrary loan: use the normal check-in",
            "Check the item in with the normal check-in. Nothing was changed.",
        )
    if borrowed:
        # A late item of a partial return is "closed" too, yet it is the one in hand.
        return max(
            borrowed,
            key=lambda found: (found.request.returned_at is not None, found.request.returned_at, found.item_id),
        )
    return _unmatched(barcode, is_external_id=is_external_id, patron_card_pattern=patron_card_pattern)


def _unmatched(barcode: str, *, is_external_id: bool, patron_card_pattern: str | None) -> Refused:
    if is_external_id:
        return Refused(
            ReplyReason.EXTERNAL_ID_SCANNED,
            f"Not an item barcode: {barcode} is the identifier of a request",
            "Scan the barcode on the item, or use Return on the request.",
        )
    if is_patron_card(barcode, patron_card_pattern):
        return Refused(
            ReplyReason.PATRON_CARD,
            "Not an item barcode: that is a patron card",
            "Scan the barcode on the item. The card was not looked up.",
            hides_code=True,
        )
    if parse_slip_code(barcode) is not None:
        return Refused(
            ReplyReason.SLIP_CODE,
            "That is the code of a slip, not of an item",
            "Scan the barcode on the item. To check a slip at packing: bookdrop-station pack, or the slip's code at the station's prompt.",
        )
    return Refused(
        ReplyReason.UNKNOWN_BARCODE,
        f"Unknown barcode: {barcode}",
        "Scan again. If it stays unknown, look for another barcode on the item or ask interlibrary-loan staff.",
    )


def is_patron_card(barcode: str, pattern: str | None) -> bool:
    """True when `barcode` has the form of a patron card. No patron is looked up."""
    return pattern is not None and re.fullmatch(pattern, barcode) is not None
