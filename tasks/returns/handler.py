# SPDX-License-Identifier: Apache-2.0
"""The way of a scan: a sequence of events and one transaction; replies and slips come out of its commit."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import insert

from schemas.barcodes import BarcodeRefusedError, clean
from schemas.events import BarcodeScanned
from schemas.models import InboxEntry, table
from schemas.print_jobs import PrintSlip
from schemas.replies import ReturnReply
from schemas.topology import PRINT_SLIP, is_reply_queue, printing_queue
from tasks.returns import records, wording
from tasks.returns.effects import Effects, Homeward
from tasks.returns.quarantine import keep
from tasks.returns.reception import Believed, Distrusted, Received, check_signature, read
from tasks.returns.resolution import Ambiguous, Match, no_barcode, resolve, unmatched
from tasks.returns.states import ItemState, Refused, RequestState, Returned, Wish
from tasks.returns.transition import decide
from tasks.unit_of_work import PendingMessage, UnitOfWork


@dataclass(frozen=True)
class House:
    """The library's own rules, and where ids of new slips come from."""

    new_id: Callable[[], UUID]
    undo_window: timedelta
    patron_card_pattern: str | None = None


@dataclass(frozen=True)
class Answered:
    """One event with its answer, for the log."""

    event: Believed
    reply: ReturnReply | None
    """`None` when the answer of before was sent again."""


@dataclass
class Batch:
    """What became of a sequence of events."""

    answered: list[Answered] = field(default_factory=list)
    distrusted: list[Distrusted] = field(default_factory=list)
    again: list[PendingMessage] = field(default_factory=list)
    """Stored replies to send once more; they need no row, for who wants them asks again."""


def return_items(events: Sequence[Received], uow: UnitOfWork, house: House) -> Batch:
    """Perform the Return that each of `events` asks for, in order, in the open transaction of `uow`.

    An event that was answered before gets its stored reply, byte for byte. What cannot be believed goes to
    quarantine. Every other event gets a reply; its row, its slip's and the history's are written together.
    Raises only what makes the whole transaction worth another try, or what is a fault of ours.
    """
    batch = Batch()
    believed = _believe(events, uow, batch)
    fresh = _answer_again(believed, uow, batch)
    if fresh:
        _perform(fresh, uow, house, batch)
    keep(batch.distrusted, uow)
    return batch


def _believe(events: Sequence[Received], uow: UnitOfWork, batch: Batch) -> list[tuple[Believed, records.Desk]]:
    """Sort out what has the wrong form, an unknown station or a wrong signature."""
    well_formed: list[Believed] = []
    for received in events:
        match read(received):
            case Distrusted() as distrusted:
                batch.distrusted.append(distrusted)
            case believed:
                well_formed.append(believed)
    desks = records.desks(uow.session, {each.event.station for each in well_formed}) if well_formed else {}
    trusted: list[tuple[Believed, records.Desk]] = []
    for each in well_formed:
        desk = desks.get(each.event.station)
        wrong = check_signature(each, desk.key if desk else None)
        if wrong is not None:
            batch.distrusted.append(wrong)
        elif desk is not None:
            trusted.append((each, desk))
    return trusted


def _answer_again(
    trusted: Sequence[tuple[Believed, records.Desk]], uow: UnitOfWork, batch: Batch
) -> list[tuple[Believed, records.Desk]]:
    """Send stored replies again; give back the events that have none, each id once."""
    known = records.known_answers(uow.session, [each.event.event_id for each, _ in trusted]) if trusted else {}
    fresh: dict[UUID, tuple[Believed, records.Desk]] = {}
    for each, desk in trusted:
        event_id = each.event.event_id
        fingerprint, reply = known.get(event_id, (None, None))
        if event_id in fresh:
            fingerprint = fresh[event_id][0].fingerprint
        if fingerprint is None:
            fresh[event_id] = (each, desk)
        elif fingerprint != each.fingerprint:
            received = Received(each.payload, each.reply_to)
            batch.distrusted.append(Distrusted(received, "other_payload", "", event_id, each.event.station))
        elif reply is not None:
            batch.answered.append(Answered(each, None))
            if each.reply_to is not None and is_reply_queue(each.reply_to):
                batch.again.append(PendingMessage(None, each.reply_to, None, reply, event_id))
    return list(fresh.values())


def _perform(fresh: Sequence[tuple[Believed, records.Desk]], uow: UnitOfWork, house: House, batch: Batch) -> None:
    asked = [_subject(each) for each, _ in fresh]
    shelf = records.lock_and_read(
        uow.session,
        {subject for subject, is_barcode in asked if subject and is_barcode},
        {subject for subject, is_barcode in asked if subject and not is_barcode},
    )
    effects = Effects(uow.now, house.undo_window)
    replies = [_one(trusted, shelf, effects, house) for trusted in fresh]
    replies = _offer_reprints(replies, shelf, effects, uow)
    effects.write(uow.session)
    uow.session.execute(
        insert(table(InboxEntry)),
        [
            {
                "event_id": each.event.event_id,
                "fingerprint": each.fingerprint,
                "station": each.event.station,
                "answered_at": uow.now,
                "outcome": reply.outcome.value,
                "reply": reply.model_dump_json(exclude_none=True),
            }
            for (each, _), reply in zip(fresh, replies, strict=True)
        ],
    )
    for (each, _), reply in zip(fresh, replies, strict=True):
        batch.answered.append(Answered(each, reply))
        if each.reply_to is not None and is_reply_queue(each.reply_to):
            uow.say(each.reply_to, reply.model_dump_json(exclude_none=True), event_id=reply.event_id)
    for job in effects.print_jobs:
        order = PrintSlip(job_id=job["id"]).model_dump_json()
        uow.say(printing_queue(job["branch"]), order, task=PRINT_SLIP, event_id=job["event_id"])


def _subject(each: Believed) -> tuple[str | None, bool]:
    """What the event is about, and whether that is a barcode; `None` when it cannot be looked up."""
    event = each.event
    if isinstance(event, BarcodeScanned):
        try:
            return clean(event.barcode), True
        except BarcodeRefusedError:
            return None, True
    printable = all(unicodedata.category(char) not in {"Cc", "Cs"} for char in event.request)
    return (event.request.strip() if printable else None), False


def _one(trusted: tuple[Believed, records.Desk], shelf: records.Shelf, effects: Effects, house: House) -> ReturnReply:
    """Decide one event, add its effects, and let the shelf move on."""
    each, desk = trusted
    event = each.event
    meant = _meant(each, shelf, house)
    if isinstance(meant, ReturnReply):
        return meant
    request, item_id, barcode = meant
    wish = Wish(
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
        slips = [house.new_id() for _ in decision.items] if event.print_slip else []
        effects.add(Homeward(event, desk, request, decision, slips), shelf)
        shelf.states[request.request_id] = _moved_on(request, decision, desk)
    return wording.reply_to_decision(
        event.event_id, decision, request, barcode=barcode, slip=slips[0] if slips else None
    )


def _meant(
    each: Believed, shelf: records.Shelf, house: House
) -> tuple[RequestState, int | None, str | None] | ReturnReply:
    """The request, the scanned item and its barcode; or the refusal of an event that means no request."""
    event = each.event
    if isinstance(event, BarcodeScanned):
        try:
            return _scanned(event.event_id, clean(event.barcode), shelf, house)
        except BarcodeRefusedError as error:
            return wording.refusal(event.event_id, no_barcode(error))
    subject, _ = _subject(each)
    request_id = shelf.external_ids.get(subject) if subject else None
    if request_id is None:
        words = f"Not returned: there is no request {subject or ''}".rstrip()
        unknown = Refused("unknown_request", words, "Look the request up again and use its identifier.")
        return wording.refusal(event.event_id, unknown, request=subject)
    return shelf.states[request_id], None, None


def _scanned(
    event_id: UUID, barcode: str, shelf: records.Shelf, house: House
) -> tuple[RequestState, int | None, str | None] | ReturnReply:
    match resolve(shelf.matches(barcode)):
        case Match(item_id=item_id, request=RequestState() as request):
            return request, item_id, barcode
        case Ambiguous() as ambiguous:
            return wording.choice(event_id, ambiguous, barcode)
        case Refused() as refused:
            return wording.refusal(event_id, refused, barcode=barcode)
        case _:
            refused = unmatched(
                barcode,
                is_external_id=barcode in shelf.external_ids,
                patron_card_pattern=house.patron_card_pattern,
            )
            # A patron card's number goes no further: not into the inbox, not onto the reply channel.
            shown = None if refused.reason == "patron_card" else barcode
            return wording.refusal(event_id, refused, barcode=shown)


def _moved_on(request: RequestState, decision: Returned, desk: records.Desk) -> RequestState:
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
    replies: list[ReturnReply], shelf: records.Shelf, effects: Effects, uow: UnitOfWork
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
    slips = records.slips_of(uow.session, set(wanted.values()))
    slips.update({job["item_id"]: job["id"] for job in effects.print_jobs})
    return [
        reply.model_copy(update={"slip": slips.get(wanted[reply.event_id])}) if reply.event_id in wanted else reply
        for reply in replies
    ]
