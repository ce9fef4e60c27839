# SPDX-License-Identifier: Apache-2.0
"""The state of a borrowing request as the rules read it, and a refusal. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from schemas.reasons import ReplyReason
from schemas.replies import Destination
from schemas.request_status import RequestStatus

Resolution = Literal["found_by_library", "returned_by_patron"]

CLOCK_TOLERANCE = timedelta(minutes=2)
"""Largest lead of a station's clock; beyond it the worker's time is used."""


@dataclass(frozen=True)
class OpenLoan:
    """A loan of an item that is not discharged."""

    loan_id: int
    loaned_at: datetime
    other_patron: bool = False
    """The loan belongs to another patron than the request's."""
    claimed_returned: bool = False


@dataclass(frozen=True)
class ItemState:
    """An item of a request, before the event."""

    item_id: int
    position: int = 1
    loan: OpenLoan | None = None
    returned_at: datetime | None = None
    returned_by: str | None = None


@dataclass(frozen=True)
class RequestState:
    """A borrowing request, before the event."""

    request_id: int
    external_id: str
    title: str
    status: RequestStatus
    destination: Destination
    items: tuple[ItemState, ...]
    own_return_address: bool = False
    """The lender gave a return address with this item."""
    returned_at: datetime | None = None
    returned_by: str | None = None

    def item(self, item_id: int) -> ItemState:
        """The item with the id. Raises `KeyError`."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)


@dataclass(frozen=True)
class Refused:
    """Nothing changes. Staff read why, and what to do next."""

    reason: ReplyReason
    message: str
    next_step: str
    names_destination: bool = False
    """The reply names the lender, because the item may be in hand."""
    hides_code: bool = False
    """The reply does not repeat the scanned code: it is a patron's number."""
