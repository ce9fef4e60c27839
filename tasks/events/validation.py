# SPDX-License-Identifier: Apache-2.0
"""Validate an event: schema, version, station, signature. A message that fails is rejected and quarantined. Pure."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from schemas import signing
from schemas.reasons import RejectionReason
from tasks.events.model import AnEvent, FindStations, ParsedEvent, StationRecord, VerifiedEvent
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of, station_of

MAX_EVENT_BYTES: Final = 262_144
"""Bytes of canonical JSON. A box of fifty items with all their barcodes and descriptions has a good half of it."""


def validate(
    messages: Sequence[Received], accepts: Mapping[str, type[AnEvent]], find_stations: FindStations
) -> tuple[list[VerifiedEvent[AnEvent]], list[RejectedMessage]]:
    """Separate verified events from messages to reject.

    `accepts`: the event types of the task, by their versioned names. `find_stations` is called at most once.
    """
    parsed: list[ParsedEvent[AnEvent]] = []
    verified: list[VerifiedEvent[AnEvent]] = []
    rejected: list[RejectedMessage] = []
    for message in messages:
        result = parse(message, accepts)
        if isinstance(result, RejectedMessage):
            rejected.append(result)
        else:
            parsed.append(result)
    stations = find_stations({each.event.station for each in parsed}) if parsed else {}
    for each in parsed:
        checked = verify(each, stations.get(each.event.station))
        if isinstance(checked, RejectedMessage):
            rejected.append(checked)
        else:
            verified.append(checked)
    return verified, rejected


def parse(received: Received, accepts: Mapping[str, type[AnEvent]]) -> ParsedEvent[AnEvent] | RejectedMessage:
    """Check size, version and schema."""
    payload = received.payload
    if not isinstance(payload, Mapping):
        return RejectedMessage(received, RejectionReason.BAD_SCHEMA, "the message is not a JSON object")
    event_id, station = event_id_of(payload), station_of(payload)
    kind = payload.get("type")
    model = accepts.get(kind) if isinstance(kind, str) else None
    if model is None:
        detail = f"type {str(kind)[:100]!r}"
        return RejectedMessage(received, RejectionReason.UNKNOWN_VERSION, detail, event_id, station)
    reason = RejectionReason.BAD_SCHEMA
    try:
        canonical = signing.canonical(payload)
        if len(canonical) <= MAX_EVENT_BYTES:
            return ParsedEvent(model.model_validate(payload), payload, sha256(canonical).hexdigest(), received)
        reason, detail = RejectionReason.OVERSIZE, f"{len(canonical)} bytes"
    except ValidationError as error:
        detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
    except ValueError as error:  # canonical JSON cannot carry it
        detail = str(error)
    except RecursionError:
        detail = "nested too deeply"
    return RejectedMessage(received, reason, detail[:1000], event_id, station)


def verify(parsed: ParsedEvent[AnEvent], station: StationRecord | None) -> VerifiedEvent[AnEvent] | RejectedMessage:
    """Verify the signature with the key of `station`, which is `None` when no active station has the code."""
    if station is not None and signing.verify(parsed.payload, station.key.encode()):
        return VerifiedEvent(parsed.event, station, parsed.fingerprint, parsed.received)
    reason = RejectionReason.UNKNOWN_STATION if station is None else RejectionReason.BAD_SIGNATURE
    return RejectedMessage(parsed.received, reason, "", parsed.event.event_id, parsed.event.station)
