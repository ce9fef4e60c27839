# SPDX-License-Identifier: Apache-2.0
"""The reply to a decision: the message and the next step that staff read. Pure."""

from typing import assert_never
from uuid import UUID

from schemas.reasons import ReplyReason
from schemas.replies import ItemCount, Outcome, RequestChoice, ReturnReply
from schemas.request_status import CLOSED
from tasks.requests.barcode_lookup import Ambiguous
from tasks.requests.model import Refused, RequestState
from tasks.returns.decision import AlreadyReturned, Decision, Returned


def destination_message(request: RequestState) -> str:
    """The sentence that names the lender on the screen."""
    return f"The item's destination is {request.destination.name}"


def reply_to_decision(
    event_id: UUID, decision: Decision, request: RequestState, *, barcode: str | None, slip: UUID | None
) -> ReturnReply:
    """The reply to an event whose request is known. `barcode` is `None` for Return from the request."""
    count = len(request.items)
    match decision:
        case Returned():
            message = destination_message(request)
            if barcode is None:
                message = f"Request {request.external_id} is returned. {message}"
            return ReturnReply(
                event_id=event_id,
                outcome=Outcome.RETURNED,
                reason=decision.reason,
                message=message,
                next_step=_keep_with_others(decision, count),
                barcode=barcode,
                title=request.title,
                destination=request.destination,
                request=request.external_id,
                status_before=request.status,
                status_after=decision.status_after,
                discharged=any(item.loan is not None for item in decision.items),
                slip=slip,
                items=ItemCount(here=decision.here, of=count) if count > 1 else None,
                urgent=decision.urgent,
                warnings=decision.warnings,
                returned_at=decision.at,
            )
        case AlreadyReturned():
            return ReturnReply(
                event_id=event_id,
                outcome=Outcome.ALREADY_RETURNED,
                reason=ReplyReason.ALREADY_RETURNED,
                message=f"Already returned. {destination_message(request)}",
                next_step=_next_step_again(request, decision),
                barcode=barcode,
                title=request.title,
                destination=request.destination,
                request=request.external_id,
                status_before=request.status,
                status_after=request.status,
                slip=slip,
                items=ItemCount(here=decision.here, of=count) if count > 1 else None,
                returned_at=decision.at,
                returned_by=decision.by,
            )
        case Refused():
            return ReturnReply(
                event_id=event_id,
                outcome=Outcome.REFUSED,
                reason=decision.reason,
                message=decision.message,
                next_step=decision.next_step,
                barcode=barcode,
                title=request.title,
                destination=request.destination if decision.names_destination else None,
                request=request.external_id,
                status_before=request.status,
                status_after=request.status,
            )
        case _:
            assert_never(decision)


def refusal(event_id: UUID, refused: Refused, *, barcode: str | None = None, request: str | None = None) -> ReturnReply:
    """The reply to an event that identifies no request."""
    return ReturnReply(
        event_id=event_id,
        outcome=Outcome.REFUSED,
        reason=refused.reason,
        message=refused.message,
        next_step=refused.next_step,
        barcode=barcode,
        request=request,
    )


def choice(event_id: UUID, ambiguous: Ambiguous, barcode: str) -> ReturnReply:
    """The reply to a barcode that several open requests have."""
    listed = ", ".join(f"{r.external_id} ({r.destination.name})" for r in ambiguous.requests)
    return ReturnReply(
        event_id=event_id,
        outcome=Outcome.REFUSED,
        reason=ReplyReason.SEVERAL_REQUESTS,
        message=f"Not returned: barcode {barcode} is on {len(ambiguous.requests)} open requests: {listed}",
        next_step="Pick the request that fits the item, and use Return on that request.",
        barcode=barcode,
        choices=tuple(
            RequestChoice(external_id=r.external_id, title=r.title, status=r.status, destination=r.destination)
            for r in ambiguous.requests
        ),
    )


def _keep_with_others(decision: Returned, count: int) -> str | None:
    if not decision.completes and decision.status_after not in CLOSED and decision.here < count:
        return f"Keep it with the other items of its request: {decision.here} of {count} are here."
    return None


def _next_step_again(request: RequestState, decision: AlreadyReturned) -> str:
    count = len(request.items)
    if request.status not in CLOSED and decision.here < count:
        return f"Keep it with the other items of its request: {decision.here} of {count} are here."
    return "Send it if it is still here. Reprint the slip if it is missing."
