# SPDX-License-Identifier: Apache-2.0
"""The rules of receive, loan, discharge and complete: from a request to a decision. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from schemas.reasons import ReplyReason
from schemas.request_status import CLOSED
from schemas.request_status import RequestStatus as Status
from tasks.requests.model import ItemState, Refused, RequestState
from tasks.requests.refusals import REQUEST_IS_CLOSED, REQUEST_IS_LOST

ON_THE_WAY: Final = frozenset(
    {
        Status.CREATED,
        Status.READY_TO_BE_SENT,
        Status.REQUEST_SENT,
        Status.WILL_SUPPLY,
        Status.CONDITIONAL,
        Status.SHIPPED_PHYSICALLY,
    }
)
"""Nothing has arrived yet; a parcel may."""

LOST: Final = frozenset({Status.LOST, Status.DECLARED_LOST})

WITH_PATRON: Final = frozenset(
    {
        Status.LOANED,
        Status.RENEW_REQUESTED,
        Status.RENEWED,
        Status.RENEW_NOT_ACCEPTED,
        Status.MEDIATED_RENEWAL,
        Status.OVERDUE,
        Status.RECALLED,
    }
)


@dataclass(frozen=True)
class Done:
    """The action is done: the new status, and the texts for the reply."""

    reason: ReplyReason
    message: str
    status_after: Status
    next_step: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlreadyDone:
    """Nothing changes: the action was done before."""

    message: str


Decision = Done | AlreadyDone | Refused


def receive(request: RequestState, *, new_items: int, for_loan: bool) -> Decision:
    """The decision on a parcel that arrived. `new_items`: the number of its items that are not known yet."""
    if request.status in CLOSED | LOST:
        return _closed("received", request)
    if new_items == 0:
        return AlreadyDone(f"Received before: request {request.external_id} is “{request.status.label}”")
    count = len(request.items) + new_items
    if request.status in ON_THE_WAY:
        after = Status.RECEIVED if for_loan else Status.RECEIVED_NOT_FOR_LOAN
        step = "Lend it to its patron." if for_loan else "For reading in the library only: it is not lent out."
    else:
        after, step = request.status, None
    items = "1 item" if count == 1 else f"{count} items"
    return Done(ReplyReason.RECEIVED, f"Received: request {request.external_id}, {items}: {request.title}", after, step)


def lend(request: RequestState, item: ItemState, *, has_patron: bool) -> Decision:
    """The decision on a loan to the request's patron."""
    if item.loan is not None:
        return AlreadyDone(f"On loan already: {request.title}")
    if item.returned_at is not None or request.status in CLOSED | LOST:
        return _closed("lent", request)
    if request.status in ON_THE_WAY:
        return Refused(
            ReplyReason.NOT_RECEIVED,
            f"Not lent: request {request.external_id} is “{request.status.label}”",
            "Receive the item on its request first.",
        )
    if request.status in {Status.RECEIVED_NOT_FOR_LOAN, Status.DAMAGED}:
        return Refused(
            ReplyReason.NOT_FOR_LOAN,
            f"Not lent: request {request.external_id} is “{request.status.label}”",
            "Keep it in the library. Return it to its lender when it is done with.",
        )
    if not has_patron:
        return Refused(
            ReplyReason.NO_READER,
            f"Not lent: request {request.external_id} no longer names a patron",
            "Ask interlibrary-loan staff.",
        )
    stays = request.status in WITH_PATRON
    return Done(ReplyReason.LOANED, f"Loaned: {request.title}", request.status if stays else Status.LOANED)


def discharge(request: RequestState, item: ItemState) -> Decision:
    """The decision on a discharge without a Return: the item stays in this library."""
    if item.loan is None:
        return _not_on_loan(request, item)
    if request.status in LOST:
        return Refused(
            ReplyReason.LOST,
            f"Not discharged: request {request.external_id} is “{request.status.label}”",
            REQUEST_IS_LOST,
        )
    if item.loan.other_patron:
        return Refused(
            ReplyReason.LOAN_OF_ANOTHER_PATRON,
            f"Not discharged: the loan on this item does not belong to request {request.external_id}",
            "Put the item aside for review by interlibrary-loan staff.",
        )
    if item.loan.claimed_returned:
        return Refused(
            ReplyReason.CLAIMED_RETURNED,
            f"Not discharged: the patron of request {request.external_id} claims to have returned it before",
            "Return from the request and state how the claim ends: found by library, or returned by patron.",
        )
    others = any(other.loan is not None for other in request.items if other.item_id != item.item_id)
    # A recalled item is urgent until it is returned; "Returned by patron" would hide that.
    stays = others or request.status not in WITH_PATRON or request.status is Status.RECALLED
    step = "It is recalled: return it to its lender at once." if request.status is Status.RECALLED else None
    return Done(
        ReplyReason.DISCHARGED,
        f"Discharged: {request.title}",
        request.status if stays else Status.RETURNED_BY_PATRON,
        step or "Put it on the shelf, or return it to its lender.",
    )


def _not_on_loan(request: RequestState, item: ItemState) -> AlreadyDone | Refused:
    if request.status in CLOSED or item.returned_at is not None:
        return AlreadyDone(f"Not on loan: request {request.external_id} is “{request.status.label}”")
    if request.status is Status.RETURNED_BY_PATRON:
        return AlreadyDone(f"Returned by patron before: {request.title}")
    return Refused(
        ReplyReason.NOT_ON_LOAN,
        f"Not discharged: {request.title} is not on loan",
        "Return it to its lender, or lend it to its patron.",
    )


def complete(request: RequestState) -> Decision:
    """The decision on a partner's confirmation that its items are back."""
    if request.status is Status.COMPLETED:
        return AlreadyDone(f"Completed before: request {request.external_id}")
    if request.status is Status.RETURNED_TO_PARTNER:
        return Done(ReplyReason.COMPLETED, f"Completed: request {request.external_id}", Status.COMPLETED)
    if request.status in CLOSED | LOST:
        return _closed("completed", request)
    if request.status in ON_THE_WAY:
        return Refused(
            ReplyReason.NOT_RECEIVED,
            f"Not completed: request {request.external_id} is “{request.status.label}”",
            "Nothing has come yet, so nothing can be back. Ask the partner which request it means.",
        )
    return Done(
        ReplyReason.COMPLETED_EARLY,
        f"Completed: request {request.external_id}",
        Status.COMPLETED,
        warnings=(
            "The Return is not processed yet. When its scan is processed, the open loan ends at the time of the scan.",
        ),
    )


def in_use(barcodes: Collection[str]) -> Refused:
    """The refusal of a parcel whose strap or barcode is on another open request."""
    listed = ", ".join(sorted(barcodes))
    return Refused(
        ReplyReason.BARCODE_IN_USE,
        f"Not received: {listed} is on an item of another open request",
        "Put another strap on the item, or return the other request's item first.",
    )


def _closed(verb: str, request: RequestState) -> Refused:
    lost = request.status in LOST
    return Refused(
        ReplyReason.LOST if lost else ReplyReason.CLOSED,
        f"Not {verb}: request {request.external_id} is “{request.status.label}”",
        REQUEST_IS_LOST if lost else REQUEST_IS_CLOSED,
    )
