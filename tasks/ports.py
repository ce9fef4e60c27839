# SPDX-License-Identifier: Apache-2.0
"""Interfaces that the worker implements for tasks: publisher, task events, dead letters."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol
from uuid import UUID

REDELIVERIES: Final = ("x-delivery-count", "x-acquired-count")
"""Headers that RabbitMQ changes each time it delivers."""


@dataclass(frozen=True)
class Envelope:
    """What stands around a message's body."""

    headers: Mapping[str, Any]
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter as the broker has it."""

    body: bytes
    envelope: Envelope
    handle: Any
    """By which it is let go of."""
    routing_key: str | None = None
    """The queue that it was meant for, where the broker tells."""
    mark: bytes = b""
    """Tells it from another letter of the same content, where the broker's messages have such a thing."""

    @property
    def digest(self) -> str:
        """The same letter has the same, however often it is looked at."""
        headers = {name: value for name, value in self.envelope.headers.items() if name not in REDELIVERIES}
        around = json.dumps(asdict(self.envelope) | {"headers": headers}, sort_keys=True, default=str)
        return hashlib.sha256(b"\0".join((self.mark, around.encode(), self.body))).hexdigest()


@dataclass(frozen=True)
class Outgoing:
    """A message to be put back on its queue."""

    queue: str
    body: bytes
    envelope: Envelope


class DeadLetters(Protocol):
    """The broker's dead letters, while one looks at them."""

    def look(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest letters, at most `limit`; they stay where they are. Raises what the transport raises."""

    def forget(self, letters: Sequence[DeadLetter]) -> None:
        """Let go of letters that were looked at."""

    def put_back(self, message: Outgoing) -> None:
        """Publish, and return when the broker has it."""


OpenDeadLetters = Callable[[], AbstractContextManager[DeadLetters]]


@dataclass(frozen=True)
class PendingMessage:
    """A promise that is in the outbox and not with the broker yet."""

    outbox_id: UUID | None
    """Its row; `None` when there is none, because who wants it asks again."""
    queue: str
    task: str | None
    """Task name; `None` for a plain message to a station."""
    body: str
    event_id: UUID | None


class Publisher(Protocol):
    """Gives promised messages to the broker."""

    def publish_outbox(self, entries: Sequence[PendingMessage]) -> int:
        """Publish `entries` in order and note the rows of those the broker has as settled; return how many.

        Never raises for a broker that is away: what could not be published stays for the sweep.
        """


class TaskEventEmitter(Protocol):
    """Tells whoever watches, such as Flower, what goes on at this moment. Nothing depends on its being heard."""

    def __call__(self, what: str, **about: str) -> None:
        """Say `what` (such as `slip-sending`), and which one: ids and codes, nothing else. Never raises."""


def no_events(what: str, **about: str) -> None:
    """An `TaskEventEmitter` where nobody watches."""
