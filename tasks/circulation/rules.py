# SPDX-License-Identifier: Apache-2.0
"""What receiving, lending, discharging and completing do to a request. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from schemas.request_status import CLOSED
from schemas.request_status import RequestStatus as Status
from tasks.requests.model import ItemState, Refused, RequestState

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
"""Nothing has come yet; a parcel can."""

LOST: Final = frozenset({Status.LOST, Status.DECLARED_LOST})

WITH_THE_READER: Final = frozenset(
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

_CLOSED = "Put the item aside and hand it to interlibrary-loan staff: its request is closed."
_LOST = "Ask a supervisor: Return from the request with an override and its reason."


@dataclass(frozen=True)
class Done:
    """The status and words that come of it."""

    reason: str
    message: str
    status_after: Status
    next_step: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlreadyDone:
    """Nothing changes: it was done before."""

    message: str


Decision = Done | AlreadyDone | Refused


def receive(request: RequestState, *, fresh: int, for_loan: bool) -> Decision:
    """A parcel came. `fresh`: how many of its items are not known yet."""
    if request.status in CLOSED | LOST:
        return _closed("received", request)
    if fresh == 0:
        return AlreadyDone(f"Received before: request {request.external_id} is “{request.status.label}”")
    count = len(request.items) + fresh
    if request.status in ON_THE_WAY:
        after = Status.RECEIVED if for_loan else Status.RECEIVED_NOT_FOR_LOAN
        step = "Lend it to its reader." if for_loan else "For reading in the library only: it is not lent out."
    else:
        after, step = request.status, None
    words = "1 item" if count == 1 else f"{count} items"
    return Done("received", f"Received: request {request.external_id}, {words}: {request.title}", after, step)


def lend(request: RequestState, item: ItemState, *, has_reader: bool) -> Decision:
    """The item is handed to its request's reader."""
    if item.loan is not None:
        return AlreadyDone(f"On loan already: {request.title}")
    if item.returned_at is not None or request.status in CLOSED | LOST:
        return _closed("lent", request)
    if request.status in ON_THE_WAY:
        return Refused(
            "not_received",
            f"Not lent: request {request.external_id} is “{request.status.label}”",
            "Receive the item on its request first.",
        )
    if request.status in {Status.RECEIVED_NOT_FOR_LOAN, Status.DAMAGED}:
        return Refused(
            "not_for_loan",
            f"Not lent: request {request.external_id} is “{request.status.label}”",
            "Keep it in the library. Return it to its lender when it is done with.",
        )
    if not has_reader:
        return Refused(
            "no_reader",
            f"Not lent: request {request.external_id} names no reader any more",
            "Ask interlibrary-loan staff.",
        )
    stays = request.status in WITH_THE_READER
    return Done("loaned", f"Loaned: {request.title}", request.status if stays else Status.LOANED)


def discharge(request: RequestState, item: ItemState) -> Decision:
    """The item came back from its reader and stays here for now."""
    if item.loan is None:
        return _not_on_loan(request, item)
    if request.status in LOST:
        return Refused("lost", f"Not discharged: request {request.external_id} is “{request.status.label}”", _LOST)
    if item.loan.other_patron:
        return Refused(
            "loan_of_another_patron",
            f"Not discharged: the loan on this item does not belong to request {request.external_id}",
            "Put the item aside for review by interlibrary-loan staff.",
        )
    if item.loan.claimed_returned:
        return Refused(
            "claimed_returned",
            f"Not discharged: the reader of request {request.external_id} claims to have returned it before",
            "Return from the request and say how the claim ends: found by library, or returned by patron.",
        )
    others = any(other.loan is not None for other in request.items if other.item_id != item.item_id)
    # A recalled item is urgent until it goes home; "Returned by patron" would hide that.
    stays = others or request.status not in WITH_THE_READER or request.status is Status.RECALLED
    step = "It is recalled: return it to its lender at once." if request.status is Status.RECALLED else None
    return Done(
        "discharged",
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
        "not_on_loan",
        f"Not discharged: {request.title} is not on loan",
        "Return it to its lender, or lend it to its reader.",
    )


def complete(request: RequestState) -> Decision:
    """The partner says that it has its items back."""
    if request.status is Status.COMPLETED:
        return AlreadyDone(f"Completed before: request {request.external_id}")
    if request.status is Status.RETURNED_TO_PARTNER:
        return Done("completed", f"Completed: request {request.external_id}", Status.COMPLETED)
    if request.status in CLOSED | LOST:
        return _closed("completed", request)
    if request.status in ON_THE_WAY:
        return Refused(
            "not_received",
            f"Not completed: request {request.external_id} is “{request.status.label}”",
            "Nothing has come yet, so nothing can be back. Ask the partner which request it means.",
        )
    return Done(
        "completed_early",
        f"Completed: request {request.external_id}",
        Status.COMPLETED,
        warnings=("Our own Return of it was not processed yet. When its scan comes, the open loan ends as scanned.",),
    )


def in_use(barcodes: Collection[str]) -> Refused:
    """The refusal of a parcel whose strap or barcode is on another open request."""
    listed = ", ".join(sorted(barcodes))
    return Refused(
        "barcode_in_use",
        f"Not received: {listed} is on an item of another open request",
        "Put another strap on the item, or return the other request's item first.",
    )


def _closed(verb: str, request: RequestState) -> Refused:
    lost = request.status in LOST
    return Refused(
        "lost" if lost else "closed",
        f"Not {verb}: request {request.external_id} is “{request.status.label}”",
        _LOST if lost else _CLOSED,
    )
