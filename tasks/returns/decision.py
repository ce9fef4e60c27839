# SPDX-License-Identifier: Apache-2.0
"""The input and the outcomes of a Return's rule. Pure values."""

from dataclasses import dataclass
from datetime import datetime

from schemas.events import Override
from schemas.request_status import RequestStatus
from tasks.requests.model import ItemState, Refused, Resolution


@dataclass(frozen=True)
class ReturnCommand:
    """What staff want, and when."""

    occurred_at: datetime
    """By the station's clock, aware UTC."""
    received_at: datetime
    """By the worker's clock, aware UTC."""
    item_id: int | None
    """The scanned item; `None` for Return from the request."""
    backdated_to: datetime | None = None
    override: Override | None = None
    resolution: Resolution | None = None
    force_partial: bool = False


@dataclass(frozen=True)
class Returned:
    """The items go home. When `status_after` is unchanged, the request waits for its other items."""

    reason: str
    at: datetime
    """The discharge takes this time."""
    items: tuple[ItemState, ...]
    """Those that are checked in now; their open loans are discharged."""
    status_after: RequestStatus
    here: int
    """How many of the request's items are here after this."""
    urgent: bool = False
    completes: bool = True
    """Whether this sends the request home."""
    fee_review: bool = False
    wants_slip: bool = True
    """Whether a slip makes sense, if one is asked for."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlreadyReturned:
    """Nothing changes: the item went home before."""

    at: datetime | None
    by: str | None
    here: int


Decision = Returned | AlreadyReturned | Refused
