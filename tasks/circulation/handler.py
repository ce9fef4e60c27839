# SPDX-License-Identifier: Apache-2.0
"""Receive, loan, discharge, complete: each event locks its request, the rule decides, and one commit keeps it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
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
from schemas.replies import ItemCount
from schemas.request_status import CLOSED
from tasks.circulation import effects, rules
from tasks.events.inbox import process_once
from tasks.events.policy import LibraryPolicy
from tasks.events.results import Batch, HandlerResult, Trusted
from tasks.quarantine.rejection import Received
from tasks.requests import repository
from tasks.requests.barcode_lookup import Ambiguous, Match, no_barcode, resolve, unmatched
from tasks.requests.discharge_time import end_of_loan
from tasks.requests.model import CLOCK_TOLERANCE, ItemState, Refused, RequestState
from tasks.returns.decision import ReturnCommand
from tasks.unit_of_work import UnitOfWork

CycleEvent = ItemsReceived | ItemLoaned | LoanDischarged | RequestCompleted

EVENTS: Final[Mapping[str, type[CycleEvent]]] = {
    "bookdrop.items-received.v1": ItemsReceived,
    "bookdrop.item-loaned.v1": ItemLoaned,
    "bookdrop.loan-discharged.v1": LoanDischarged,
    "bookdrop.request-completed.v1": RequestCompleted,
}


def handle_circulation_events(events: Sequence[Received], uow: UnitOfWork, house: LibraryPolicy) -> Batch[CycleEvent]:
    """Do what each of `events` asks for, in order, in the open transaction of `uow`."""
    return process_once(events, uow, EVENTS, lambda fresh: HandlerResult([_one(each, uow, house) for each in fresh]))


def _one(trusted: Trusted[CycleEvent], uow: UnitOfWork, house: LibraryPolicy) -> ActionReply:
    event = trusted[0].event
    match event:
        case ItemsReceived():
            return _receive(event, trusted, uow)
        case ItemLoaned():
            return _lend(event, trusted, uow, house)
        case LoanDischarged():
            return _discharge(event, trusted, uow, house)
        case RequestCompleted():
            return _complete(event, trusted, uow)
        case _:
            assert_never(event)


def _receive(event: ItemsReceived, trusted: Trusted[CycleEvent], uow: UnitOfWork) -> ActionReply:
    try:
        items = [_cleaned(item) for item in event.items]
    except BarcodeRefusedError as error:
        return _refused(event, no_barcode(error))
    barcodes = {code for item in items for code in (item.barcode, *item.other_barcodes)}
    shelf = repository.lock_and_read(uow.session, barcodes, {event.request.strip()})
    request = _by_id(event.request, shelf)
    if isinstance(request, Refused):
        return _refused(event, request)
    own = {item.item_id for item in request.items}
    taken = {
        code
        for code in barcodes
        for match in shelf.matches(code)
        if match.item_id not in own and match.request is not None and match.request.status not in CLOSED
    }
    known = {code for code in barcodes for item_id, _ in shelf.bearers.get(code, ()) if item_id in own}
    fresh = [item for item in items if not known.intersection((item.barcode, *item.other_barcodes))]
    decision = rules.in_use(taken) if taken else rules.receive(request, fresh=len(fresh), for_loan=event.for_loan)
    if isinstance(decision, rules.Done):
        first = max((item.position for item in request.items), default=0) + 1
        for position, item in enumerate(fresh, first):
            effects.add_item(request.request_id, position, item, uow)
        more = {"return_address": list(event.return_address)} if event.return_address else {}
        effects.move(request, decision, uow, **more)
        effects.tell(trusted, request, decision, uow, "received", items=[n for n, _ in enumerate(fresh, first)])
    count = len(request.items) + (len(fresh) if isinstance(decision, rules.Done) else 0)
    return _reply(event, request, decision, items=ItemCount(here=count, of=count) if count > 1 else None)


def _lend(event: ItemLoaned, trusted: Trusted[CycleEvent], uow: UnitOfWork, house: LibraryPolicy) -> ActionReply:
    found = _scanned(event, uow, house)
    if isinstance(found, ActionReply):
        return found
    shelf, request, item, barcode = found
    patron_id = shelf.paperwork[request.request_id].patron_id
    decision = rules.lend(request, item, has_reader=patron_id is not None)
    if isinstance(decision, rules.Done):
        effects.move(request, decision, uow)
        effects.begin_loan(item.item_id, patron_id, _believable(event.at, uow.now), event.due_at, uow)
        effects.tell(trusted, request, decision, uow, "loaned", items=[item.position])
    return _reply(event, request, decision, barcode=barcode)


def _discharge(
    event: LoanDischarged, trusted: Trusted[CycleEvent], uow: UnitOfWork, house: LibraryPolicy
) -> ActionReply:
    found = _scanned(event, uow, house)
    if isinstance(found, ActionReply):
        return found
    _, request, item, barcode = found
    decision = rules.discharge(request, item)
    warnings: tuple[str, ...] = ()
    if isinstance(decision, rules.Done) and item.loan is not None:
        wish = ReturnCommand(event.at, uow.now, item.item_id, backdated_to=event.returned_at)
        timing = end_of_loan(wish, item.loan.loaned_at)
        if isinstance(timing, Refused):
            return _reply(event, request, timing, barcode=barcode)
        at, warnings = timing
        effects.move(request, decision, uow)
        effects.end_loan(item.loan.loan_id, at, uow)
        effects.tell(trusted, request, decision, uow, "discharged", items=[item.position], at=at)
    return _reply(event, request, decision, barcode=barcode, warnings=warnings)


def _complete(event: RequestCompleted, trusted: Trusted[CycleEvent], uow: UnitOfWork) -> ActionReply:
    shelf = repository.lock_and_read(uow.session, set(), {event.request.strip()})
    request = _by_id(event.request, shelf)
    if isinstance(request, Refused):
        return _refused(event, request)
    decision = rules.complete(request)
    if isinstance(decision, rules.Done):
        # What is confirmed is not undone and not lent again: nothing of the reader is needed any more.
        severed = {} if shelf.paperwork[request.request_id].fee_open else {"patron_id": None}
        effects.move(request, decision, uow, **severed)
        effects.forget_links(request.request_id, uow)
        effects.tell(trusted, request, decision, uow, "completed")
    warnings = decision.warnings if isinstance(decision, rules.Done) else ()
    return _reply(event, request, decision, warnings=warnings)


def _cleaned(item: ReceivedItem) -> ReceivedItem:
    """The item with its barcodes as a scanner's line is cleaned. Raises `BarcodeRefusedError`."""
    others = tuple(clean(code) for code in item.other_barcodes)
    return item.model_copy(update={"barcode": clean(item.barcode), "other_barcodes": others})


def _by_id(external_id: str, shelf: repository.RequestSet) -> RequestState | Refused:
    request_id = shelf.external_ids.get(external_id.strip())
    if request_id is None:
        return Refused(
            "unknown_request",
            f"There is no request {external_id.strip()}",
            "Look the request up again and use its identifier.",
        )
    return shelf.states[request_id]


def _scanned(
    event: ItemLoaned | LoanDischarged, uow: UnitOfWork, house: LibraryPolicy
) -> tuple[repository.RequestSet, RequestState, ItemState, str] | ActionReply:
    """The one item that the event's barcode means, with its request; or the refusal."""
    try:
        barcode = clean(event.barcode)
    except BarcodeRefusedError as error:
        return _refused(event, no_barcode(error))
    shelf = repository.lock_and_read(uow.session, {barcode}, set())
    match resolve(shelf.matches(barcode)):
        case Match(item_id=item_id, request=RequestState() as request):
            return shelf, request, request.item(item_id), barcode
        case Ambiguous() as several:
            listed = ", ".join(f"{r.external_id} ({r.destination.name})" for r in several.requests)
            words = f"Barcode {barcode} is on {len(several.requests)} open requests: {listed}"
            step = "Put another strap on one of the items, or ask interlibrary-loan staff."
            return _refused(event, Refused("several_requests", words, step), barcode=barcode)
        case Refused() as refused:
            return _refused(event, refused, barcode=barcode)
        case _:
            refused = unmatched(
                barcode,
                is_external_id=barcode in shelf.external_ids,
                patron_card_pattern=house.patron_card_pattern,
            )
            # A patron card's number goes no further: not into the inbox, not onto the reply channel.
            return _refused(event, refused, barcode=None if refused.reason == "patron_card" else barcode)


def _believable(at: datetime, now: datetime) -> datetime:
    """A station's time, unless its clock is ahead."""
    return at if at <= now + CLOCK_TOLERANCE else now


def _refused(event: CycleEvent, refused: Refused, *, barcode: str | None = None) -> ActionReply:
    """The refusal of an event that means no request of ours."""
    return ActionReply(
        event_id=event.event_id,
        outcome=ActionOutcome.REFUSED,
        reason=refused.reason,
        message=refused.message,
        next_step=refused.next_step,
        barcode=barcode,
        request=getattr(event, "request", None),
    )


def _reply(event: CycleEvent, request: RequestState, decision: rules.Decision, **more: Any) -> ActionReply:
    outcome, reason, step, after = ActionOutcome.REFUSED, "", None, request.status
    match decision:
        case rules.Done():
            outcome, reason = ActionOutcome.DONE, decision.reason
            step, after = decision.next_step, decision.status_after
        case rules.AlreadyDone():
            outcome, reason = ActionOutcome.ALREADY_DONE, "already_done"
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
