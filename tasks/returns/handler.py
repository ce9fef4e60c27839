# SPDX-License-Identifier: Apache-2.0
"""Handle Returns: look up the requests, decide each event, write the effects."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from schemas.barcodes import BarcodeRefusedError, clean
from schemas.events import BarcodeScanned, Event, ReturnRequested
from schemas.replies import ReturnReply
from tasks.events.handler import EventHandler, accepting
from tasks.events.model import HandlerResult, StationRecord, VerifiedEvent
from tasks.events.policy import LibraryPolicy
from tasks.print_jobs import print_task
from tasks.requests.barcode_lookup import Ambiguous
from tasks.requests.model import ItemState, Refused, RequestState
from tasks.requests.refusals import invalid_barcode, unknown_request
from tasks.requests.repository import RequestSet, lock_and_read, slips_of
from tasks.returns.decision import ReturnCommand, Returned
from tasks.returns.effects import DecidedReturn, Effects
from tasks.returns.replies import choice, refusal, reply_to_decision
from tasks.returns.transition import decide
from tasks.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class _Subject:
    """The subject of an event: a barcode, or the external identifier of a request."""

    barcode: str | None = None
    external_id: str | None = None
    refused: Refused | None = None
    """Set when what was scanned or typed can be neither."""


@dataclass(frozen=True)
class _Found:
    """The request to return, and the scanned item; `None` for Return from the request."""

    request: RequestState
    item_id: int | None


def handle_returns(events: Sequence[VerifiedEvent[Event]], uow: UnitOfWork, policy: LibraryPolicy) -> HandlerResult:
    """Perform the Return that each of `events` asks for, in order."""
    subjects = [_subject(each.event) for each in events]
    requests = lock_and_read(
        uow.session,
        {subject.barcode for subject in subjects if subject.barcode is not None},
        {subject.external_id for subject in subjects if subject.external_id is not None},
    )
    effects = Effects(uow.now, policy.undo_window)
    replies = [
        _return(each, subject, requests, effects, policy) for each, subject in zip(events, subjects, strict=True)
    ]
    replies = _offer_reprints(replies, requests, effects, uow)
    effects.write(uow.session)
    print_tasks = [print_task(job["id"], job["branch"], job["event_id"]) for job in effects.print_jobs]
    return HandlerResult(replies, print_tasks)


RETURN_HANDLER: Final = EventHandler(accepting(BarcodeScanned, ReturnRequested), handle_returns)


def _subject(event: Event) -> _Subject:
    if isinstance(event, BarcodeScanned):
        try:
            return _Subject(barcode=clean(event.barcode))
        except BarcodeRefusedError as error:
            return _Subject(refused=invalid_barcode(error))
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in event.request):
        return _Subject(refused=unknown_request(None, action="Not returned"))
    return _Subject(external_id=event.request.strip())


def _return(
    verified: VerifiedEvent[Event], subject: _Subject, requests: RequestSet, effects: Effects, policy: LibraryPolicy
) -> ReturnReply:
    """Decide one event, add its effects, and replace the state of its request."""
    event, station = verified.event, verified.station
    found = _find(event.event_id, subject, requests, policy)
    if isinstance(found, ReturnReply):
        return found
    request = found.request
    owner = requests.details[request.request_id].branch_id
    is_elsewhere = policy.own_branch_only and owner != station.branch_id
    decision = decide(request, _command(event, effects, found.item_id, is_elsewhere=is_elsewhere))
    slips: list[UUID] = []
    if isinstance(decision, Returned):
        slips = [policy.new_id() for _ in decision.items] if event.print_slip and decision.wants_slip else []
        effects.add(DecidedReturn(event, station, request, decision, slips), requests)
        requests.states[request.request_id] = _after(request, decision, station)
    slip = slips[0] if slips else None
    return reply_to_decision(event.event_id, decision, request, barcode=subject.barcode, slip=slip)


def _find(event_id: UUID, subject: _Subject, requests: RequestSet, policy: LibraryPolicy) -> _Found | ReturnReply:
    """The request and the item that the event identifies; or the refusal when it identifies none."""
    if subject.barcode is not None:
        match requests.find_item(subject.barcode, policy.patron_card_pattern):
            case Ambiguous() as ambiguous:
                return choice(event_id, ambiguous, subject.barcode)
            case Refused() as refused:
                return refusal(event_id, refused, barcode=None if refused.hides_code else subject.barcode)
            case found:
                return _Found(found.request, found.item_id)
    if subject.external_id is not None:
        request = requests.find_request(subject.external_id)
        if request is not None:
            return _Found(request, None)
    refused = subject.refused or unknown_request(subject.external_id, action="Not returned")
    return refusal(event_id, refused, request=subject.external_id)


def _command(event: Event, effects: Effects, item_id: int | None, *, is_elsewhere: bool) -> ReturnCommand:
    command = ReturnCommand(event.occurred_at, effects.now, item_id, backdated_to=event.returned_at)
    if isinstance(event, BarcodeScanned):
        return command
    return replace(
        command,
        override=event.override,
        is_override_elsewhere=is_elsewhere,
        resolution=event.resolution,
        force_partial=event.force_partial,
    )


def _after(request: RequestState, decision: Returned, station: StationRecord) -> RequestState:
    """The request after the decision, for later events of the same batch."""
    returned = {item.item_id for item in decision.items}

    def after(item: ItemState) -> ItemState:
        if item.item_id not in returned:
            return item
        return replace(item, loan=None, returned_at=decision.at, returned_by=station.code)

    return replace(
        request,
        status=decision.status_after,
        items=tuple(after(item) for item in request.items),
        returned_at=decision.at if decision.completes else request.returned_at,
        returned_by=station.code if decision.completes else request.returned_by,
    )


def _offer_reprints(
    replies: list[ReturnReply], requests: RequestSet, effects: Effects, uow: UnitOfWork
) -> list[ReturnReply]:
    """Add the slip's id to each "already returned" reply, so that the station can offer a reprint."""
    item_ids: dict[UUID, int] = {}
    for reply in replies:
        if reply.outcome == "already_returned" and reply.request is not None:
            state = requests.states[requests.external_ids[reply.request]]
            scanned = {item_id for item_id, _ in requests.items_by_barcode.get(reply.barcode or "", ())}
            item = next(
                (item for item in state.items if item.item_id in scanned), state.items[0] if state.items else None
            )
            if item is not None:
                item_ids[reply.event_id] = item.item_id
    if not item_ids:
        return replies
    slips = slips_of(uow.session, set(item_ids.values()))
    slips.update({job["item_id"]: job["id"] for job in effects.print_jobs})
    return [
        reply.model_copy(update={"slip": slips.get(item_ids[reply.event_id])}) if reply.event_id in item_ids else reply
        for reply in replies
    ]
