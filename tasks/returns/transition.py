# SPDX-License-Identifier: Apache-2.0
"""The Return as a rule: a request, what staff want and when; out comes what happens. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from schemas.request_status import RequestStatus as Status
from tasks.requests.discharge_time import end_of_loan
from tasks.requests.model import ItemState, Refused, RequestState
from tasks.returns.decision import AlreadyReturned, Decision, ReturnCommand, Returned


class Action(StrEnum):
    """What Return does from a status."""

    RETURN = "return"
    REPEAT = "repeat"
    """Answers "already returned"."""
    REFUSE = "refuse"
    REFUSE_UNLESS_OVERRIDDEN = "refuse_unless_overridden"
    DISCHARGE_ONLY = "discharge_only"
    """Ends a loan that is still open, with the scan's own time; the status stays. Else refused."""


@dataclass(frozen=True)
class Row:
    """A line of the table: what Return does from one status, and the reason code of its reply."""

    action: Action
    reason: str
    urgent: bool = False
    in_hand: bool = False
    """For a refusal: the item can be in hand, so the reply names the lender."""
    next_step: str = ""


_NOT_YET = "Nothing has come yet. If the item is in your hand, receive it first; else ask interlibrary-loan staff."
_RECEIVE = "Receive the item on its request, then scan it again."
_CLOSED = "Put the item aside and hand it to interlibrary-loan staff: its request is closed."
_LOST = "Ask a supervisor: Return from the request with an override and its reason."

TABLE: Final[Mapping[Status, Row]] = MappingProxyType(
    {
        Status.CREATED: Row(Action.REFUSE, "not_sent", next_step=_NOT_YET),
        Status.READY_TO_BE_SENT: Row(Action.REFUSE, "not_sent", next_step=_NOT_YET),
        Status.REQUEST_SENT: Row(Action.REFUSE, "not_supplied", next_step=_NOT_YET),
        Status.WILL_SUPPLY: Row(Action.REFUSE, "not_supplied", next_step=_NOT_YET),
        Status.CONDITIONAL: Row(Action.REFUSE, "not_supplied", next_step=_NOT_YET),
        Status.SHIPPED_PHYSICALLY: Row(Action.REFUSE, "not_received", in_hand=True, next_step=_RECEIVE),
        Status.RECEIVED: Row(Action.RETURN, "never_loaned"),
        Status.RECEIVED_NOT_FOR_LOAN: Row(Action.RETURN, "never_loaned"),
        Status.LOANED: Row(Action.RETURN, "loaned"),
        Status.RENEW_REQUESTED: Row(Action.RETURN, "renewal_closed"),
        Status.RENEWED: Row(Action.RETURN, "loaned"),
        Status.RENEW_NOT_ACCEPTED: Row(Action.RETURN, "loaned"),
        Status.MEDIATED_RENEWAL: Row(Action.RETURN, "renewal_closed"),
        Status.OVERDUE: Row(Action.RETURN, "overdue"),
        Status.RECALLED: Row(Action.RETURN, "recalled", urgent=True),
        Status.RETURNED_BY_PATRON: Row(Action.RETURN, "discharged_before"),
        Status.DAMAGED: Row(Action.RETURN, "damaged"),
        Status.LOST: Row(Action.REFUSE_UNLESS_OVERRIDDEN, "lost", in_hand=True, next_step=_LOST),
        Status.DECLARED_LOST: Row(Action.REFUSE_UNLESS_OVERRIDDEN, "lost", in_hand=True, next_step=_LOST),
        Status.RETURNED_TO_PARTNER: Row(Action.REPEAT, "already_returned"),
        Status.COMPLETED: Row(Action.DISCHARGE_ONLY, "completed", in_hand=True, next_step=_CLOSED),
        Status.CANCELED_BY_PARTNER: Row(Action.REFUSE, "canceled", in_hand=True, next_step=_CLOSED),
        Status.CANCELED_BY_PATRON: Row(Action.REFUSE, "canceled", in_hand=True, next_step=_CLOSED),
        Status.CANCELED_BY_STAFF: Row(Action.REFUSE, "canceled", in_hand=True, next_step=_CLOSED),
        Status.EXPIRED: Row(Action.REFUSE, "expired", in_hand=True, next_step=_CLOSED),
        Status.REJECTED: Row(Action.REFUSE, "rejected", in_hand=True, next_step=_CLOSED),
    }
)
"""What Return does from each status. The field's words and outcomes: see docs/explanation."""


def decide(request: RequestState, wish: ReturnCommand) -> Decision:
    """What a Return of `request` (or of one scanned item of it) does, given what staff want and when."""
    row = TABLE[request.status]
    match row.action:
        case Action.REFUSE:
            return _refusal(request, row)
        case Action.REPEAT:
            # A forced partial return left an item behind; now it comes after the others.
            late = request.item(wish.item_id) if wish.item_id is not None else None
            if late is not None and late.returned_at is None and len(request.items) > 1:
                return _return(request, wish, Row(Action.RETURN, "late_item"))
            return _repeat(request, late)
        case Action.REFUSE_UNLESS_OVERRIDDEN:
            return _refusal(request, row) if wish.override is None else _return(request, wish, row)
        case Action.RETURN:
            return _return(request, wish, row)
        case Action.DISCHARGE_ONLY:
            return _discharge_only(request, wish, row)
        case _:
            assert_never(row.action)


def _refusal(request: RequestState, row: Row) -> Refused:
    message = f"Not returned: request {request.external_id} is “{request.status.label}”"
    if row.in_hand:
        message += f". The item belongs to {request.destination.name}"
    return Refused(row.reason, message, row.next_step, names_destination=row.in_hand)


def _discharge_only(request: RequestState, wish: ReturnCommand, row: Row) -> Decision:
    """The lender has confirmed already, and our own scan comes late: what is still on loan ends when it was scanned."""
    scanned = request.items if wish.item_id is None else (request.item(wish.item_id),)
    late = tuple(item for item in scanned if item.loan is not None)
    if not late:
        return _refusal(request, row)
    held_up = _blocking_refusal(request, wish, late)
    if held_up is not None:
        return held_up
    timing = end_of_loan(wish, _began(late))
    if isinstance(timing, Refused):
        return timing
    at, warnings = timing
    return Returned(
        reason="completed_before",
        at=at,
        items=late,
        status_after=request.status,
        here=sum(1 for item in request.items if item.returned_at is not None or item in late),
        completes=False,
        wants_slip=False,
        warnings=(
            *warnings,
            "The lender has confirmed this request already: if the item is in your hand, tell interlibrary-loan staff.",
        ),
    )


def _began(items: tuple[ItemState, ...]) -> datetime | None:
    """When the last of the items' loans began."""
    return max((item.loan.loaned_at for item in items if item.loan is not None), default=None)


def _blocking_refusal(request: RequestState, wish: ReturnCommand, items: tuple[ItemState, ...]) -> Refused | None:
    """Why the loans on these items may not be ended just so."""
    loans = tuple(item.loan for item in items if item.loan is not None)
    if any(loan.other_patron for loan in loans):
        return Refused(
            "loan_of_another_patron",
            f"Not returned: the loan on this item does not belong to request {request.external_id}",
            "Put the item aside for review by interlibrary-loan staff.",
            names_destination=True,
        )
    if any(loan.claimed_returned for loan in loans) and wish.resolution is None:
        return Refused(
            "claimed_returned",
            f"Not returned: the reader of request {request.external_id} claims to have returned it before",
            "Return from the request and say how the claim ends: found by library, or returned by patron.",
            names_destination=True,
        )
    return None


def _repeat(request: RequestState, item: ItemState | None) -> AlreadyReturned:
    here = sum(1 for each in request.items if each.returned_at is not None)
    if item is not None and item.returned_at is not None:
        return AlreadyReturned(item.returned_at, item.returned_by, here)
    return AlreadyReturned(request.returned_at, request.returned_by, here)


def _return(request: RequestState, wish: ReturnCommand, row: Row) -> Decision:
    going = _items_to_return(request, wish)
    if isinstance(going, Refused | AlreadyReturned):
        return going
    held_up = _blocking_refusal(request, wish, going)
    if held_up is not None:
        return held_up
    timing = end_of_loan(wish, _began(going))
    if isinstance(timing, Refused):
        return timing
    at, warnings = timing
    here = sum(1 for item in request.items if item.returned_at is not None or item in going)
    completes = request.status is not Status.RETURNED_TO_PARTNER and (
        here == len(request.items) or (wish.force_partial and wish.item_id is None)
    )
    reason = row.reason if completes or request.status is Status.RETURNED_TO_PARTNER else "item_checked_in"
    overridden = row.action is Action.REFUSE_UNLESS_OVERRIDDEN
    if overridden:
        warnings += ("Reported lost before: a fee may be open, and is flagged for review.",)
    if request.own_return_address:
        warnings += ("The lender gave a return address with this item: it stands on the slip.",)
    elif request.destination.delivery_code is None:
        warnings += ("This library has no delivery code: the slip shows its name and address.",)
    return Returned(
        reason="lost_overridden" if overridden else reason,
        at=at,
        items=going,
        status_after=Status.RETURNED_TO_PARTNER if completes else request.status,
        here=here,
        urgent=row.urgent,
        completes=completes,
        fee_review=overridden,
        warnings=warnings,
    )


def _items_to_return(request: RequestState, wish: ReturnCommand) -> tuple[ItemState, ...] | Refused | AlreadyReturned:
    """The items that this Return checks in."""
    if wish.item_id is not None:
        item = request.item(wish.item_id)
        return (item,) if item.returned_at is None else _repeat(request, item)
    missing = tuple(item for item in request.items if item.returned_at is None)
    here = len(request.items) - len(missing)
    if here and missing:
        if wish.force_partial:
            return ()
        return Refused(
            "items_missing",
            f"Not returned: {here} of {len(request.items)} items of request {request.external_id} are here",
            "Scan the other items, or Return from the request as a partial return.",
            names_destination=True,
        )
    if wish.force_partial and missing and len(request.items) > 1:
        return Refused(
            "nothing_checked_in",
            f"Not returned: none of the {len(request.items)} items of request {request.external_id} is checked in",
            "Scan the items that are here first, then Return from the request as a partial return.",
        )
    return missing
