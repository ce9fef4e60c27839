# SPDX-License-Identifier: Apache-2.0
"""The input and the outcomes of a Return's rule. Pure."""

from dataclasses import dataclass
from datetime import datetime

from schemas.events import Override
from schemas.reasons import ReplyReason
from schemas.request_status import RequestStatus
from tasks.requests.model import ItemState, Refused, Resolution


@dataclass(frozen=True)
class ReturnCommand:
    """A Return that staff ask for, with its times."""

    occurred_at: datetime
    """By the station's clock, aware UTC."""
    received_at: datetime
    """By the worker's clock, aware UTC."""
    item_id: int | None
    """The scanned item; `None` for Return from the request."""
    backdated_to: datetime | None = None
    override: Override | None = None
    is_override_elsewhere: bool = False
    """The library permits overrides at the request's own branch only, and the station belongs to another one."""
    resolution: Resolution | None = None
    force_partial: bool = False


@dataclass(frozen=True)
class Returned:
    """The items are returned. When `status_after` is unchanged, the request waits for its other items."""

    reason: ReplyReason
    at: datetime
    """The discharge takes this time."""
    items: tuple[ItemState, ...]
    """The items that are checked in now; their open loans are discharged."""
    status_after: RequestStatus
    here: int
    """The number of the request's items that are here after this Return."""
    urgent: bool = False
    completes: bool = True
    """The Return moves the request to "Returned item to partner"."""
    fee_review: bool = False
    wants_slip: bool = True
    """A slip is printed if the event asks for one."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlreadyReturned:
    """Nothing changes: the item was returned before."""

    at: datetime | None
    by: str | None
    here: int


Decision = Returned | AlreadyReturned | Refused
