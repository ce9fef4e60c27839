# SPDX-License-Identifier: Apache-2.0
"""Each event answered once: believed, told from those answered before, performed, and its answer stored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from schemas.models import InboxEntry, table
from schemas.topology import is_reply_queue
from tasks.events.results import Answered, Batch, HandlerResult, Trusted
from tasks.events.stations import load_stations
from tasks.events.validation import AnEvent, ParsedEvent, check_signature, read
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import Received, RejectedMessage
from tasks.quarantine.store import quarantine
from tasks.unit_of_work import UnitOfWork


def process_once(
    events: Sequence[Received],
    uow: UnitOfWork,
    accepted: Mapping[str, type[AnEvent]],
    perform: Callable[[Sequence[Trusted[AnEvent]]], HandlerResult],
) -> Batch[AnEvent]:
    """Answer each of `events` in the open transaction of `uow`; `perform` does those that are new.

    An event that was answered before gets its stored reply, byte for byte. What cannot be believed, or is of no
    type in `accepted`, goes to quarantine. Every other event gets a reply, which is stored in the same transaction.
    """
    batch: Batch[AnEvent] = Batch()
    believed = _believe(events, uow, accepted, batch)
    fresh = _answer_again(believed, uow, batch)
    if fresh:
        _store(fresh, perform(fresh), uow, batch)
    quarantine(batch.distrusted, uow)
    return batch


def _believe(
    events: Sequence[Received], uow: UnitOfWork, accepted: Mapping[str, type[AnEvent]], batch: Batch[AnEvent]
) -> list[Trusted[AnEvent]]:
    """Sort out what has the wrong form, an unknown station or a wrong signature."""
    well_formed: list[ParsedEvent[AnEvent]] = []
    for received in events:
        found = read(received, accepted)
        if isinstance(found, RejectedMessage):
            batch.distrusted.append(found)
        else:
            well_formed.append(found)
    known = load_stations(uow.session, {each.event.station for each in well_formed}) if well_formed else {}
    trusted: list[Trusted[AnEvent]] = []
    for each in well_formed:
        desk = known.get(each.event.station)
        wrong = check_signature(each, desk.key if desk else None)
        if wrong is not None:
            batch.distrusted.append(wrong)
        elif desk is not None:
            trusted.append((each, desk))
    return trusted


def _answer_again(
    trusted: Sequence[Trusted[AnEvent]], uow: UnitOfWork, batch: Batch[AnEvent]
) -> list[Trusted[AnEvent]]:
    """Send stored replies again; give back the events that have none, each id once."""
    known = known_answers(uow.session, [each.event.event_id for each, _ in trusted]) if trusted else {}
    fresh: dict[UUID, Trusted[AnEvent]] = {}
    for each, desk in trusted:
        event_id = each.event.event_id
        fingerprint, reply = known.get(event_id, (None, None))
        if event_id in fresh:
            fingerprint = fresh[event_id][0].fingerprint
        if fingerprint is None:
            fresh[event_id] = (each, desk)
        elif fingerprint != each.fingerprint:
            batch.distrusted.append(RejectedMessage(each.received, "other_payload", "", event_id, each.event.station))
        elif reply is not None:
            batch.answered.append(Answered(each, None))
            if each.reply_to is not None and is_reply_queue(each.reply_to):
                batch.again.append(PendingMessage(None, each.reply_to, None, reply, event_id))
    return list(fresh.values())


def _store(fresh: Sequence[Trusted[AnEvent]], performed: HandlerResult, uow: UnitOfWork, batch: Batch[AnEvent]) -> None:
    """Keep the replies, and promise them: replies first, then what follows."""
    pairs = list(zip(fresh, performed.replies, strict=True))
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
            for (each, _), reply in pairs
        ],
    )
    for (each, _), reply in pairs:
        batch.answered.append(Answered(each, reply))
        if each.reply_to is not None and is_reply_queue(each.reply_to):
            uow.enqueue(each.reply_to, reply.model_dump_json(exclude_none=True), event_id=reply.event_id)
    for order in performed.follow_ups:
        uow.enqueue(order.queue, order.body, task=order.task, event_id=order.event_id)


_KNOWN = select(InboxEntry.event_id, InboxEntry.fingerprint, InboxEntry.reply).where(
    InboxEntry.event_id.in_(bindparam("event_ids", expanding=True))
)


def known_answers(session: Session, event_ids: Collection[UUID]) -> dict[UUID, tuple[str, str]]:
    """Fingerprint and stored reply of those events that were answered before."""
    rows = session.execute(_KNOWN, {"event_ids": list(event_ids)})
    return {row.event_id: (row.fingerprint, row.reply) for row in rows}
