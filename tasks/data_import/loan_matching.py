# SPDX-License-Identifier: Apache-2.0
"""The item of an imported loan, among the items that have its barcode. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas.request_status import CLOSED, RequestStatus


@dataclass(frozen=True)
class Candidate:
    """An item that has the barcode of the loan, with the columns of its request that decide."""

    item_id: int
    request_id: int | None = None
    """`None` for an item that the library owns."""
    external_id: str | None = None
    status: RequestStatus | None = None
    created_at: datetime | None = None
    returned_at: datetime | None = None
    """Time of the Return of the item, or of its request."""

    @property
    def is_open(self) -> bool:
        """True for an item of an open request that is not returned."""
        return self.request_id is not None and not self.is_closed and self.returned_at is None

    @property
    def is_closed(self) -> bool:
        """True for an item of a closed request."""
        return self.status in CLOSED


@dataclass(frozen=True)
class SeveralOpen:
    """Items of several open requests have the barcode."""

    external_ids: tuple[str, ...]


def item_of_open_loan(candidates: Sequence[Candidate]) -> Candidate | SeveralOpen:
    """The item of a loan that is not discharged: that of the open request, or one that the library owns.

    With neither, the item that was added last; it is returned, so the loan is not true. `candidates` is in order of
    item id, and not empty.
    """
    still_open = [candidate for candidate in candidates if candidate.is_open]
    requests = sorted({candidate.external_id or "" for candidate in still_open})
    if len(requests) > 1:
        return SeveralOpen(tuple(requests))
    if still_open:
        return still_open[0]
    own = [candidate for candidate in candidates if candidate.request_id is None]
    return (own or list(candidates))[-1]


def item_of_past_loan(candidates: Sequence[Candidate], loaned_at: datetime) -> Candidate:
    """The item of a discharged loan: the one whose request fits its time. `candidates` is as above."""
    borrowed = [candidate for candidate in candidates if candidate.request_id is not None]
    not_over = [c for c in borrowed if c.returned_at is None or loaned_at <= c.returned_at]
    fitting = [c for c in not_over if c.created_at is not None and c.created_at <= loaned_at]
    if fitting:
        return max(fitting, key=lambda c: (c.created_at, c.item_id))
    # Requests that were imported after the loan have the time of the import. The loan was before a Return.
    ended = [c for c in not_over if c.returned_at is not None]
    if ended:
        return min(ended, key=lambda c: (c.returned_at, c.item_id))
    found = item_of_open_loan(candidates)
    return found if isinstance(found, Candidate) else next(c for c in reversed(candidates) if c.is_open)
