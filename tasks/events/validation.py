# SPDX-License-Identifier: Apache-2.0
"""Believing an event: its form, its version, its station, its signature. What is not believed is kept apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import ValidationError

from schemas import signing
from schemas.events import StationEvent

LARGEST_EVENT: Final = 262_144
"""Bytes of canonical JSON. A box of fifty items with all their barcodes and descriptions has a good half of it."""

LONGEST_KEPT: Final = 262_144
"""How much of a message that is set apart is kept, in characters."""

AnEvent = TypeVar("AnEvent", bound=StationEvent)


@dataclass(frozen=True)
class Received:
    """A message as it came from the queue."""

    payload: object
    reply_to: str | None
    """Checked against the reply queues' pattern before anything is sent there."""
    task: str | None = None
    """Name of the task that it was sent to."""
    desk: object = None
    """What the desk said of itself beside the event (`schemas.station_status`), as it came."""


@dataclass(frozen=True)
class Believed(Generic[AnEvent]):
    """An event of the right form, whose signature is still to be compared with its station's key."""

    event: AnEvent
    payload: Mapping[str, Any]
    fingerprint: str
    received: Received

    @property
    def reply_to(self) -> str | None:
        """Where it wants its answer."""
        return self.received.reply_to


@dataclass(frozen=True)
class Distrusted:
    """A message that goes to quarantine."""

    received: Received
    reason: str
    """One of `REFUSALS`."""
    detail: str
    event_id: UUID | None = None
    """To answer to, where it has one."""
    station: str | None = None


REFUSALS = {
    "bad_schema": "Not understood: this station's message does not have the right form",
    "unknown_version": "Not understood: this station speaks a version that the server does not know",
    "unknown_station": "Not accepted: this station is not known to the server",
    "bad_signature": "Not accepted: this station's signature is wrong",
    "oversize": "Not accepted: this message is larger than any event can be",
    "failed": "Not processed: the server failed on this scan, and it is kept for review",
    "other_payload": "Not accepted: another scan was sent with the same event id",
}
"""The words for the screen, by reason."""


def read(received: Received, accepted: Mapping[str, type[AnEvent]]) -> Believed[AnEvent] | Distrusted:
    """Check form and version. `accepted`: the types that are understood here, by their versioned names."""
    payload = received.payload
    if not isinstance(payload, Mapping):
        return Distrusted(received, "bad_schema", "the message is no JSON object")
    event_id, station = event_id_of(payload), station_of(payload)
    kind = payload.get("type")
    model = accepted.get(kind) if isinstance(kind, str) else None
    if model is None:
        return Distrusted(received, "unknown_version", f"type {str(kind)[:100]!r}", event_id, station)
    try:
        canonical = signing.canonical(payload)
        if len(canonical) <= LARGEST_EVENT:
            return Believed(model.model_validate(payload), payload, sha256(canonical).hexdigest(), received)
        reason, detail = "oversize", f"{len(canonical)} bytes"
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        reason, detail = "bad_schema", places
    except ValueError as error:  # canonical JSON cannot carry it
        reason, detail = "bad_schema", str(error)
    except RecursionError:
        reason, detail = "bad_schema", "nested too deeply"
    return Distrusted(received, reason, detail[:1000], event_id, station)


def check_signature(believed: Believed[AnEvent], key: str | None) -> Distrusted | None:
    """`None` when the station is known and the signature is its own."""
    if key is not None and signing.verify(believed.payload, key.encode()):
        return None
    reason = "unknown_station" if key is None else "bad_signature"
    event = believed.event
    return Distrusted(believed.received, reason, "", event.event_id, event.station)


def event_id_of(payload: object) -> UUID | None:
    """The event id that a message of any form carries, if it does."""
    value = payload.get("event_id") if isinstance(payload, Mapping) else None
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def station_of(payload: object) -> str | None:
    """The station that a message of any form claims to be from, if it does."""
    value = payload.get("station") if isinstance(payload, Mapping) else None
    return value[:100] if isinstance(value, str) else None
