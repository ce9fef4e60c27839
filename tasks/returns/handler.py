# SPDX-License-Identifier: Apache-2.0
"""The way of a scan: a sequence of events and one transaction; replies and slips come out of its commit."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from schemas.barcodes import BarcodeRefusedError, clean
from schemas.events import BarcodeScanned, Event, ReturnRequested
from schemas.print_jobs import PrintSlip
from schemas.replies import ReturnReply
from schemas.topology import PRINT_SLIP, printing_queue
from tasks.events.inbox import process_once
from tasks.events.policy import LibraryPolicy
from tasks.events.results import Batch, FollowUp, HandlerResult, Trusted
from tasks.events.stations import StationRecord
from tasks.events.validation import ParsedEvent
from tasks.quarantine.rejection import Received
from tasks.requests import repository
from tasks.requests.barcode_lookup import Ambiguous, Match, no_barcode, resolve, unmatched
from tasks.requests.model import ItemState, Refused, RequestState
from tasks.returns.decision import ReturnCommand, Returned
from tasks.returns.effects import DecidedReturn, Effects
from tasks.returns.replies import choice, refusal, reply_to_decision
from tasks.returns.transition import decide
from tasks.unit_of_work import UnitOfWork

EVENTS: Final[Mapping[str, type[Event]]] = {
    "bookdrop.barcode-scanned.v1": BarcodeScanned,
    "bookdrop.return-requested.v1": ReturnRequested,
}
"""What asks for a Return, by the type's name."""


def return_items(events: Sequence[Received], uow: UnitOfWork, house: LibraryPolicy) -> Batch[Event]:
    """Perform the Return that each of `events` asks for, in order, in the open transaction of `uow`.

    Each event gets a reply; its row, its slip's and the history's are written together. See `tasks.events.inbox`
    for events that were answered before, or cannot be believed.
    Raises only what makes the whole transaction worth another try, or what is a fault of ours.
    """
    return process_once(events, uow, EVENTS, lambda fresh: _perform(fresh, uow, house))


def _perform(fresh: Sequence[Trusted[Event]], uow: UnitOfWork, house: LibraryPolicy) -> HandlerResult:
    asked = [_subject(each) for each, _ in fresh]
    shelf = repository.lock_and_read(
        uow.session,
        {subject for subject, is_barcode in asked if subject and is_barcode},
        {subject for subject, is_barcode in asked if subject and not is_barcode},
    )
    effects = Effects(uow.now, house.undo_window)
    replies = [_one(trusted, shelf, effects, house) for trusted in fresh]
    replies = _offer_reprints(replies, shelf, effects, uow)
    effects.write(uow.session)
    return HandlerResult(replies, [_print_order(job) for job in effects.print_jobs])


def _print_order(job: Mapping[str, Any]) -> FollowUp:
    return FollowUp(
        printing_queue(job["branch"]), PRINT_SLIP, PrintSlip(job_id=job["id"]).model_dump_json(), job["event_id"]
    )


def _subject(each: ParsedEvent[Event]) -> tuple[str | None, bool]:
    """What the event is about, and whether that is a barcode; `None` when it cannot be looked up."""
    event = each.event
    if isinstance(event, BarcodeScanned):
        try:
            return clean(event.barcode), True
        except BarcodeRefusedError:
            return None, True
    printable = all(unicodedata.category(char) not in {"Cc", "Cs"} for char in event.request)
    return (event.request.strip() if printable else None), False


def _one(trusted: Trusted[Event], shelf: repository.RequestSet, effects: Effects, house: LibraryPolicy) -> ReturnReply:
    """Decide one event, add its effects, and let the shelf move on."""
    each, desk = trusted
    event = each.event
    meant = _find_request(each, shelf, house)
    if isinstance(meant, ReturnReply):
        return meant
    request, item_id, barcode = meant
    wish = ReturnCommand(
        occurred_at=event.occurred_at,
        received_at=effects.now,
        item_id=item_id,
        backdated_to=event.returned_at,
        override=getattr(event, "override", None),
        resolution=getattr(event, "resolution", None),
        force_partial=getattr(event, "force_partial", False),
    )
    decision = decide(request, wish)
    slips: list[UUID] = []
    if isinstance(decision, Returned):
        slips = [house.new_id() for _ in decision.items] if event.print_slip and decision.wants_slip else []
        effects.add(DecidedReturn(event, desk, request, decision, slips), shelf)
        shelf.states[request.request_id] = _after(request, decision, desk)
    return reply_to_decision(event.event_id, decision, request, barcode=barcode, slip=slips[0] if slips else None)


def _find_request(
    each: ParsedEvent[Event], shelf: repository.RequestSet, house: LibraryPolicy
) -> tuple[RequestState, int | None, str | None] | ReturnReply:
    """The request, the scanned item and its barcode; or the refusal of an event that means no request."""
    event = each.event
    if isinstance(event, BarcodeScanned):
        try:
            return _scanned(event.event_id, clean(event.barcode), shelf, house)
        except BarcodeRefusedError as error:
            return refusal(event.event_id, no_barcode(error))
    subject, _ = _subject(each)
    request_id = shelf.external_ids.get(subject) if subject else None
    if request_id is None:
        words = f"Not returned: there is no request {subject or ''}".rstrip()
        unknown = Refused("unknown_request", words, "Look the request up again and use its identifier.")
        return refusal(event.event_id, unknown, request=subject)
    return shelf.states[request_id], None, None


def _scanned(
    event_id: UUID, barcode: str, shelf: repository.RequestSet, house: LibraryPolicy
) -> tuple[RequestState, int | None, str | None] | ReturnReply:
    match resolve(shelf.matches(barcode)):
        case Match(item_id=item_id, request=RequestState() as request):
            return request, item_id, barcode
        case Ambiguous() as ambiguous:
            return choice(event_id, ambiguous, barcode)
        case Refused() as refused:
            return refusal(event_id, refused, barcode=barcode)
        case _:
            refused = unmatched(
                barcode,
                is_external_id=barcode in shelf.external_ids,
                patron_card_pattern=house.patron_card_pattern,
            )
            # A patron card's number goes no further: not into the inbox, not onto the reply channel.
            shown = None if refused.reason == "patron_card" else barcode
            return refusal(event_id, refused, barcode=shown)


def _after(request: RequestState, decision: Returned, desk: StationRecord) -> RequestState:
    """The request after the decision, for later events of the same batch."""
    going = {item.item_id for item in decision.items}

    def after(item: ItemState) -> ItemState:
        return (
            replace(item, loan=None, returned_at=decision.at, returned_by=desk.code) if item.item_id in going else item
        )

    return replace(
        request,
        status=decision.status_after,
        items=tuple(after(item) for item in request.items),
        returned_at=decision.at if decision.completes else request.returned_at,
        returned_by=desk.code if decision.completes else request.returned_by,
    )


def _offer_reprints(
    replies: list[ReturnReply], shelf: repository.RequestSet, effects: Effects, uow: UnitOfWork
) -> list[ReturnReply]:
    """Name the slip of what was returned before, so that the desk can offer its reprint."""
    wanted: dict[UUID, int] = {}
    for reply in replies:
        if reply.outcome == "already_returned" and reply.request is not None:
            state = shelf.states[shelf.external_ids[reply.request]]
            bearers = {item_id for item_id, _ in shelf.bearers.get(reply.barcode or "", ())}
            item = next(
                (item for item in state.items if item.item_id in bearers), state.items[0] if state.items else None
            )
            if item is not None:
                wanted[reply.event_id] = item.item_id
    if not wanted:
        return replies
    slips = repository.slips_of(uow.session, set(wanted.values()))
    slips.update({job["item_id"]: job["id"] for job in effects.print_jobs})
    return [
        reply.model_copy(update={"slip": slips.get(wanted[reply.event_id])}) if reply.event_id in wanted else reply
        for reply in replies
    ]
