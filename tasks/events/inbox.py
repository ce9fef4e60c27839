# SPDX-License-Identifier: Apache-2.0
"""The inbox: each event id is processed once, and its reply is stored in the same transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic
from uuid import UUID

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from schemas.models import InboxEntry, table
from schemas.reasons import RejectionReason
from schemas.reply_signature import sign_reply, signed_json
from schemas.topology import reply_queue
from tasks.events.model import AnEvent, HandlerResult, ProcessedEvent, VerifiedEvent
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import RejectedMessage
from tasks.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class Deduplicated(Generic[AnEvent]):
    """Events separated by what the inbox knows of their ids."""

    new: Sequence[VerifiedEvent[AnEvent]]
    """Each id once."""
    duplicates: Sequence[ProcessedEvent]
    resend: Sequence[PendingMessage]
    """The stored replies of `duplicates`, each signed with the key of the event that asks for it now."""
    conflicts: Sequence[RejectedMessage]
    """Events whose id was used before with another payload."""


def deduplicate(events: Sequence[VerifiedEvent[AnEvent]], session: Session) -> Deduplicated[AnEvent]:
    """Separate new events from duplicates, which get their stored replies."""
    stored = stored_replies(session, [each.event.event_id for each in events]) if events else {}
    new: dict[UUID, VerifiedEvent[AnEvent]] = {}
    duplicates: list[ProcessedEvent] = []
    resend: list[PendingMessage] = []
    conflicts: list[RejectedMessage] = []
    for each in events:
        event_id = each.event.event_id
        fingerprint, reply = stored.get(event_id, (None, None))
        if event_id in new:
            fingerprint = new[event_id].fingerprint
        if fingerprint is None:
            new[event_id] = each
        elif fingerprint not in ("", each.fingerprint):  # empty: erased with the barcode of an old event
            reason, station = RejectionReason.OTHER_PAYLOAD, each.event.station
            conflicts.append(RejectedMessage(each.received, reason, "", event_id, station, True, each.reply_keys))
        elif reply is not None:
            duplicates.append(ProcessedEvent(each, None))
            if (queue := _reply_queue(each)) is not None:
                resend.append(PendingMessage(None, queue, None, sign_reply(reply, each.reply_keys), event_id))
    return Deduplicated(list(new.values()), duplicates, resend, conflicts)


def store(events: Sequence[VerifiedEvent[AnEvent]], result: HandlerResult, uow: UnitOfWork) -> Sequence[ProcessedEvent]:
    """Store the replies to new events, and enqueue them: replies first, then the tasks that follow."""
    if not events:
        return ()
    processed = [ProcessedEvent(each, reply) for each, reply in zip(events, result.replies, strict=True)]
    replies = [
        signed_json(reply.model_dump(mode="json", exclude_none=True), each.reply_keys)
        for each, reply in zip(events, result.replies, strict=True)
    ]
    uow.session.execute(
        insert(table(InboxEntry)),
        [
            {
                "event_id": each.event.event_id,
                "fingerprint": each.fingerprint,
                "station": each.event.station,
                "answered_at": uow.now,
                "outcome": reply.outcome.value,
                "reply": body,
            }
            for each, reply, body in zip(events, result.replies, replies, strict=True)
        ],
    )
    for each, body in zip(events, replies, strict=True):
        if (queue := _reply_queue(each)) is not None:
            uow.enqueue(queue, body, event_id=each.event.event_id)
    for task in result.follow_ups:
        uow.enqueue(task.queue, task.body, task=task.task, event_id=task.event_id)
    return processed


def _reply_queue(event: VerifiedEvent[AnEvent]) -> str | None:
    """The reply queue of the station that signed the event; `None` when the message asks for no reply.

    `reply_to` is not signed, so a message that names another queue gets no reply.
    """
    queue = reply_queue(event.station.code)
    return queue if event.received.reply_to == queue else None


_STORED = select(InboxEntry.event_id, InboxEntry.fingerprint, InboxEntry.reply).where(
    InboxEntry.event_id.in_(bindparam("event_ids", expanding=True))
)


def stored_replies(session: Session, event_ids: Collection[UUID]) -> dict[UUID, tuple[str, str]]:
    """Fingerprint and stored reply of each event id that was processed before."""
    rows = session.execute(_STORED, {"event_ids": list(event_ids)})
    return {row.event_id: (row.fingerprint, row.reply) for row in rows}
