# SPDX-License-Identifier: Apache-2.0
"""Values that pass through the processing of events."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic
from uuid import UUID

from schemas.circulation_events import Reply
from tasks.events.stations import StationRecord
from tasks.events.validation import AnEvent, ParsedEvent
from tasks.ports import PendingMessage
from tasks.quarantine.rejection import RejectedMessage

Trusted = tuple[ParsedEvent[AnEvent], StationRecord]
"""An event whose signature is its station's, with that station."""


@dataclass(frozen=True)
class Answered(Generic[AnEvent]):
    """One event with its answer, for the log."""

    event: ParsedEvent[AnEvent]
    reply: Reply | None
    """`None` when the answer of before was sent again."""


@dataclass
class Batch(Generic[AnEvent]):
    """What became of a sequence of events."""

    answered: list[Answered[AnEvent]] = field(default_factory=list)
    distrusted: list[RejectedMessage] = field(default_factory=list)
    again: list[PendingMessage] = field(default_factory=list)
    """Stored replies to send once more; they need no row, for who wants them asks again."""


@dataclass(frozen=True)
class FollowUp:
    """A task that a commit promises, to be published after the replies."""

    queue: str
    task: str
    body: str
    event_id: UUID | None


@dataclass(frozen=True)
class HandlerResult:
    """The reply to each of the events, in their order, and what follows from them."""

    replies: Sequence[Reply]
    follow_ups: Sequence[FollowUp] = ()
