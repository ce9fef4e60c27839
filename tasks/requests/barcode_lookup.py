# SPDX-License-Identifier: Apache-2.0
"""Which request a barcode means. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.barcodes import BarcodeRefusedError, slip_of
from schemas.request_status import CLOSED
from tasks.requests.model import Refused, RequestState


@dataclass(frozen=True)
class Match:
    """An item that bears the barcode, with its request; without one it is our own."""

    item_id: int
    request: RequestState | None


@dataclass(frozen=True)
class Ambiguous:
    """Several open requests bear the barcode; staff pick one."""

    requests: tuple[RequestState, ...]


def resolve(matches: Sequence[Match]) -> Match | Ambiguous | Refused | None:
    """The one item that is meant; `None` when nothing bears the barcode.

    The single open request is meant; closed ones are ignored. With none open and no item of our own,
    the newest closed one answers.
    """
    ours = [match for match in matches if match.request is None]
    borrowed = [(match, match.request) for match in matches if match.request is not None]
    still_open = [(match, request) for match, request in borrowed if request.status not in CLOSED]
    if len({request.request_id for _, request in still_open}) > 1:
        return Ambiguous(tuple({request.request_id: request for _, request in still_open}.values()))
    if still_open:
        return still_open[0][0]
    if ours:
        return Refused(
            "not_interlibrary_loan",
            "Not an interlibrary loan: use the normal check-in",
            "Check the item in with the normal check-in. Nothing was changed.",
        )
    # A late item of a partial return is "closed" too, yet it is the one in hand.
    newest = sorted(borrowed, key=lambda pair: (pair[1].returned_at is not None, pair[1].returned_at, pair[0].item_id))
    return newest[-1][0] if newest else None


def unmatched(barcode: str, *, is_external_id: bool, patron_card_pattern: str | None) -> Refused:
    """Why a barcode that no item bears is refused, and what staff do now."""
    if is_external_id:
        return Refused(
            "external_id_scanned",
            f"Not an item barcode: {barcode} is the identifier of a request",
            "Scan the barcode on the item, or use Return on the request.",
        )
    if is_patron_card(barcode, patron_card_pattern):
        return Refused(
            "patron_card",
            "Not an item barcode: that is a patron card",
            "Scan the barcode on the item. The card was not looked up.",
        )
    if slip_of(barcode) is not None:
        return Refused(
            "slip_code",
            "That is the code of a slip, not of an item",
            "Scan the barcode on the item. To check a slip at packing: bookdrop-station pack, or the slip's code at a desk.",
        )
    return Refused(
        "unknown_barcode",
        f"Unknown barcode: {barcode}",
        "Scan again. If it stays unknown, look for another barcode on the item or ask interlibrary-loan staff.",
    )


def is_patron_card(barcode: str, pattern: str | None) -> bool:
    """Tell by its form alone whether `barcode` is a patron card; nobody is looked up."""
    return pattern is not None and re.fullmatch(pattern, barcode) is not None


def no_barcode(error: BarcodeRefusedError) -> Refused:
    """The answer to a line that is no barcode."""
    first, _, rest = str(error).partition(". ")
    return Refused(error.reason, first.removesuffix("."), rest)
