# SPDX-License-Identifier: Apache-2.0
"""What a desk says of itself beside an event: a header of the task message, for monitoring and nothing else.

It is no part of the event: it is not signed, differs from sending to sending, and whoever leaves it out is served alike.
"""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, Field, ValidationError

from schemas.events import Message

HEADER: Final = "desk"
"""Name of the header in the task message."""


class StationStatus(Message):
    """How a sending came about, and what the desk still has."""

    sent_at: AwareDatetime
    """When this sending left, by the station's clock."""
    attempt: Annotated[int, Field(ge=1, lt=2**31)] = 1
    """Which sending of the event this is."""
    held: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """How many events the desk has taken and could not send yet; those on their way are not counted."""
    held_since: AwareDatetime | None = None
    """When the oldest of them was taken."""


def to_header(sent_at: datetime, attempt: int, held: int, held_since: datetime | None) -> dict[str, Any]:
    """The header's value: plain values, as any transport carries them."""
    word: dict[str, Any] = {"sent_at": sent_at.isoformat(timespec="milliseconds"), "attempt": attempt, "held": held}
    return word if held_since is None else {**word, "held_since": held_since.isoformat(timespec="milliseconds")}


def read(value: object) -> StationStatus | None:
    """What the header says; `None` when there is none, or it cannot be read: monitoring refuses no scan."""
    if not isinstance(value, dict):
        return None
    try:
        return StationStatus.model_validate(value)
    except ValidationError:
        return None
