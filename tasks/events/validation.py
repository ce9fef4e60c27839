# SPDX-License-Identifier: Apache-2.0
"""Validate an event: schema, version, station, signature. A message that fails is rejected and quarantined. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from schemas import signing
from schemas.reasons import RejectionReason
from schemas.topology import CODE_PATTERN
from tasks.events.model import AnEvent, FindStations, ParsedEvent, StationRecord, VerifiedEvent
from tasks.quarantine.rejection import Received, RejectedMessage, event_id_of, station_of

MAX_CODE_LENGTH: Final = 40
MAX_EVENT_BYTES: Final = 262_144
"""Bytes of canonical JSON. A box of fifty items with all their barcodes and descriptions has a good half of it."""


def validate(
    messages: Sequence[Received], accepts: Mapping[str, type[AnEvent]], find_stations: FindStations
) -> tuple[list[VerifiedEvent[AnEvent]], list[RejectedMessage]]:
    """Separate verified events from messages to reject.

    `accepts`: the event types of the task, by their versioned names. `find_stations` is called at most once.
    A rejected message gets the keys that sign its refusal, if a registered station signed it.
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
    codes = {each.event.station for each in parsed}
    codes |= {each.station for each in rejected if each.station is not None and is_code(each.station)}
    stations = find_stations(codes) if codes else {}
    rejected = [with_sender(each, stations) for each in rejected]
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
            return ParsedEvent(model.model_validate(payload), canonical, sha256(canonical).hexdigest(), received)
        reason, detail = RejectionReason.OVERSIZE, f"{len(canonical)} bytes"
    except ValidationError as error:
        detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
    except ValueError as error:  # canonical JSON cannot carry it
        detail = str(error)
    except RecursionError:
        detail = "nested too deeply"
    return RejectedMessage(received, reason, detail[:1000], event_id, station)


def verify(parsed: ParsedEvent[AnEvent], station: StationRecord | None) -> VerifiedEvent[AnEvent] | RejectedMessage:
    """Verify the signature with the valid keys of `station`, which is `None` when no station has the code."""
    keys = station.signing_keys(parsed.canonical, parsed.event.signature) if station is not None else None
    if station is not None and station.active and keys is not None:
        return VerifiedEvent(parsed.event, station, parsed.fingerprint, parsed.received, keys)
    is_known = station is not None and station.active
    return RejectedMessage(
        parsed.received,
        RejectionReason.BAD_SIGNATURE if is_known else RejectionReason.UNKNOWN_STATION,
        "" if station is None or is_known else "the station is disabled",
        parsed.event.event_id,
        parsed.event.station,
        is_registered=station is not None,
        reply_keys=keys,
    )


def with_sender(rejected: RejectedMessage, stations: Mapping[str, StationRecord]) -> RejectedMessage:
    """The rejected message with what is known of its sender. The message can have any form."""
    station = stations.get(rejected.station or "")
    payload = rejected.received.payload
    if station is None or not isinstance(payload, Mapping):
        return rejected
    try:
        keys = station.signing_keys(signing.canonical(payload), payload.get("signature"))
    except (ValueError, RecursionError):
        keys = None
    return replace(rejected, is_registered=True, reply_keys=keys)


def is_code(station: str) -> bool:
    """True for a code that a station can have."""
    return len(station) <= MAX_CODE_LENGTH and re.fullmatch(CODE_PATTERN, station) is not None
