# SPDX-License-Identifier: Apache-2.0
"""Handle receive, loan, discharge and complete: lock the request, decide, write the effects."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, assert_never

from schemas.barcodes import BarcodeRefusedError, clean
from schemas.circulation_events import (
    ActionOutcome,
    ActionReply,
    ItemLoaned,
    ItemsReceived,
    LoanDischarged,
    ReceivedItem,
    RequestCompleted,
)
from schemas.reasons import ReplyReason
from schemas.replies import ItemCount
from schemas.request_status import CLOSED
from tasks.circulation import effects, rules
from tasks.events.handler import EventHandler, accepting
from tasks.events.model import HandlerResult, VerifiedEvent
from tasks.events.policy import LibraryPolicy
from tasks.requests.barcode_lookup import Ambiguous
from tasks.requests.discharge_time import discharge_time
from tasks.requests.history import HistoryKind, HistoryLine, record
from tasks.requests.model import CLOCK_TOLERANCE, ItemState, Refused, RequestState
from tasks.requests.refusals import invalid_barcode, unknown_request
from tasks.requests.repository import RequestSet, lock_and_read
from tasks.unit_of_work import UnitOfWork

CirculationEvent = ItemsReceived | ItemLoaned | LoanDischarged | RequestCompleted


def handle_circulation_events(
    events: Sequence[VerifiedEvent[CirculationEvent]], uow: UnitOfWork, policy: LibraryPolicy
) -> HandlerResult:
    """Perform what each of `events` asks for, in order."""
    return HandlerResult([_handle(each, uow, policy) for each in events])


CIRCULATION_HANDLER: Final = EventHandler(
    accepting(ItemsReceived, ItemLoaned, LoanDischarged, RequestCompleted), handle_circulation_events
)


def _handle(verified: VerifiedEvent[CirculationEvent], uow: UnitOfWork, policy: LibraryPolicy) -> ActionReply:
    event = verified.event
    match event:
        case ItemsReceived():
            return _receive(event, verified, uow)
        case ItemLoaned():
            return _lend(event, verified, uow, policy)
        case LoanDischarged():
            return _discharge(event, verified, uow, policy)
        case RequestCompleted():
            return _complete(event, verified, uow)
        case _:
            assert_never(event)


def _receive(event: ItemsReceived, verified: VerifiedEvent[CirculationEvent], uow: UnitOfWork) -> ActionReply:
    try:
        items = [_cleaned(item) for item in event.items]
    except BarcodeRefusedError as error:
        return _refused(event, invalid_barcode(error))
    barcodes = {code for item in items for code in (item.barcode, *item.other_barcodes)}
    requests = lock_and_read(uow.session, barcodes, {event.request.strip()})
    request = _find_request(event.request, requests)
    if isinstance(request, Refused):
        return _refused(event, request)
    own = {item.item_id for item in request.items}
    taken = {
        code
        for code in barcodes
        for match in requests.matches(code)
        if match.item_id not in own and match.request is not None and match.request.status not in CLOSED
    }
    known = {code for code in barcodes for item_id, _ in requests.items_by_barcode.get(code, ()) if item_id in own}
    new = [item for item in items if not known.intersection((item.barcode, *item.other_barcodes))]
    decision = rules.in_use(taken) if taken else rules.receive(request, new_items=len(new), for_loan=event.for_loan)
    if isinstance(decision, rules.Done):
        first = max((item.position for item in request.items), default=0) + 1
        for position, item in enumerate(new, first):
            effects.add_item(request.request_id, position, item, uow)
        more = {"return_address": list(event.return_address)} if event.return_address else {}
        effects.update_request(request, decision, uow, **more)
        positions = [position for position, _ in enumerate(new, first)]
        # An import keeps a return address that was entered here.
        details = {"return_address": bool(event.return_address)}
        _record(verified, request, decision, uow, HistoryKind.RECEIVED, items=positions, details=details)
    count = len(request.items) + (len(new) if isinstance(decision, rules.Done) else 0)
    return _reply(event, request, decision, items=ItemCount(here=count, of=count) if count > 1 else None)


def _lend(
    event: ItemLoaned, verified: VerifiedEvent[CirculationEvent], uow: UnitOfWork, policy: LibraryPolicy
) -> ActionReply:
    found = _find_item(event, uow, policy)
    if isinstance(found, ActionReply):
        return found
    requests, request, item, barcode = found
    patron_id = requests.details[request.request_id].patron_id
    decision = rules.lend(request, item, has_patron=patron_id is not None)
    if isinstance(decision, rules.Done):
        effects.update_request(request, decision, uow)
        effects.begin_loan(item.item_id, patron_id, _valid_time(event.at, uow.now), event.due_at, uow)
        _record(verified, request, decision, uow, HistoryKind.LOANED, items=[item.position])
    return _reply(event, request, decision, barcode=barcode)


def _discharge(
    event: LoanDischarged, verified: VerifiedEvent[CirculationEvent], uow: UnitOfWork, policy: LibraryPolicy
) -> ActionReply:
    found = _find_item(event, uow, policy)
    if isinstance(found, ActionReply):
        return found
    _, request, item, barcode = found
    decision = rules.discharge(request, item)
    warnings: tuple[str, ...] = ()
    if isinstance(decision, rules.Done) and item.loan is not None:
        timing = discharge_time(
            occurred_at=event.at,
            received_at=uow.now,
            backdate=event.returned_at,
            loan_began=item.loan.loaned_at,
            action="Not discharged",
        )
        if isinstance(timing, Refused):
            return _reply(event, request, timing, barcode=barcode)
        at, warnings = timing
        effects.update_request(request, decision, uow)
        effects.end_loan(item.loan.loan_id, at, uow)
        _record(verified, request, decision, uow, HistoryKind.DISCHARGED, items=[item.position], at=at)
    return _reply(event, request, decision, barcode=barcode, warnings=warnings)


def _complete(event: RequestCompleted, verified: VerifiedEvent[CirculationEvent], uow: UnitOfWork) -> ActionReply:
    requests = lock_and_read(uow.session, set(), {event.request.strip()})
    request = _find_request(event.request, requests)
    if isinstance(request, Refused):
        return _refused(event, request)
    decision = rules.complete(request)
    if isinstance(decision, rules.Done):
        # A confirmed Return is not undone and the item is not lent again, so the patron link is no longer needed.
        severed = {} if requests.details[request.request_id].fee_open else {"patron_id": None}
        effects.update_request(request, decision, uow, **severed)
        effects.delete_undo_links(request.request_id, uow)
        _record(verified, request, decision, uow, HistoryKind.COMPLETED)
    warnings = decision.warnings if isinstance(decision, rules.Done) else ()
    return _reply(event, request, decision, warnings=warnings)


def _cleaned(item: ReceivedItem) -> ReceivedItem:
    """The item with its barcodes cleaned. Raises `BarcodeRefusedError`."""
    others = tuple(clean(code) for code in item.other_barcodes)
    return item.model_copy(update={"barcode": clean(item.barcode), "other_barcodes": others})


def _find_request(external_id: str, requests: RequestSet) -> RequestState | Refused:
    return requests.find_request(external_id.strip()) or unknown_request(external_id.strip())


def _find_item(
    event: ItemLoaned | LoanDischarged, uow: UnitOfWork, policy: LibraryPolicy
) -> tuple[RequestSet, RequestState, ItemState, str] | ActionReply:
    """The one item that the event's barcode identifies, with its request; or the refusal."""
    try:
        barcode = clean(event.barcode)
    except BarcodeRefusedError as error:
        return _refused(event, invalid_barcode(error))
    requests = lock_and_read(uow.session, {barcode}, set())
    match requests.find_item(barcode, policy.patron_card_pattern):
        case Ambiguous() as several:
            listed = ", ".join(f"{r.external_id} ({r.destination.name})" for r in several.requests)
            message = f"Barcode {barcode} is on {len(several.requests)} open requests: {listed}"
            step = "Put another strap on one of the items, or ask interlibrary-loan staff."
            return _refused(event, Refused(ReplyReason.SEVERAL_REQUESTS, message, step), barcode=barcode)
        case Refused() as refused:
            return _refused(event, refused, barcode=None if refused.hides_code else barcode)
        case found:
            return requests, found.request, found.request.item(found.item_id), barcode


def _record(
    verified: VerifiedEvent[CirculationEvent],
    request: RequestState,
    decision: rules.Done,
    uow: UnitOfWork,
    kind: HistoryKind,
    *,
    items: Sequence[int] = (),
    at: datetime | None = None,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the line of history. `items`: positions. `at`: the time of the event unless it differs."""
    line = HistoryLine(
        request_id=request.request_id,
        event_id=verified.event.event_id,
        kind=kind,
        status_before=request.status,
        status_after=decision.status_after,
        at=at or min(verified.event.at, uow.now),
        recorded_at=uow.now,
        branch=verified.station.branch,
        station=verified.station.code,
        details={"reason": decision.reason, **({"items": list(items)} if items else {}), **details},
    )
    record(uow.session, line)


def _valid_time(at: datetime, now: datetime) -> datetime:
    """The station's time, or the worker's when the station's clock is ahead."""
    return at if at <= now + CLOCK_TOLERANCE else now


def _refused(event: CirculationEvent, refused: Refused, *, barcode: str | None = None) -> ActionReply:
    """The refusal of an event that identifies no request."""
    return ActionReply(
        event_id=event.event_id,
        outcome=ActionOutcome.REFUSED,
        reason=refused.reason,
        message=refused.message,
        next_step=refused.next_step,
        barcode=barcode,
        request=getattr(event, "request", None),
    )


def _reply(event: CirculationEvent, request: RequestState, decision: rules.Decision, **more: Any) -> ActionReply:
    outcome, reason, step, after = ActionOutcome.REFUSED, ReplyReason.ALREADY_DONE, None, request.status
    match decision:
        case rules.Done():
            outcome, reason = ActionOutcome.DONE, decision.reason
            step, after = decision.next_step, decision.status_after
        case rules.AlreadyDone():
            outcome, reason = ActionOutcome.ALREADY_DONE, ReplyReason.ALREADY_DONE
        case Refused():
            reason, step = decision.reason, decision.next_step
        case _:
            assert_never(decision)
    return ActionReply(
        event_id=event.event_id,
        outcome=outcome,
        reason=reason,
        message=decision.message,
        next_step=step,
        title=request.title,
        request=request.external_id,
        destination=request.destination,
        status_before=request.status,
        status_after=after,
        **more,
    )
