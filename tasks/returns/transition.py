# SPDX-License-Identifier: Apache-2.0
"""The rule of the Return: from a request and a command to a decision. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from schemas.reasons import ReplyReason as Reason
from schemas.request_status import RequestStatus as Status
from tasks.requests.discharge_time import discharge_time
from tasks.requests.model import ItemState, Refused, RequestState
from tasks.requests.refusals import REQUEST_IS_CLOSED, REQUEST_IS_LOST
from tasks.returns.decision import AlreadyReturned, Decision, ReturnCommand, Returned


class Action(StrEnum):
    """The action of Return from a status."""

    RETURN = "return"
    REPEAT = "repeat"
    """Replies "already returned"."""
    REFUSE = "refuse"
    REFUSE_UNLESS_OVERRIDDEN = "refuse_unless_overridden"
    DISCHARGE_ONLY = "discharge_only"
    """Discharges a loan that is still open, at the time of the scan; the status stays. Refused without one."""


@dataclass(frozen=True)
class Row:
    """A row of the table: the action from one status, and the reason code of the reply."""

    action: Action
    reason: Reason
    urgent: bool = False
    in_hand: bool = False
    """For a refusal: the item may be in hand, so the reply names the lender."""
    next_step: str = ""


_NOT_YET = "Nothing has come yet. If the item is in your hand, receive it first; else ask interlibrary-loan staff."
_RECEIVE = "Receive the item on its request, then scan it again."

TABLE: Final[Mapping[Status, Row]] = MappingProxyType(
    {
        Status.CREATED: Row(Action.REFUSE, Reason.NOT_SENT, next_step=_NOT_YET),
        Status.READY_TO_BE_SENT: Row(Action.REFUSE, Reason.NOT_SENT, next_step=_NOT_YET),
        Status.REQUEST_SENT: Row(Action.REFUSE, Reason.NOT_SUPPLIED, next_step=_NOT_YET),
        Status.WILL_SUPPLY: Row(Action.REFUSE, Reason.NOT_SUPPLIED, next_step=_NOT_YET),
        Status.CONDITIONAL: Row(Action.REFUSE, Reason.NOT_SUPPLIED, next_step=_NOT_YET),
        Status.SHIPPED_PHYSICALLY: Row(Action.REFUSE, Reason.NOT_RECEIVED, in_hand=True, next_step=_RECEIVE),
        Status.RECEIVED: Row(Action.RETURN, Reason.NEVER_LOANED),
        Status.RECEIVED_NOT_FOR_LOAN: Row(Action.RETURN, Reason.NEVER_LOANED),
        Status.LOANED: Row(Action.RETURN, Reason.LOANED),
        Status.RENEW_REQUESTED: Row(Action.RETURN, Reason.RENEWAL_CLOSED),
        Status.RENEWED: Row(Action.RETURN, Reason.LOANED),
        Status.RENEW_NOT_ACCEPTED: Row(Action.RETURN, Reason.LOANED),
        Status.MEDIATED_RENEWAL: Row(Action.RETURN, Reason.RENEWAL_CLOSED),
        Status.OVERDUE: Row(Action.RETURN, Reason.OVERDUE),
        Status.RECALLED: Row(Action.RETURN, Reason.RECALLED, urgent=True),
        Status.RETURNED_BY_PATRON: Row(Action.RETURN, Reason.DISCHARGED_BEFORE),
        Status.DAMAGED: Row(Action.RETURN, Reason.DAMAGED),
        Status.LOST: Row(Action.REFUSE_UNLESS_OVERRIDDEN, Reason.LOST, in_hand=True, next_step=REQUEST_IS_LOST),
        Status.DECLARED_LOST: Row(
            Action.REFUSE_UNLESS_OVERRIDDEN, Reason.LOST, in_hand=True, next_step=REQUEST_IS_LOST
        ),
        Status.RETURNED_TO_PARTNER: Row(Action.REPEAT, Reason.ALREADY_RETURNED),
        Status.COMPLETED: Row(Action.DISCHARGE_ONLY, Reason.COMPLETED, in_hand=True, next_step=REQUEST_IS_CLOSED),
        Status.CANCELED_BY_PARTNER: Row(Action.REFUSE, Reason.CANCELED, in_hand=True, next_step=REQUEST_IS_CLOSED),
        Status.CANCELED_BY_PATRON: Row(Action.REFUSE, Reason.CANCELED, in_hand=True, next_step=REQUEST_IS_CLOSED),
        Status.CANCELED_BY_STAFF: Row(Action.REFUSE, Reason.CANCELED, in_hand=True, next_step=REQUEST_IS_CLOSED),
        Status.EXPIRED: Row(Action.REFUSE, Reason.EXPIRED, in_hand=True, next_step=REQUEST_IS_CLOSED),
        Status.REJECTED: Row(Action.REFUSE, Reason.REJECTED, in_hand=True, next_step=REQUEST_IS_CLOSED),
    }
)
"""The action of Return from each status: the source of docs/reference/what-return-does.md."""


def decide(request: RequestState, command: ReturnCommand) -> Decision:
    """The decision on a Return of `request`, or of one scanned item of it."""
    row = TABLE[request.status]
    match row.action:
        case Action.REFUSE:
            return _refusal(request, row)
        case Action.REPEAT:
            # A forced partial Return left an item behind; now it is scanned after the others.
            late = request.item(command.item_id) if command.item_id is not None else None
            if late is not None and late.returned_at is None and len(request.items) > 1:
                return _return(request, command, Row(Action.RETURN, Reason.LATE_ITEM))
            return _repeat(request, late)
        case Action.REFUSE_UNLESS_OVERRIDDEN:
            return _return_if_overridden(request, command, row)
        case Action.RETURN:
            return _return(request, command, row)
        case Action.DISCHARGE_ONLY:
            return _discharge_only(request, command, row)
        case _:
            assert_never(row.action)


def _return_if_overridden(request: RequestState, command: ReturnCommand, row: Row) -> Decision:
    if command.override is None:
        return _refusal(request, row)
    if command.is_override_elsewhere:
        return Refused(
            Reason.OTHER_BRANCH,
            f"Not returned: request {request.external_id} is of another branch, and overrides are permitted there alone"
            f". The item belongs to {request.destination.name}",
            "Ask a supervisor of that branch for the override.",
            names_destination=True,
        )
    return _return(request, command, row)


def _refusal(request: RequestState, row: Row) -> Refused:
    message = f"Not returned: request {request.external_id} is “{request.status.label}”"
    if row.in_hand:
        message += f". The item belongs to {request.destination.name}"
    return Refused(row.reason, message, row.next_step, names_destination=row.in_hand)


def _discharge_only(request: RequestState, command: ReturnCommand, row: Row) -> Decision:
    """The lender has confirmed before this scan is processed: open loans end at the time of the scan."""
    scanned = request.items if command.item_id is None else (request.item(command.item_id),)
    late = tuple(item for item in scanned if item.loan is not None)
    if not late:
        return _refusal(request, row)
    blocked = _blocking_refusal(request, command, late)
    if blocked is not None:
        return blocked
    timing = _discharge_time(command, late)
    if isinstance(timing, Refused):
        return timing
    at, warnings = timing
    return Returned(
        reason=Reason.COMPLETED_BEFORE,
        at=at,
        items=late,
        status_after=request.status,
        here=sum(1 for item in request.items if item.returned_at is not None or item in late),
        completes=False,
        wants_slip=False,
        warnings=(
            *warnings,
            "The lender has confirmed this request already: if the item is in your hand, notify interlibrary-loan staff.",
        ),
    )


def _discharge_time(command: ReturnCommand, items: tuple[ItemState, ...]) -> tuple[datetime, tuple[str, ...]] | Refused:
    """The discharge's time, which is not before the last of the items' loans began."""
    return discharge_time(
        occurred_at=command.occurred_at,
        received_at=command.received_at,
        backdate=command.backdated_to,
        loan_began=max((item.loan.loaned_at for item in items if item.loan is not None), default=None),
    )


def _blocking_refusal(request: RequestState, command: ReturnCommand, items: tuple[ItemState, ...]) -> Refused | None:
    """The refusal when the loans on the items need a person's decision first."""
    loans = tuple(item.loan for item in items if item.loan is not None)
    if any(loan.other_patron for loan in loans):
        return Refused(
            Reason.LOAN_OF_ANOTHER_PATRON,
            f"Not returned: the loan on this item does not belong to request {request.external_id}",
            "Put the item aside for review by interlibrary-loan staff.",
            names_destination=True,
        )
    if any(loan.claimed_returned for loan in loans) and command.resolution is None:
        return Refused(
            Reason.CLAIMED_RETURNED,
            f"Not returned: the patron of request {request.external_id} claims to have returned it before",
            "Return from the request and state how the claim ends: found by library, or returned by patron.",
            names_destination=True,
        )
    return None


def _repeat(request: RequestState, item: ItemState | None) -> AlreadyReturned:
    here = sum(1 for each in request.items if each.returned_at is not None)
    if item is not None and item.returned_at is not None:
        return AlreadyReturned(item.returned_at, item.returned_by, here)
    return AlreadyReturned(request.returned_at, request.returned_by, here)


def _return(request: RequestState, command: ReturnCommand, row: Row) -> Decision:
    returning = _items_to_return(request, command)
    if isinstance(returning, Refused | AlreadyReturned):
        return returning
    blocked = _blocking_refusal(request, command, returning)
    if blocked is not None:
        return blocked
    timing = _discharge_time(command, returning)
    if isinstance(timing, Refused):
        return timing
    at, warnings = timing
    here = sum(1 for item in request.items if item.returned_at is not None or item in returning)
    completes = request.status is not Status.RETURNED_TO_PARTNER and (
        here == len(request.items) or (command.force_partial and command.item_id is None)
    )
    reason = row.reason if completes or request.status is Status.RETURNED_TO_PARTNER else Reason.ITEM_CHECKED_IN
    overridden = row.action is Action.REFUSE_UNLESS_OVERRIDDEN
    if overridden:
        warnings += ("Reported lost before: a fee may be open, and is flagged for review.",)
    if request.own_return_address:
        warnings += ("The lender gave a return address with this item: it stands on the slip.",)
    elif request.destination.delivery_code is None:
        warnings += ("This library has no delivery code: the slip shows its name and address.",)
    return Returned(
        reason=Reason.LOST_OVERRIDDEN if overridden else reason,
        at=at,
        items=returning,
        status_after=Status.RETURNED_TO_PARTNER if completes else request.status,
        here=here,
        urgent=row.urgent,
        completes=completes,
        fee_review=overridden,
        warnings=warnings,
    )


def _items_to_return(
    request: RequestState, command: ReturnCommand
) -> tuple[ItemState, ...] | Refused | AlreadyReturned:
    """The items that this Return checks in; or why it checks in none."""
    if command.item_id is not None:
        item = request.item(command.item_id)
        return (item,) if item.returned_at is None else _repeat(request, item)
    missing = tuple(item for item in request.items if item.returned_at is None)
    here = len(request.items) - len(missing)
    if here and missing:
        if command.force_partial:
            return ()
        return Refused(
            Reason.ITEMS_MISSING,
            f"Not returned: {here} of {len(request.items)} items of request {request.external_id} are here",
            "Scan the other items, or Return from the request as a partial return.",
            names_destination=True,
        )
    if command.force_partial and missing and len(request.items) > 1:
        return Refused(
            Reason.NOTHING_CHECKED_IN,
            f"Not returned: none of the {len(request.items)} items of request {request.external_id} is checked in",
            "Scan the items that are here first, then Return from the request as a partial return.",
        )
    return missing
