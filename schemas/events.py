# SPDX-License-Identifier: Apache-2.0
"""Events that stations send for a Return; frozen values, versioned by name.

Within a version changes are additive only: a receiver ignores unknown fields.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.external_text import GivenLine
from schemas.topology import CODE_PATTERN

Code = Annotated[str, Field(pattern=CODE_PATTERN, max_length=40)]
"""Code of a station, branch or printer."""


class Message(BaseModel):
    """Base of all messages: a frozen value; validation ignores unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Override(Message):
    """A supervisor's decision that a Return is performed although the rule refuses it."""

    reason: Annotated[str, GivenLine, Field(min_length=1, max_length=500)]
    supervisor: Annotated[str, GivenLine, Field(min_length=1, max_length=100)]


class StationEvent(Message):
    """Fields of every event that a station sends."""

    event_id: UUID
    """UUIDv7, generated once by the station; a resent event keeps it."""
    station: Code
    sequence: Annotated[int, Field(ge=0, lt=2**53)]
    """The station's event counter, one higher for each event."""
    signature: Annotated[str, Field(min_length=64, max_length=64)]
    """HMAC-SHA256 over the canonical JSON of all other fields, in hexadecimal."""


class ReturnEvent(StationEvent):
    """Fields of both events that return an item."""

    print_slip: bool
    """True to print a slip."""
    returned_at: AwareDatetime | None = None
    """Time at which the item came back (drop-box mode), if earlier than the event."""


class BarcodeScanned(ReturnEvent):
    """An item barcode was scanned at a station under "Return items"."""

    type: Literal["bookdrop.barcode-scanned.v1"] = "bookdrop.barcode-scanned.v1"
    barcode: Annotated[str, Field(max_length=1024)]
    scanned_at: AwareDatetime
    print_slip: bool = True

    @property
    def occurred_at(self) -> datetime:
        """Time of the event, by the station's clock."""
        return self.scanned_at


class ReturnRequested(ReturnEvent):
    """Staff chose Return on a borrowing request."""

    type: Literal["bookdrop.return-requested.v1"] = "bookdrop.return-requested.v1"
    request: Annotated[str, Field(min_length=1, max_length=100)]
    """The request's external identifier."""
    requested_at: AwareDatetime
    note: Annotated[str, Field(max_length=10_000)] | None = None
    print_slip: bool = False
    override: Override | None = None
    resolution: Literal["found_by_library", "returned_by_patron"] | None = None
    """Resolution of a patron's claim to have returned the item."""
    force_partial: bool = False
    """Return the request although some of its items are missing."""

    @property
    def occurred_at(self) -> datetime:
        """Time of the event, by the station's clock."""
        return self.requested_at


Event = BarcodeScanned | ReturnRequested
