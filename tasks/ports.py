# SPDX-License-Identifier: Apache-2.0
"""Interfaces that the worker implements for tasks: publisher, task events, dead letters."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol
from uuid import UUID

REDELIVERY_HEADERS: Final = ("x-delivery-count", "x-acquired-count")
"""Headers that RabbitMQ changes at each delivery."""


@dataclass(frozen=True)
class Envelope:
    """The headers and properties of a message, without its body. `DeadLetter.digest` covers the field names."""

    headers: Mapping[str, Any]
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter as the broker stores it."""

    body: bytes
    envelope: Envelope
    handle: Any
    """Identifies the letter to `DeadLetters.remove`: a delivery tag on RabbitMQ, the list entry on Redis."""
    routing_key: str | None = None
    """The queue that the message was sent to, where the broker stores it."""
    identity: bytes = b""
    """Distinguishes letters of equal content, where the broker's messages carry an identifier."""

    @property
    def digest(self) -> str:
        """SHA-256 of the letter, hexadecimal; equal each time that the same letter is read."""
        headers = {name: value for name, value in self.envelope.headers.items() if name not in REDELIVERY_HEADERS}
        envelope = json.dumps(asdict(self.envelope) | {"headers": headers}, sort_keys=True, default=str)
        return hashlib.sha256(b"\0".join((self.identity, envelope.encode(), self.body))).hexdigest()


@dataclass(frozen=True)
class Outgoing:
    """A quarantined message on its way back to a queue."""

    queue: str
    body: bytes
    envelope: Envelope


class DeadLetters(Protocol):
    """The broker's dead-letter queue, over an open connection. Every method raises the errors of the transport."""

    def peek(self, limit: int) -> Sequence[DeadLetter]:
        """Return the oldest letters, at most `limit`. They stay in the queue until `remove`."""

    def remove(self, letters: Sequence[DeadLetter]) -> None:
        """Remove letters that `peek` returned."""

    def requeue(self, message: Outgoing) -> None:
        """Publish `message` to its queue; return when the broker has confirmed it."""


OpenDeadLetters = Callable[[], AbstractContextManager[DeadLetters]]


@dataclass(frozen=True)
class PendingMessage:
    """A committed message that is not published yet."""

    outbox_id: UUID | None
    """Its row in the outbox; `None` when there is none, because the station would resend its event."""
    queue: str
    task: str | None
    """Task name; `None` for a plain message to a station."""
    body: str
    event_id: UUID | None


class Publisher(Protocol):
    """Publishes committed messages to the broker."""

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Publish `entries` in order, record the outbox rows of those that the broker has confirmed, return how many.

        Never raises while the broker is unavailable: the sweep publishes what is left.
        """


class TaskEventEmitter(Protocol):
    """Emits the progress of the running task to monitors such as Flower. No function depends on its delivery."""

    def __call__(self, name: str, **fields: str) -> None:
        """Emit event `name` (for example `slip-sending`). `fields` hold ids and codes only. Never raises."""


def no_events(name: str, **fields: str) -> None:
    """Discard the event: the `TaskEventEmitter` of a process without monitoring."""
