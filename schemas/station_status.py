# SPDX-License-Identifier: Apache-2.0
"""A station's status: a header of the task message beside the event, for monitoring only.

The header is not part of the event: it is not signed and differs at each sending. Workers process an event without it in
the same way.
"""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, Field, ValidationError

from schemas.events import Message

HEADER: Final = "desk"
"""Name of the header in the task message."""


class StationStatus(Message):
    """The number and time of this sending, and the events that the station still holds."""

    sent_at: AwareDatetime
    """Time of this sending, by the station's clock."""
    attempt: Annotated[int, Field(ge=1, lt=2**31)] = 1
    """Number of this sending of the event, from 1."""
    held: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Events that the station has stored and could not send yet; without those that were sent."""
    held_since: AwareDatetime | None = None
    """Time at which the oldest of them was stored, by the station's clock."""


def to_header(sent_at: datetime, attempt: int, held: int, held_since: datetime | None) -> dict[str, Any]:
    """The header's value, of plain types that every transport can carry."""
    header: dict[str, Any] = {"sent_at": sent_at.isoformat(timespec="milliseconds"), "attempt": attempt, "held": held}
    return header if held_since is None else {**header, "held_since": held_since.isoformat(timespec="milliseconds")}


def from_header(value: object) -> StationStatus | None:
    """Parse the header's value; `None` if it is absent or invalid, because a scan is never refused for monitoring."""
    if not isinstance(value, dict):
        return None
    try:
        return StationStatus.model_validate(value)
    except ValidationError:
        return None
