# SPDX-License-Identifier: Apache-2.0
"""Believing an event: its form, its version, its station, its signature. What is not believed is kept apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from schemas import signing
from schemas.events import StationEvent
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of, station_of

MAX_EVENT_BYTES: Final = 262_144
"""Bytes of canonical JSON. A box of fifty items with all their barcodes and descriptions has a good half of it."""


AnEvent = TypeVar("AnEvent", bound=StationEvent)


@dataclass(frozen=True)
class ParsedEvent(Generic[AnEvent]):
    """An event of the right form, whose signature is still to be compared with its station's key."""

    event: AnEvent
    payload: Mapping[str, Any]
    fingerprint: str
    received: Received

    @property
    def reply_to(self) -> str | None:
        """Where it wants its answer."""
        return self.received.reply_to


def read(received: Received, accepted: Mapping[str, type[AnEvent]]) -> ParsedEvent[AnEvent] | RejectedMessage:
    """Check form and version. `accepted`: the types that are understood here, by their versioned names."""
    payload = received.payload
    if not isinstance(payload, Mapping):
        return RejectedMessage(received, "bad_schema", "the message is no JSON object")
    event_id, station = event_id_of(payload), station_of(payload)
    kind = payload.get("type")
    model = accepted.get(kind) if isinstance(kind, str) else None
    if model is None:
        return RejectedMessage(received, "unknown_version", f"type {str(kind)[:100]!r}", event_id, station)
    try:
        canonical = signing.canonical(payload)
        if len(canonical) <= MAX_EVENT_BYTES:
            return ParsedEvent(model.model_validate(payload), payload, sha256(canonical).hexdigest(), received)
        reason, detail = "oversize", f"{len(canonical)} bytes"
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        reason, detail = "bad_schema", places
    except ValueError as error:  # canonical JSON cannot carry it
        reason, detail = "bad_schema", str(error)
    except RecursionError:
        reason, detail = "bad_schema", "nested too deeply"
    return RejectedMessage(received, reason, detail[:1000], event_id, station)


def check_signature(believed: ParsedEvent[AnEvent], key: str | None) -> RejectedMessage | None:
    """`None` when the station is known and the signature is its own."""
    if key is not None and signing.verify(believed.payload, key.encode()):
        return None
    reason = "unknown_station" if key is None else "bad_signature"
    event = believed.event
    return RejectedMessage(believed.received, reason, "", event.event_id, event.station)
