# SPDX-License-Identifier: Apache-2.0
"""Values that pass through the processing of events, from the received message to the processed batch. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from schemas.circulation_events import Reply
from schemas.events import StationEvent
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of

AnEvent = TypeVar("AnEvent", bound=StationEvent)


@dataclass(frozen=True)
class StationRecord:
    """A station as the database knows it."""

    code: str
    key: str
    branch: str
    sent_from: tuple[str, ...]
    """Library, branch, and the branch's address: FROM on the slip."""
    printer_id: int | None
    """The printer that prints the station's slips."""


@dataclass(frozen=True)
class ParsedEvent(Generic[AnEvent]):
    """An event with a valid schema. The signature is not verified yet."""

    event: AnEvent
    payload: Mapping[str, Any]
    fingerprint: str
    """SHA-256 of the canonical JSON, hexadecimal."""
    received: Received


@dataclass(frozen=True)
class VerifiedEvent(Generic[AnEvent]):
    """An event that its station signed."""

    event: AnEvent
    station: StationRecord
    fingerprint: str
    received: Received


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
"""Finds the active stations among codes."""
