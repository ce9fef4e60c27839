# SPDX-License-Identifier: Apache-2.0
"""A message that is rejected before it is handled: the message as received, the reason, and the text for the station. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

MAX_QUARANTINED_CHARS: Final = 262_144
"""How much of a message that is set apart is kept, in characters."""


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
class RejectedMessage:
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
