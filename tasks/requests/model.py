# SPDX-License-Identifier: Apache-2.0
"""What the rules look at and what they answer: plain values, no database, no clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from schemas.replies import Destination
from schemas.request_status import RequestStatus

Resolution = Literal["found_by_library", "returned_by_patron"]

CLOCK_TOLERANCE = timedelta(minutes=2)
"""How far ahead a station's clock is still believed."""


@dataclass(frozen=True)
class OpenLoan:
    """An item's loan that is not discharged."""

    loan_id: int
    loaned_at: datetime
    other_patron: bool = False
    """It belongs to another patron than the request's."""
    claimed_returned: bool = False


@dataclass(frozen=True)
class ItemState:
    """One item of a request, as it is before the scan."""

    item_id: int
    position: int = 1
    loan: OpenLoan | None = None
    returned_at: datetime | None = None
    returned_by: str | None = None


@dataclass(frozen=True)
class RequestState:
    """A borrowing request, as it is before the scan."""

    request_id: int
    external_id: str
    title: str
    status: RequestStatus
    destination: Destination
    items: tuple[ItemState, ...]
    own_return_address: bool = False
    """The lender gave a return address with this very item."""
    returned_at: datetime | None = None
    returned_by: str | None = None

    def item(self, item_id: int) -> ItemState:
        """The item of that id. Raises `KeyError`."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)


@dataclass(frozen=True)
class Refused:
    """Nothing changes, and staff are told why and what to do now."""

    reason: str
    message: str
    next_step: str
    names_destination: bool = False
    """Whether the reply still names the lender, because the item may be in hand."""
