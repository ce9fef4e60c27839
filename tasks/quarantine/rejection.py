# SPDX-License-Identifier: Apache-2.0
"""A message rejected before it is handled: the message as received, the reason, and the text for the station. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Final
from uuid import UUID

from schemas.reasons import RejectionReason
from schemas.reply_signature import ReplyKeys

MAX_QUARANTINED_CHARS: Final = 262_144
"""Characters of a message's body that the quarantine stores; the rest is cut off."""


@dataclass(frozen=True)
class Received:
    """A message as it came from the queue."""

    payload: object
    reply_to: str | None
    """Not yet verified: compare it with the pattern of reply queues before a reply is sent there."""
    task: str | None = None
    """Name of the task that the message is for."""
    task_id: str | None = None
    station_status: object = None
    """Value of the header with the station's status (`schemas.station_status`), not yet validated."""


@dataclass(frozen=True)
class RejectedMessage:
    """A message that goes to the quarantine."""

    received: Received
    reason: RejectionReason
    detail: str
    event_id: UUID | None = None
    """Event to reply to; `None` when the message has no readable event id."""
    station: str | None = None
    """Station that the message names; not authenticated."""
    is_registered: bool = False
    """True if a station with that code is registered."""
    reply_keys: ReplyKeys | None = None
    """The keys that sign the refusal; `None` if no registered station signed the message."""


MESSAGES: Final[Mapping[RejectionReason, str]] = MappingProxyType(
    {
        RejectionReason.BAD_SCHEMA: "Not understood: this station's message does not have the right form",
        RejectionReason.UNKNOWN_VERSION: "Not understood: this station sends a version that the server does not know",
        RejectionReason.UNKNOWN_STATION: "Not accepted: this station is not known to the server",
        RejectionReason.BAD_SIGNATURE: "Not accepted: this station's signature is wrong",
        RejectionReason.OVERSIZE: "Not accepted: this message is larger than any event can be",
        RejectionReason.FAILED: "Not processed: the server failed on this scan, and it is kept for review",
        RejectionReason.OTHER_PAYLOAD: "Not accepted: another scan was sent with the same event id",
    }
)
"""Text for the station's screen, by reason."""


def body_digest(body: str) -> str:
    """SHA-256 of a stored body, hexadecimal: the record of an erased message keeps it."""
    return sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def event_id_of(payload: object) -> UUID | None:
    """The event id of a message of any form; `None` when it has none that is a UUID."""
    value = payload.get("event_id") if isinstance(payload, Mapping) else None
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def station_of(payload: object) -> str | None:
    """The station that a message of any form names, not authenticated, at most 100 characters."""
    value = payload.get("station") if isinstance(payload, Mapping) else None
    return value[:100] if isinstance(value, str) else None
