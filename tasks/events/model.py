# SPDX-License-Identifier: Apache-2.0
"""Values that pass through the processing of events, from the received message to the processed batch. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from schemas import signing
from schemas.circulation_events import Reply
from schemas.events import StationEvent
from schemas.reply_signature import ReplyKeys
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of

AnEvent = TypeVar("AnEvent", bound=StationEvent)


@dataclass(frozen=True)
class StationRecord:
    """A station as the database knows it."""

    code: str
    key: str = field(repr=False)
    branch: str
    branch_id: int
    sent_from: tuple[str, ...]
    """Library, branch, and the branch's address: FROM on the slip."""
    printer_id: int | None
    """The printer that prints the station's slips."""
    previous_key: str | None = field(default=None, repr=False)
    """The key before the last rotation, while it is still valid."""
    active: bool = True
    """False for a disabled station, whose events are refused."""
    sent_from_code: str | None = None
    """The branch's own courier code, beside FROM on the slip."""

    def signing_keys(self, canonical: bytes, signature: object) -> ReplyKeys | None:
        """The keys of replies to an event: first the key that signed it. `None` if no valid key did."""
        keys = [self.key] if self.previous_key is None else [self.key, self.previous_key]
        for key in keys:
            if signing.verify_canonical(canonical, signature, key.encode()):
                others = [other for other in keys if other != key]
                return ReplyKeys(self.code, key, others[0] if others else None)
        return None


@dataclass(frozen=True)
class ParsedEvent(Generic[AnEvent]):
    """An event with a valid schema. The signature is not verified yet."""

    event: AnEvent
    canonical: bytes
    """The bytes that the signature covers."""
    fingerprint: str
    """SHA-256 of `canonical`, hexadecimal."""
    received: Received


@dataclass(frozen=True)
class VerifiedEvent(Generic[AnEvent]):
    """An event that its station signed."""

    event: AnEvent
    station: StationRecord
    fingerprint: str
    received: Received
    reply_keys: ReplyKeys
    """The keys that sign the reply."""


@dataclass(frozen=True)
class FollowUp:
    """A task that the commit enqueues after the replies."""

    queue: str
    task: str
    body: str
    """The task's one argument, as JSON."""
    event_id: UUID | None


@dataclass(frozen=True)
class HandlerResult:
    """The replies to the handled events, in their order, and the tasks that follow."""

    replies: Sequence[Reply]
    follow_ups: Sequence[FollowUp] = ()


@dataclass(frozen=True)
class ProcessedEvent:
    """An event and its reply, for the log and the metrics."""

    event: VerifiedEvent[Any]
    reply: Reply | None
    """`None` for a duplicate, whose stored reply is sent again."""

    @property
    def outcome(self) -> str:
        """The outcome of the task, as Celery and Flower show it."""
        return "reply_sent_again" if self.reply is None else self.reply.outcome.value


@dataclass(frozen=True)
class ProcessedBatch:
    """The result of processing a sequence of messages."""

    processed: Sequence[ProcessedEvent] = ()
    rejected: Sequence[RejectedMessage] = ()
    resend: Sequence[PendingMessage] = ()
    """Stored replies to publish again. They need no outbox row: the station asks until it has its reply."""

    def outcomes(self, received: Sequence[Received]) -> list[str]:
        """The outcome of each of `received`, in order: `quarantined` for a message that has no processed event."""
        by_id = {each.event.event.event_id: each.outcome for each in self.processed}
        ids = (event_id_of(message.payload) for message in received)
        return ["quarantined" if found is None else by_id.get(found, "quarantined") for found in ids]


FindStations = Callable[[set[str]], Mapping[str, StationRecord]]
"""Finds the registered stations among codes."""
